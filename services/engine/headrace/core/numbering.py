"""Numbers among equals: the first of a kind is 0, and a number that was given back is taken again before a new one."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

KindT = TypeVar("KindT", bound=Hashable)


class Numbering(Generic[KindT]):
    """Counts things, each kind by itself. A number that came to nothing is given back, so that none is missing."""

    def __init__(self) -> None:
        self._next: dict[KindT, int] = {}
        self._given_back: dict[KindT, list[int]] = {}

    def take(self, kind: KindT) -> int:
        """The lowest number of this kind that nobody has."""
        if given_back := self._given_back.get(kind):
            return heappop(given_back)
        number = self._next.get(kind, 0)
        self._next[kind] = number + 1
        return number

    def give_back(self, kind: KindT, number: int) -> None:
        """Whoever took it has no use for it."""
        heappush(self._given_back.setdefault(kind, []), number)
