"""Holds back the jobs of a worker that has a rate limit, until they may start."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from headrace.core.lanes import Lanes
from headrace.core.lease import Moment
from headrace.core.rate import RateLimit, Share
from headrace.engine.alarm import Alarm
from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Work

_logger = logging.getLogger(__name__)


def warn_of_uneven_starts(worker_name: str, limit: RateLimit, partitions: int) -> None:
    """Says that jobs may have to wait for their partition's turn, where a limit has fewer starts than there are partitions."""
    if limit.count >= partitions:
        return
    message = (
        "the rate limit of %s, %d in %g s, is lower than its queue has partitions (%d): in %g s each of them may start a job "
        "or two, so a job may wait for that long though no other starts; see RateLimit"
    )
    window = Share(limit, 0, partitions, 0.0).window
    _logger.warning(message, worker_name, limit.count, limit.per_seconds, partitions, window)


class Limiting:
    """The jobs of one worker that wait for their partition's share. Each keeps its lane, and takes no slot.

    Args:
        clock: by which the limit counts.
        wake: called when some of them are among those that may start again.
        guard: ends the engine by a fault of its own.

    Attributes:
        partitions: how many the worker's queue has; to be set before the first job comes.
    """

    def __init__(
        self, limit: RateLimit, lanes: Lanes[Work], clock: Callable[[], Moment], wake: Callable[[], None], guard: Guard
    ) -> None:
        self.partitions = 1
        self._limit = limit
        self._lanes = lanes
        self._clock = clock
        self._wake = wake
        self._shares: dict[OwnedPartition, Share] = {}
        self._waiting: dict[OwnedPartition, deque[Work]] = {}
        self._alarm = Alarm(clock, guard(self._look))

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def may_start(self, work: Work) -> bool:
        """Whether a job that has a slot may start now, which then counts. One that may not gives its slot back, and waits."""
        partition, now = work.partition, self._clock().steady
        share = self._shares.get(partition)
        if share is None:
            share = self._shares[partition] = Share(self._limit, partition.source.partition, self.partitions, now)
        if share.next_at() <= now:
            share.start(now)
            return True
        self._lanes.free_slot()
        self._waiting.setdefault(partition, deque()).append(work)
        self._alarm.set(share.next_at())
        return False

    def remove(self, work: Work) -> bool:
        """A job waits here no more, and keeps its lane; tells whether it was here."""
        waiting = self._waiting.get(work.partition)
        if not waiting or work not in waiting:
            return False
        waiting.remove(work)
        return True

    def forget(self, partition: OwnedPartition) -> None:
        """The jobs of a partition wait here no more, and leave their lanes."""
        self._shares.pop(partition, None)
        for work in self._waiting.pop(partition, ()):
            self._lanes.leave_lane(work)

    def stop(self) -> None:
        """No job may start any more."""
        self._alarm.stop()

    def _look(self) -> None:
        """Puts those whose time has come before all others; whether they may start is asked when they have a slot."""
        now = self._clock().steady
        next_times = []
        for partition, waiting in self._waiting.items():
            share = self._shares[partition]
            due = [waiting.popleft() for _ in range(min(share.free(now), len(waiting)))]
            for work in reversed(due):
                self._lanes.put_back(work)
            if waiting:
                next_times.append(share.next_at(len(due)) if len(due) < share.count else now + share.window)
        if next_times:
            self._alarm.set(min(next_times))
        self._wake()
