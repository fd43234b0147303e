"""Asks Kafka for jobs while there is room for them, and never stops polling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from headrace.engine.gaps import Gaps
from headrace.engine.partition import OwnedPartition
from headrace.errors import BrokerError
from headrace.ports import GroupConsumer, Record, TopicPartition

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_POLL_SECONDS_WHILE_FULL = 0.02
_RECORDS_PER_TURN = 500
_FULL_SECONDS_BEFORE_PAUSE = 1.0
# To seek throws away what was read ahead: fewer records than this are read sooner than sought past.
_STEPPED_OVER = 2_000


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a partition may be in hand: jobs, and bytes of their records, whichever is used up first.

    Attributes:
        jobs: those that are held back, waiting for a retry or behind one, do not count.
        byte_count: bytes of the records of all.
        held_back: how many jobs may be held back.
    """

    jobs: int
    byte_count: int
    held_back: int = 10_000

    def is_full(self, partition: OwnedPartition) -> bool:
        return not self._has_room(partition, self.jobs, self.byte_count, self.held_back)

    def is_half_empty(self, partition: OwnedPartition) -> bool:
        return self._has_room(partition, self.jobs // 2 + 1, self.byte_count // 2 + 1, self.held_back // 2 + 1)

    @staticmethod
    def _has_room(partition: OwnedPartition, jobs: int, byte_count: int, held_back: int) -> bool:
        free = len(partition.works) - partition.held_back
        return free < jobs and partition.in_hand_bytes < byte_count and partition.held_back < held_back


class Intake:
    """Fetches the records of one worker's partitions.

    A partition that is full is left out of the fetch, so that what was read ahead for it is kept. If it stays full it is paused:
    the client then lets go of what it read ahead, and asks the broker for no more.

    Args:
        partitions: those that are ready, by their name; looked at anew each turn.
        take: called with each record, in the order of the log.
        room: how much of a partition may be in hand.
        progressed: set whenever a job may have left.

    Attributes:
        polled_at: when it last turned to Kafka, by the loop's clock.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        partitions: Mapping[TopicPartition, OwnedPartition],
        take: Callable[[OwnedPartition, Record], None],
        room: Room,
        progressed: asyncio.Event,
    ) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._take = take
        self._room = room
        self._closed = False
        self._progressed = progressed
        self._full_since: dict[TopicPartition, float] = {}
        self._paused: set[TopicPartition] = set()
        self._gaps = Gaps()
        self.polled_at = 0.0

    async def run(self) -> None:
        """Fetches until it is cancelled. Broker errors are waited out."""
        while True:
            self.polled_at = asyncio.get_running_loop().time()
            try:
                await self._turn()
            except BrokerError as error:
                _logger.warning("fetching jobs failed, and is tried again: %s", error)
                # What it had taken out by then is gone, and may be the last that comes for long.
                for source, partition in self._partitions.items():
                    self._consumer.seek(source, partition.next_offset)
                await asyncio.sleep(_POLL_SECONDS)

    def forget(self) -> None:
        """A rebalance forgets pauses; so must we."""
        self._paused.clear()
        self._full_since.clear()

    def forget_partition(self, source: TopicPartition) -> None:
        """A partition is taken in no more; should it come back, nothing is known of it."""
        self._paused.discard(source)
        self._full_since.pop(source, None)
        self._gaps.forget(source)

    def close(self) -> None:
        """Takes nothing in any more, and goes on polling: a member that does not is taken for dead after five minutes."""
        self._closed = True
        self._progressed.set()

    async def _turn(self) -> None:
        if self._closed:
            self._consumer.pause(self._partitions)
            self._hand_out(await self._consumer.fetch(timeout=_POLL_SECONDS, maximum=1))
            return
        roomy = self._sort_out(asyncio.get_running_loop().time())
        ready = len(self._partitions)
        if ready and not roomy:
            if self._paused >= self._partitions.keys():
                self._hand_out(await self._consumer.fetch(timeout=0, maximum=1))
            await self._wait_for_progress()
            return
        chosen = None if len(roomy) == ready else roomy
        # A full partition may have room again any moment: then the others are not waited for.
        seconds = _POLL_SECONDS if chosen is None else _POLL_SECONDS_WHILE_FULL
        self._hand_out(await self._consumer.fetch(timeout=seconds, maximum=_RECORDS_PER_TURN, partitions=chosen))
        # One turn for the jobs that were taken in, before more are asked for.
        await asyncio.sleep(0)

    def _hand_out(self, batches: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Every record that a fetch returns must come by here: one that did not would be missing."""
        for source, records in batches.items():
            partition = self._partitions.get(source)
            if partition is None:
                continue
            for record in records:
                if record.offset > partition.next_offset and self._gaps.is_to_be_read_again(source, partition, record.offset):
                    self._consumer.seek(source, partition.next_offset)
                    break
                if partition.pass_to(record):
                    self._take(partition, record)
            if partition.step_over_ended(_STEPPED_OVER):
                self._consumer.seek(source, partition.next_offset)

    async def _wait_for_progress(self) -> None:
        self._progressed.clear()
        waiter = asyncio.ensure_future(self._progressed.wait())
        await asyncio.wait([waiter], timeout=_POLL_SECONDS)
        waiter.cancel()

    def _sort_out(self, now: float) -> Collection[TopicPartition]:
        """The partitions with room; pauses those that have been full for long, and resumes those that have room again."""
        roomy = []
        for source, partition in self._partitions.items():
            if source in self._paused:
                if self._room.is_half_empty(partition):
                    self._paused.discard(source)
                    self._consumer.resume([source])
                    roomy.append(source)
            elif not self._room.is_full(partition):
                self._full_since.pop(source, None)
                roomy.append(source)
            elif now - self._full_since.setdefault(source, now) > _FULL_SECONDS_BEFORE_PAUSE:
                self._full_since.pop(source)
                self._paused.add(source)
                self._consumer.pause([source])
        return roomy
