"""The calls that wait until their callers may do so much: how many are kept, and whose are turned away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from headrace.tool_calls.calls import CallOwner

MOST_WAITING: Final = 1_000
MOST_WAITING_BYTES: Final = 16_000_000
"""Beyond so many calls, or bytes of them, nothing more is read."""

HELD_SECONDS: Final = 60.0
"""For so long calls of others may stand behind those that wait. Then those who have more than their share are turned away."""

_EASED = 0.25


class _Share:
    """What one owner has waiting, or all of them have."""

    __slots__ = ("calls", "size")

    def __init__(self) -> None:
        self.calls = 0
        self.size = 0

    @property
    def load(self) -> float:
        """1 where it is as much as may wait."""
        return max(self.calls / MOST_WAITING, self.size / MOST_WAITING_BYTES)


class WaitingCalls:
    """Those of all partitions of a consumer.

    A queue is taken in at the rate at which it may be done, and what cannot wait in memory stays in the log. But a topic has the
    calls of several owners, one behind another: whoever calls faster than they may for long would have the others wait for ever.

    Args:
        shared: whether calls of several owners stand in the topic.
        clock: seconds that only ever rise.
    """

    def __init__(self, shared: bool, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._clock = clock
        self._all = _Share()
        self._shares: dict[CallOwner, _Share] = {}
        self._full_since: float | None = None

    def __len__(self) -> int:
        return self._all.calls

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read."""
        return self._all.load >= 1 and not self._crowded

    def turns_away(self, owner: CallOwner) -> bool:
        """Whether one more call of this owner cannot wait: others have waited for too long, and it has more than its share."""
        share = self._shares.get(owner)
        return share is not None and self._crowded and share.load * (len(self._shares) + 1) > 1

    @contextmanager
    def held(self, owner: CallOwner, size: int) -> Iterator[None]:
        """A call of so many bytes waits, for as long as the block lasts."""
        share = self._shares.setdefault(owner, _Share())
        self._add(share, 1, size)
        try:
            yield
        finally:
            self._add(share, -1, -size)
            if not share.calls:
                del self._shares[owner]

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
