"""How long a stop may wait for the brokers, all of its steps together: they may be away, and it ends all the same."""

from __future__ import annotations

import asyncio

_SECONDS = 5.0
# A broker that is merely slow still gets the releases, without which others would wait for the lease.
_LEAST_SECONDS = 1.0


class Closing:
    """The time that is left to a stop when its attempts have ended.

    Each step would wait for some seconds of its own. Where the brokers answer, none needs them; where they do not, the later
    steps wait in vain as the first one did, and are tried for a moment only.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._ends_at: float | None = None

    def begin(self) -> None:
        """The attempts have ended, or will not; said again, it changes nothing."""
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + self._seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is used up: then the brokers are away, or as good as."""
        return self._ends_at is not None and asyncio.get_running_loop().time() >= self._ends_at

    def at_most(self, seconds: float) -> float:
        """How long the next step may wait, which would wait for so many seconds by itself."""
        self.begin()
        assert self._ends_at is not None
        return min(seconds, max(self._ends_at - asyncio.get_running_loop().time(), _LEAST_SECONDS))
