"""Texts that are shown: numbers of things, and what is too long."""

from __future__ import annotations

from typing import Final

_MARK: Final = " … "


def counted(number: int, one: str, many: str = "") -> str:
    """So many of something, as `1 job` or `3 jobs`.

    Args:
        many: what several are called; `one` with an s when empty.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def cut_in_the_middle(text: str, longest: int) -> str:
    """`text` in at most `longest` characters: its beginning and its end, which of an error often says most."""
    if len(text) <= longest:
        return text
    left = max(0, longest - len(_MARK))
    end = left // 2
    return f"{text[: left - end]}{_MARK}{text[len(text) - end :]}"[:longest]
