"""Partitions that are to go to another engine, and are kept here: an attempt of theirs goes on though it was stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from headrace.core.lease import Moment
from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Phase

_logger = logging.getLogger(__name__)

_WARN_SECONDS = 60.0


class KeptPartitions:
    """Says of each such partition once a minute what it waits for: meanwhile nobody runs its other jobs.

    Args:
        clock: by which the time is told.
        guard: ends the engine by a fault of its own.
    """

    def __init__(self, clock: Callable[[], Moment], guard: Guard) -> None:
        self._clock = clock
        self._warn_soon = guard(self._warn)
        self._since: dict[OwnedPartition, float] = {}

    def longest(self) -> float:
        """Seconds since the oldest hand-over began that is not done; 0 when there is none."""
        return self._clock().steady - min(self._since.values()) if self._since else 0.0

    @contextlib.contextmanager
    def watch(self, partition: OwnedPartition) -> Iterator[None]:
        """The partition is being handed over while this is open."""
        self._since[partition] = self._clock().steady
        self._warn_later(partition)
        try:
            yield
        finally:
            del self._since[partition]

    def _warn_later(self, partition: OwnedPartition) -> None:
        asyncio.get_running_loop().call_later(_WARN_SECONDS, self._warn_soon, partition)

    def _warn(self, partition: OwnedPartition) -> None:
        since = self._since.get(partition)
        if since is None:
            return
        for work in partition.works.values():
            if work.phase is Phase.RUNNING and work.stopped:
                attempt = work.state.fields["attempts"][-1]
                _logger.warning(
                    "%s/%d should have gone to another engine %.0f s ago, and is kept: attempt %d of job %s, which began at %s,"
                    " was stopped and goes on all the same",
                    *(*partition.source, self._clock().steady - since),
                    *(attempt["attempt"], work.record["id"], attempt["startedAt"]),
                )
        self._warn_later(partition)
