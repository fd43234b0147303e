"""The writer of `job-state`: gathers the snapshots of one turn of the loop, and tells when they are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Work
from headrace.engine.states import State
from headrace.ports import Acknowledged, LogWriter, NewRecord, Outcome, TopicPartition


class Journal:
    """Writes snapshots for one worker's partitions.

    All snapshots of a turn of the event loop that go to one partition of `job-state` are submitted together, and come back
    together: there is no future and no task for a single one.

    Args:
        acknowledged: called with the works whose newest snapshot all in-sync replicas have.
        noted: called with those whose note they have.
        failed: called with a partition of which a snapshot was refused, or whose fate is unknown.
        guard: ends the engine by a fault of its own.
    """

    def __init__(
        self,
        writer: LogWriter,
        topic: str,
        acknowledged: Callable[[list[Work]], None],
        noted: Callable[[list[Work]], None],
        failed: Callable[[OwnedPartition, Exception], None],
        guard: Guard,
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._acknowledged = guard(acknowledged)
        self._noted = guard(noted)
        self._failed = guard(failed)
        self._flush_soon = guard(self._flush)
        self._gathered: dict[int, tuple[list[NewRecord], list[Work]]] = {}
        self._notes: dict[int, tuple[list[NewRecord], list[Work]]] = {}
        self._flush_scheduled = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def write(self, work: Work, state: State) -> None:
        """Hands over the next snapshot of a job, which stands so from now on."""
        work.state = state
        headers = [work.source_header, state.version_header, state.status_header]
        record = NewRecord(work.key, work.head + state.encoded, headers)
        number = work.partition.state_partition
        gathered = self._gathered.get(number)
        if gathered is None:
            self._gathered[number] = ([record], [work])
        else:
            gathered[0].append(record)
            gathered[1].append(work)
        if not self._flush_scheduled:
            self._schedule_flush()

    def note(self, work: Work, state: State) -> None:
        """Hands over a snapshot of a job whose attempt runs on: `noted` is called for it, and not `acknowledged`."""
        work.state = state
        headers = [work.source_header, state.version_header, state.status_header]
        records, works = self._notes.setdefault(work.partition.state_partition, ([], []))
        records.append(NewRecord(work.key, work.head + state.encoded, headers))
        works.append(work)
        if not self._flush_scheduled:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        self._flush_scheduled = True
        self._idle.clear()
        asyncio.get_running_loop().call_soon(self._flush_soon)

    @property
    def is_busy(self) -> bool:
        """Whether anything was handed over whose fate is unknown."""
        return not self._idle.is_set()

    async def settled(self) -> None:
        """Waits until the fate of all that was handed over is known."""
        await self._idle.wait()

    def _flush(self) -> None:
        self._flush_scheduled = False
        gathered, self._gathered = self._gathered, {}
        if self._notes:
            # First, since the attempt that was noted may have ended in the same turn.
            notes, self._notes = self._notes, {}
            self._submit(notes, self._noted)
        self._submit(gathered, self._acknowledged)

    def _submit(self, gathered: dict[int, tuple[list[NewRecord], list[Work]]], tell: Callable[[list[Work]], None]) -> None:
        self._under_way += len(gathered)
        for number, (records, works) in gathered.items():
            self._writer.submit(TopicPartition(self._topic, number), records, partial(self._done, works, tell))

    def _done(self, works: list[Work], tell: Callable[[list[Work]], None], outcome: Outcome) -> None:
        self._under_way -= 1
        if isinstance(outcome, Acknowledged):
            tell(works)
        else:
            for partition in dict.fromkeys(work.partition for work in works):
                self._failed(partition, outcome.reason)
        if not self._under_way and not self._flush_scheduled:
            self._idle.set()
