"""Jobs that wait for their time: after a failure, until the next attempt is due, or for a broker that was away."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from headrace.core.lease import Moment
from headrace.engine.alarm import Alarm
from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Phase, Work


class Rests:
    """The jobs of one worker that rest. Each keeps its lane, and so holds back those of its key; it takes no slot.

    It is counted as held back in its partition, as those behind it are.

    Args:
        clock: by which the waits are measured.
        due: called with each job whose time has come.
        guard: ends the engine by a fault of its own.
    """

    def __init__(self, clock: Callable[[], Moment], due: Callable[[Work], None], guard: Guard) -> None:
        self._clock = clock
        self._due = due
        self._queue: list[tuple[float, int, Work]] = []
        self._numbers = itertools.count()
        self._alarm = Alarm(clock, guard(self._look))

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, work: Work, seconds: float) -> None:
        """A job that has its lane, and no slot, rests for so long."""
        work.phase = Phase.RESTING
        due_at = self._clock().steady + max(seconds, 0.0)
        heapq.heappush(self._queue, (due_at, next(self._numbers), work))
        work.partition.held_back += 1
        self._alarm.set(due_at)

    def remove(self, work: Work) -> None:
        """A job rests no more, and keeps its lane."""
        kept = [entry for entry in self._queue if entry[2] is not work]
        if len(kept) == len(self._queue):
            return  # nothing rests where an engine stops
        self._queue = kept
        heapq.heapify(kept)
        work.partition.held_back -= 1

    def forget(self, partition: OwnedPartition) -> None:
        """The jobs of a partition rest here no more, and nothing is held back by them."""
        kept = [entry for entry in self._queue if entry[2].partition is not partition]
        if len(kept) < len(self._queue):
            self._queue = kept
            heapq.heapify(kept)
        partition.held_back = 0

    def stop(self) -> None:
        """No job's time comes any more."""
        self._queue.clear()
        self._alarm.stop()

    def _look(self) -> None:
        now = self._clock().steady
        while self._queue and self._queue[0][0] <= now:
            _, _, work = heapq.heappop(self._queue)
            work.partition.held_back -= 1
            self._due(work)
        if self._queue:
            self._alarm.set(self._queue[0][0])
