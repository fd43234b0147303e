"""The calls that wait until their callers may do so much: how many are kept, and whose are turned away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

MOST_WAITING: Final = 1_000
MOST_WAITING_BYTES: Final = 16_000_000
"""Beyond so many calls, or bytes of them, nothing more is read."""

HELD_SECONDS: Final = 60.0
"""For so long calls of others may stand behind those that wait. Then more is read, and whoever has more than their share is
turned away if there are others."""

# There is no more to be held back: those who are read then either have little waiting, or may call at once.
_MOST_WHILE_CROWDED = 2.0
# How far what waits sinks while the next calls are being read.
_EASED = 0.75


class _Share:
    """What one caller has waiting, or all of them have."""

    __slots__ = ("calls", "line", "size")

    def __init__(self) -> None:
        self.calls = 0
        self.size = 0
        self.line = asyncio.Lock()

    @property
    def load(self) -> float:
        """1 where it is as much as may wait."""
        return max(self.calls / MOST_WAITING, self.size / MOST_WAITING_BYTES)


class WaitingCalls:
    """Those of all partitions of a consumer.

    A queue is taken in at the rate at which it may be done, and what cannot wait in memory stays in the log. But a topic has the
    calls of several callers, one behind another: whoever calls faster than they may for long would have the others wait for ever.

    Args:
        shared: whether calls of several owners stand in the topic.
        clock: seconds that only ever rise.
    """

    def __init__(self, shared: bool, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._clock = clock
        self._all = _Share()
        self._shares: dict[Hashable, _Share] = {}
        self._full_since: float | None = None
        # Whose calls stood behind since then; two are enough to know that nobody is alone.
        self._stood_behind: set[Hashable] = set()

    def __len__(self) -> int:
        return self._all.calls

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read."""
        return self._all.load >= (_MOST_WHILE_CROWDED if self._crowded else 1)

    def turns_away(self, caller: Hashable, at_once: Callable[[int], bool] | None = None) -> bool:
        """Whether one more call of this caller cannot wait: others have waited for too long, and the caller has more than their
        share.

        Args:
            at_once: whether the caller may do so many calls now: then they wait for nobody but those who do too much.
        """
        share = self._shares.get(caller)
        if share is None or not self._crowded or self._alone(caller) or share.load * (len(self._shares) + 1) <= 1:
            return False
        return at_once is None or not at_once(share.calls + 1)

    @contextmanager
    def held(self, caller: Hashable, size: int) -> Iterator[asyncio.Lock]:
        """A call of so many bytes waits, for as long as the block lasts. Yields where the caller's calls stand in line."""
        share = self._shares.setdefault(caller, _Share())
        if self._full_since is not None and len(self._stood_behind) < 2:
            self._stood_behind.add(caller)
        self._add(share, 1, size)
        try:
            yield share.line
        finally:
            self._add(share, -1, -size)
            if not share.calls:
                del self._shares[caller]

    def _alone(self, caller: Hashable) -> bool:
        """Whether nobody else waits, or stood behind: for whom there is none nobody has to make room."""
        return len(self._shares) == 1 and self._stood_behind <= {caller}

    @property
    def _crowded(self) -> bool:
        return self._shared and self._full_since is not None and self._clock() - self._full_since >= HELD_SECONDS

    def _add(self, share: _Share, calls: int, size: int) -> None:
        for each in (share, self._all):
            each.calls += calls
            each.size += size
        if self._all.load >= 1:
            self._full_since = self._clock() if self._full_since is None else self._full_since
        elif self._all.load < _EASED:
            self._full_since = None
            self._stood_behind.clear()
