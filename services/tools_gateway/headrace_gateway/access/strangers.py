"""How many refusals of callers whom nobody knows are audited: strangers, who cost nothing, must not fill the audit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

RECORDS_PER_SECOND: Final = 10.0
RECORDS_AT_ONCE: Final = 200


class Strangers:
    """Counts refusals of callers whom nobody knows, all of one gateway together: of whom they are nothing is known.

    Args:
        per_second: so many are audited in the long run.
        at_once: so many after a rest.
        clock: seconds that only ever rise.

    Attributes:
        left_out: how many were not audited since the last one that was.
    """

    def __init__(
        self,
        per_second: float = RECORDS_PER_SECOND,
        at_once: int = RECORDS_AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1.0 / per_second
        self._depth = at_once * self._interval
        self._clock = clock
        self._full_at = float("-inf")
        self.left_out = 0

    def take(self) -> int | None:
        """How many were left out before this one, which is to be audited; None where it is left out, too."""
        now = self._clock()
        full_at = max(self._full_at, now) + self._interval
        if full_at - now - self._depth > 1e-9:
            self.left_out += 1
            return None
        self._full_at = full_at
        left_out, self.left_out = self.left_out, 0
        return left_out
