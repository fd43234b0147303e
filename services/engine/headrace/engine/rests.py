"""Jobs that wait for their time: after a failure, until the next attempt is due, or for a broker that was away."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable

from headrace.core.lanes import Lanes
from headrace.core.lease import Moment
from headrace.engine.alarm import Alarm
from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Phase, Work


class Rests:
    """The jobs of one worker that rest. Each keeps its lane, and so holds back those of its key; it takes no slot.

    It and those behind it are counted as held back in their partition: they leave the room that other jobs have to theirs.

    Args:
        clock: by which the waits are measured.
        due: called with each job whose time has come.
        guard: ends the engine by a fault of its own.
    """

    def __init__(self, lanes: Lanes[Work], clock: Callable[[], Moment], due: Callable[[Work], None], guard: Guard) -> None:
        self._lanes = lanes
        self._clock = clock
        self._due = due
        self._queue: list[tuple[float, int, Work]] = []
        self._numbers = itertools.count()
        self._alarm = Alarm(clock, guard(self._look))
        # Empty as a rule: it is looked at for every job that comes.
        self.lanes: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, work: Work, seconds: float) -> None:
        """A job that has its lane, and no slot, rests for so long."""
        work.phase = Phase.RESTING
        due_at = self._clock().steady + max(seconds, 0.0)
        heapq.heappush(self._queue, (due_at, next(self._numbers), work))
        work.partition.held_back += 1 + self._lanes.behind(work.lane)
        if work.lane is not None:
            self.lanes.add(work.lane)
        self._alarm.set(due_at)

    def remove(self, work: Work) -> None:
        """A job rests no more, and keeps its lane. Those behind it are not held back by it any more."""
        kept = [entry for entry in self._queue if entry[2] is not work]
        if len(kept) == len(self._queue):
            return  # nothing rests where an engine stops
        self._queue = kept
        heapq.heapify(kept)
        work.partition.held_back -= 1 + self._lanes.behind(work.lane)
        self.lanes.discard(work.lane)

    def forget(self, partition: OwnedPartition) -> None:
        """The jobs of a partition rest here no more, and nothing is held back by them."""
        gone = {work.lane for _, _, work in self._queue if work.partition is partition}
        if gone:
            self._queue = [entry for entry in self._queue if entry[2].partition is not partition]
            heapq.heapify(self._queue)
            self.lanes -= gone
        partition.held_back = 0

    def stop(self) -> None:
        """No job's time comes any more."""
        self._queue.clear()
        self.lanes.clear()
        self._alarm.stop()

    def _look(self) -> None:
        now = self._clock().steady
        while self._queue and self._queue[0][0] <= now:
            _, _, work = heapq.heappop(self._queue)
            work.partition.held_back -= 1 + self._lanes.behind(work.lane)
            self.lanes.discard(work.lane)
            self._due(work)
        if self._queue:
            self._alarm.set(self._queue[0][0])
