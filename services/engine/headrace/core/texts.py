"""Texts that are too long to be shown."""

from __future__ import annotations

from typing import Final

_MARK: Final = " … "


def cut_in_the_middle(text: str, longest: int) -> str:
    """`text` in at most `longest` characters: its beginning and its end, which of an error often says most."""
    if len(text) <= longest:
        return text
    left = max(0, longest - len(_MARK))
    end = left // 2
    return f"{text[: left - end]}{_MARK}{text[len(text) - end :]}"[:longest]
