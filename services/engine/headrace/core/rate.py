"""How many jobs of a worker may start in a time, in all engines together, shared out by partition."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from headrace.errors import LONGEST_WAIT_SECONDS, ConfigurationError

MOST_STARTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many starts of a worker's jobs in any time of this length, in all engines together. Every attempt counts.

    Each partition of the worker's queue has its share, so that no engine has to ask another. Where the jobs of a time stand in
    few partitions, as those of one ordering key do, they get the shares of these alone.

    Attributes:
        count: so many starts. Where there are more partitions than that, each gets one start in a time that is as much longer:
            1 in a minute with 8 partitions is 8 in 8 minutes, of each partition one.
        per_seconds: in any time of so many seconds.

    Raises:
        ConfigurationError: a value is out of its range; the message names it.
    """

    count: int
    per_seconds: float = 1.0

    def __post_init__(self) -> None:
        count: object = self.count
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_STARTS:
            raise ConfigurationError(f"RateLimit.count is {count!r}: give a whole number, from 1 to {MOST_STARTS}.")
        seconds: object = self.per_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_WAIT_SECONDS:
            raise ConfigurationError(f"RateLimit.per_seconds is {seconds!r}: give seconds, above 0 and up to a year.")


class Share:
    """What one partition has of a limit. All shares together are the limit.

    What a former owner of the partition started is not known: so the starts of the first window are spread evenly over it, and
    those of the partitions among each other.

    Args:
        number: of the partition, from 0.
        partitions: how many there are.
        now: when the partition was taken over, in seconds by any clock.

    Attributes:
        count: how many starts there may be in a window.
        window: its length in seconds.
    """

    __slots__ = ("_starts", "count", "window")

    def __init__(self, limit: RateLimit, number: int, partitions: int, now: float) -> None:
        windows = math.ceil(partitions / limit.count)
        total = limit.count * windows
        self.count = total * (number + 1) // partitions - total * number // partitions
        self.window = limit.per_seconds * windows
        apart = self.window / self.count
        first = now - self.window + apart * number / partitions
        self._starts = deque((first + apart * each for each in range(self.count)), maxlen=self.count)

    def next_at(self, before: int = 0) -> float:
        """From when on a job may start: when enough of the starts that count have left the window.

        Args:
            before: how many jobs are to start before it; fewer than `count`.
        """
        return self._starts[before] + self.window

    def free(self, now: float) -> int:
        """How many jobs may start now."""
        free = 0
        for started in self._starts:
            if started + self.window > now:
                break
            free += 1
        return free

    def start(self, now: float) -> None:
        """A job starts now, at or after `next_at`."""
        self._starts.append(now)
