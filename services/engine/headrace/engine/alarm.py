"""Wakes up what waits for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.core.lease import Moment

# The loop's clock may stand still while the machine is suspended. The clock of the leases does not.
_LONGEST_SLEEP_SECONDS = 5.0


class Alarm:
    """Rings at the earliest of the times that it was set to; sometimes before, so that whoever hears it looks at the clock.

    Args:
        clock: by which the times are.
        ring: called then; the alarm is to be set anew by whoever waits still.
    """

    def __init__(self, clock: Callable[[], Moment], ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float) -> None:
        """Rings at this time at the latest."""
        if self._timer is not None and self._at <= at:
            return
        self.stop()
        self._at = at
        seconds = min(max(at - self._clock().steady, 0.0), _LONGEST_SLEEP_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def stop(self) -> None:
        """Does not ring until it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._ring()
