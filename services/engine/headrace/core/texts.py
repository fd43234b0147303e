"""Texts that are shown: numbers of things, what is too long, and names that are misspelt."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
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


_NEAR: Final = 0.7
_MOST_NAMED: Final = 20
_LONGEST_COMPARED: Final = 200


def bare_name(name: str) -> str:
    """A name as it is whatever sets its words apart: `user_id`, `User-Id` and `userID` are one."""
    return name.replace("_", "").replace("-", "").casefold()


def unknown_name(name: str, known: Iterable[str]) -> str:
    """What is told of a name that is none of those that there are: which was meant, if one is near, and what else there is."""
    by_bare = {bare_name(each): each for each in known}
    if not by_bare:
        return "there is no such name, and no other"
    # To compare a long one takes long, and it is near to nothing.
    near = get_close_matches(bare_name(name), list(by_bare), 1, _NEAR) if len(name) <= _LONGEST_COMPARED else []
    names = list(by_bare.values())
    listed = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    meant = f": did you mean {by_bare[near[0]]}?" if near else ""
    return f"there is no such name{meant} (there are: {listed})"
