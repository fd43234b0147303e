"""The janitor: a role that every engine plays, so that compaction leaves the right records (J1 to J3 of the ownership protocol).

A consumer group deals out the partitions of `job-state` among the engines; nothing else is read by it. That two janitors have one
partition for a while does no harm: what they write says nothing new, and both come to the same.

It may be late by as much as compaction is, which is an hour, and must take nothing from the jobs: it reads so many records a
second and no more, has connections of its own, and whatever fails in it is logged and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.core.identifiers import is_fresh
from headrace.core.janitor import Inquiry, JobPartition, Keeper, KeyRemoved
from headrace.core.ownership import Version
from headrace.core.topics import Topics
from headrace.engine.retention import delete_ended, removals_of
from headrace.engine.tidying import inquire_into, read_into, record_of, removal_of, repeats_of
from headrace.errors import BrokerError, HeadraceError
from headrace.ports import (
    AppendFailed,
    Committed,
    GroupConsumer,
    GroupListener,
    Log,
    LogReader,
    LogWriter,
    NewRecord,
    Record,
    TopicPartition,
)
from headrace.settings import EngineSettings

_logger = logging.getLogger(__name__)

_CHUNK = 1_000
_FETCH_SECONDS = 0.1
_POLL_SECONDS = 20.0
_APPEND_SECONDS = 30.0
_RETRY_SECONDS = 10.0
_STOP_SECONDS = 2.0
# Winners are held in memory until they are written: those of so many jobs at a time.
_INQUIRED_AT_ONCE = 2_000
_REMEMBERED = 500_000
# Half of what compaction leaves it.
_LATE_SECONDS = 1_800.0


@dataclass(frozen=True, slots=True)
class JanitorTimes:
    """How soon things are done, in seconds.

    Attributes:
        start: after the engine: one that runs for moments only need not begin.
        round: from one look at what is to be done to the next.
        settled: a record is left alone for so long after it was written: most often its key's owner writes another over it.
        idle: between two readings, when all there was has been read.
        retention: from one look at what ended long ago to the next.
    """

    start: float = 15.0
    round: float = 10.0
    settled: float = 60.0
    idle: float = 0.5
    retention: float = 3_600.0


TIMES = JanitorTimes()


@dataclass(slots=True)
class _Part:
    """One partition of `job-state`.

    Attributes:
        position: where the reading is.
        read_back: where it has to be before anything is decided by what was read: past what was there at first, then past what it
            wrote.
        read_until: the log's time of the last record that was read, in milliseconds; 0 before the first.
        newest: when the last record that was read was written, by the loop's clock.
        removed: keys of jobs that are gone, which may be met again until compaction comes, and the offsets of their records.
    """

    name: TopicPartition
    keeper: Keeper = field(default_factory=Keeper)
    position: int = 0
    read_back: int = 0
    read_until: int = 0
    newest: float = -math.inf
    removed: dict[bytes, int] = field(default_factory=dict)

    def was_seen_gone(self, key: KeyRemoved) -> bool:
        """Whether it was met before that this very job is gone."""
        return key.of is not None and self.removed.get(key.key, -1) >= key.of[2]

    def note_gone(self, keys: Iterable[KeyRemoved]) -> None:
        """These jobs are gone, and nothing more is to be done about it when they are met again."""
        if len(self.removed) > _REMEMBERED:
            self.removed.clear()
        self.removed.update((key.key, key.of[2]) for key in keys if key.of is not None)


@dataclass(frozen=True, slots=True)
class _Tools:
    """Its own connections. `looker` reads what the other reader is past, and asks for offsets."""

    writer: LogWriter
    reader: LogReader
    looker: LogReader
    consumer: GroupConsumer


class Janitor:
    """Tidies the partitions of `job-state` that the janitors' group gives this engine.

    Args:
        now: the time of day, in milliseconds, by which job records are old.
    """

    def __init__(self, log: Log, topics: Topics, settings: EngineSettings, now: Callable[[], int]) -> None:
        self._log = log
        self._topics = topics
        self._settings = settings
        self._now = now
        self._times = TIMES
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._parts: dict[TopicPartition, _Part] = {}
        self._retention_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, in a while."""
        self._task = asyncio.create_task(self._run(), name="janitor")

    async def stop(self) -> None:
        """Ends within a few seconds. What is left to do is another engine's, or is done after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        await asyncio.sleep(self._times.start)
        while True:
            try:
                async with self._connected() as tools:
                    await self._work(tools)
            except Exception as error:
                expected = isinstance(error, HeadraceError | TimeoutError | OSError)
                _logger.warning("the janitor failed, and tries again: %s", error, exc_info=None if expected else error)
            await asyncio.sleep(_RETRY_SECONDS)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Tools]:
        topic = self._topics.job_state.name
        consumer = self._log.group_consumer(topic, self._topics.janitors, GroupListener(self._take_on, self._give_up))
        tools = _Tools(self._log.writer(), self._log.reader(), self._log.reader(), consumer)
        self._assigned = frozenset()
        self._parts.clear()
        polling: asyncio.Task[None] | None = None
        try:
            await tools.writer.start()
            await tools.reader.start()
            await tools.looker.start()
            await consumer.start()
            polling = asyncio.create_task(self._poll(consumer), name="janitor-poll")
            yield tools
        finally:
            if polling is not None:
                polling.cancel()
                await asyncio.gather(polling, return_exceptions=True)
            await asyncio.gather(
                consumer.stop(timeout=_STOP_SECONDS),
                tools.reader.stop(),
                tools.looker.stop(),
                tools.writer.stop(timeout=_STOP_SECONDS),
                return_exceptions=True,
            )

    # --- its part of the whole ------------------------------------------------------------------------------------------

    async def _poll(self, consumer: GroupConsumer) -> None:
        """Stays in the group, which gives out no records: all partitions are paused."""
        while True:
            with contextlib.suppress(HeadraceError):
                await consumer.fetch(timeout=0.0, maximum=1)
            await asyncio.sleep(_POLL_SECONDS)

    def _take_on(self, partitions: Collection[TopicPartition]) -> None:
        self._assigned = frozenset(partitions)

    async def _give_up(self, _: Collection[TopicPartition]) -> None:
        """Most come straight back; what is known of them is kept until others come instead."""

    async def _adopt(self, tools: _Tools) -> None:
        if self._parts.keys() == self._assigned:
            return
        assigned = sorted(self._assigned)
        new = await tools.reader.end_offsets([name for name in assigned if name not in self._parts])
        # From the start: what a claim made void can be told only by who knows the claims.
        self._parts = {name: self._parts.get(name) or _Part(name, read_back=new[name]) for name in assigned}
        await tools.reader.assign({part.name: part.position for part in self._parts.values()})

    # --- reading --------------------------------------------------------------------------------------------------------

    async def _work(self, tools: _Tools) -> None:
        loop = asyncio.get_running_loop()
        round_at = loop.time() + self._times.round
        self._retention_at = loop.time() + self._times.settled
        while True:
            await self._adopt(tools)
            await self._read(tools)
            if loop.time() >= round_at:
                await self._round(tools)
                round_at = loop.time() + self._times.round

    async def _read(self, tools: _Tools) -> None:
        batches = await tools.reader.fetch(timeout=_FETCH_SECONDS, maximum=_CHUNK)
        count = 0
        for name, records in batches.items():
            if (part := self._parts.get(name)) is not None:
                read_into(part.keeper, records, self._written_at(part))
                count += len(records)
                part.read_until = records[-1].timestamp
        for name, position in (await tools.reader.positions()).items():
            if (part := self._parts.get(name)) is not None:
                part.position = position
        # What comes in drops is gathered; of what comes in masses there is a measure.
        await asyncio.sleep(self._times.idle if count < _CHUNK else 0)
        await self._keep_pace(count)

    def _written_at(self, part: _Part) -> Callable[[Record], float]:
        """When a record was written, by the loop's clock: who comes later has to wait no longer than who was there.

        Later than now it is not, nor earlier than the record before, whatever the clocks of brokers did.
        """
        now = asyncio.get_running_loop().time()
        behind = now - self._now() / 1000

        def written_at(record: Record) -> float:
            part.newest = max(part.newest, min(record.timestamp / 1000 + behind, now))
            return part.newest

        return written_at

    async def _keep_pace(self, count: int) -> None:
        await asyncio.sleep(count / self._settings.janitor_records_per_second)

    async def _each(self, tools: _Tools, name: TopicPartition) -> AsyncGenerator[Sequence[Record], None]:
        """What stands in a partition now, from its start to its end, in pieces."""
        [end] = (await tools.looker.end_offsets([name])).values()
        await tools.looker.assign({name: 0})
        try:
            while (await tools.looker.positions())[name] < end:
                for records in (await tools.looker.fetch(timeout=_FETCH_SECONDS, maximum=_CHUNK)).values():
                    yield records
                    await self._keep_pace(len(records))
        finally:
            with contextlib.suppress(HeadraceError):
                await tools.looker.assign({})

    # --- what is to be done ---------------------------------------------------------------------------------------------

    async def _round(self, tools: _Tools) -> None:
        before = asyncio.get_running_loop().time() - self._times.settled
        ends = await tools.reader.end_offsets(self._parts)
        for part in list(self._parts.values()):
            if part.name not in self._assigned:
                continue
            is_read_back = part.position >= part.read_back
            if is_read_back:
                await self._write(tools, part, [record_of(due, part.position) for due in part.keeper.due(before)])
                part.read_back = max(part.read_back, ends[part.name])
            if part.position < ends[part.name] and 0 < part.read_until < self._now() - _LATE_SECONDS * 1000:
                _logger.warning("the janitor is late: %d records of %s/%d wait", ends[part.name] - part.position, *part.name)
            if is_read_back and (suspects := part.keeper.suspects(before, _INQUIRED_AT_ONCE)):
                await self._look_into(tools, part, suspects)
        if asyncio.get_running_loop().time() >= self._retention_at:
            self._retention_at = asyncio.get_running_loop().time() + self._times.retention
            await self._clear(tools)
        await tools.consumer.commit({part.name: Committed(part.position) for part in self._parts.values()})

    async def _write(self, tools: _Tools, part: _Part, records: Sequence[NewRecord]) -> None:
        """Raises: BrokerError."""
        if not records:
            return
        for outcome in await tools.writer.append_all([(part.name, record) for record in records], timeout=_APPEND_SECONDS):
            if isinstance(outcome, AppendFailed):
                raise BrokerError(f"The janitor cannot write to {part.name.topic}: {outcome.reason}") from outcome.reason
            part.read_back = max(part.read_back, outcome.offset + 1)

    async def _look_into(self, tools: _Tools, part: _Part, suspects: Collection[bytes]) -> None:
        """Finds the winners of these keys, and writes them again, or removes the keys."""
        inquiry: Inquiry[Record] = Inquiry(suspects)
        async with contextlib.aclosing(self._each(tools, part.name)) as pieces:
            async for records in pieces:
                inquire_into(inquiry, records)
        starts = await self._starts(tools, inquiry.job_partitions)
        winners, removals = inquiry.repeats(starts), inquiry.removals(starts)
        written: dict[bytes, Version] = {key: winner.version for key, winner in winners.items()}
        written |= {each.key: each.removal.version for each in removals if each.removal is not None}
        await self._write(tools, part, [*repeats_of(winners), *map(removal_of, removals)])
        part.keeper.settle(suspects, written)

    async def _starts(self, tools: _Tools, partitions: Collection[JobPartition]) -> Mapping[JobPartition, int]:
        """Where the queues begin of jobs that were found."""
        names = {partition: TopicPartition(self._topics.jobs_name(partition[0]), partition[1]) for partition in partitions}
        existing = await self._log.topic_names()
        starts = await tools.looker.start_offsets([name for name in names.values() if name.topic in existing])
        return {partition: starts[name] for partition, name in names.items() if name in starts}

    async def _clear(self, tools: _Tools) -> None:
        """Deletes what has ended long ago."""
        older_than = self._now() - int(self._settings.job_retention_seconds * 1000)
        for part in list(self._parts.values()):
            starts = await delete_ended(self._log, tools.looker, self._topics, part.keeper.job_partitions, older_than)
            if any(starts.values()):
                await self._remove_gone(tools, part, starts, older_than)

    async def _remove_gone(self, tools: _Tools, part: _Part, starts: Mapping[JobPartition, int], older_than: int) -> None:
        """Removes snapshots of deleted jobs. They stand at the beginning: nothing is written of a job that has ended."""
        doubtful: dict[bytes, KeyRemoved] = {}
        async with contextlib.aclosing(self._each(tools, part.name)) as pieces:
            async for records in pieces:
                gone = {each.key: each for each in removals_of(records, starts) if not part.was_seen_gone(each)}
                # A later job may have the id of one that is gone, and so the key: then what stands last has to be known.
                again = {key: each for key, each in gone.items() if not is_fresh(key.decode(errors="replace"))}
                fresh = [each for key, each in gone.items() if key not in again]
                await self._write(tools, part, [removal_of(each) for each in fresh])
                part.note_gone(fresh)
                doubtful |= again
                if records[-1].timestamp > older_than:
                    break
        if doubtful:
            await self._look_into(tools, part, doubtful.keys())
            part.note_gone(doubtful.values())
