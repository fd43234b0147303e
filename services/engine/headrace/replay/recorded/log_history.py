"""What was recorded, read from the log of a cluster."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

from headrace.broker.discovery import given_settings, settings_of_this_folder
from headrace.codec import decode
from headrace.core.records import DEFINITION_PREFIX
from headrace.core.topics import Topics
from headrace.errors import HistoryGone, JobUnknown, RecordUndecodable
from headrace.kafka.log import KafkaLog
from headrace.models import WorkerDefinition
from headrace.ports import ConversationRef, Log, LogReader, MemorySnapshot, TopicPartition
from headrace.reading import records_of
from headrace.replay.history import Began, RecordedJob, RecordingKey, Span, Wanted
from headrace.replay.recorded.counting import count_accepted, recorded_workers
from headrace.replay.recorded.finding import Trail, find_job
from headrace.replay.recorded.joining import States, by_place, chunks_of, read_accepted
from headrace.replay.recorded.layout import Bounds, Layout, Part, described, read_layout
from headrace.replay.recorded.memory_history import MemoryHistory
from headrace.replay.recorded.past_conversation import TimedRow
from headrace.replay.recorded.recorded_answers import Answer, RecordedAnswers, is_unclear, of_attempt, of_run
from headrace.replay.recorded.scanning import reading, side_by_side
from headrace.replay.recorded.spans import ALL_TIME, bounds_of, since, until
from headrace.replay.recorded.wanted import matches
from headrace.replay.recorded.what_is_left import check_is_left
from headrace.settings import EngineSettings, Settings

_AT_ONCE: Final = 500
_RETENTION_SECONDS: Final[float] = EngineSettings.model_fields["job_retention_seconds"].default


class LogHistory:
    """The `History` of a namespace, in the log as it is at the time of each call. Nothing is written, and no topic is made.

    What jobs recorded, and the memory, are as they were when jobs were last asked for, or later.

    Args:
        retention_seconds: for how long at least jobs are kept; `job_retention_seconds` of its engines.
    """

    def __init__(self, log: Log, topics: Topics, *, retention_seconds: float = _RETENTION_SECONDS) -> None:
        self._log = log
        self._topics = topics
        self._retention_seconds = retention_seconds
        self._memory = MemoryHistory(log, topics)
        self._answers = RecordedAnswers(log, topics)
        # No job was given that was accepted before.
        self._since = ALL_TIME.end
        # Nothing is said later of any that was given.
        self._until = 0

    async def stop(self) -> None:
        """Ends what is being read, and gives up what is kept on this machine; the log stays open."""
        await self._memory.stop()
        await self._answers.stop()

    @property
    def log(self) -> Log:
        """The cluster."""
        return self._log

    @property
    def topics(self) -> Topics:
        """Of the namespace."""
        return self._topics

    @property
    def span(self) -> None:
        """A log has jobs of any time."""

    @property
    def kept_from(self) -> int:
        """No job that was accepted from then on was deleted; in milliseconds since the Unix epoch."""
        return int((time.time() - self._retention_seconds) * 1000)

    async def worker_definitions(self) -> Mapping[str, WorkerDefinition]:
        """The workers that were defined, by name; of each, the newest definition."""
        found: dict[str, WorkerDefinition] = {}
        if self._topics.workers.name not in await self._log.topic_names():
            return found
        async with aclosing(records_of(self._log, self._topics.workers.name)) as records:
            async for record in records:
                if record.key is None or not record.key.startswith(DEFINITION_PREFIX):
                    continue
                name = record.key.removeprefix(DEFINITION_PREFIX).decode(errors="replace")
                if record.value is None:
                    found.pop(name, None)
                else:
                    try:
                        found[name] = decode(WorkerDefinition, record.value)
                    except RecordUndecodable:
                        continue
        return found

    async def find(self, job_id: str) -> RecordedJob:
        """A job, whenever it was; see `History.find`.

        Raises:
            JobUnknown: nothing is in the log of it.
            HistoryGone: its record was deleted.
        """
        return (await self.trail(job_id)).job

    async def runs(self, job_id: str) -> Sequence[RecordedJob]:
        """All jobs that had an id, in the order of the log; see `History.runs`. Raises as `find`."""
        return [trail.job for trail in (await self.trail(job_id)).runs]

    async def trail(self, job_id: str) -> Trail:
        """All that the log has of a job. Raises as `find`."""
        trail = await find_job(self._log, self._topics, job_id)
        self._look_again()
        for run in trail.runs:
            self._since = min(self._since, run.job.accepted_at)
            self._until = max(self._until, run.accepted.said_until if run.has_begun else 0)
        self._until = max(self._until, trail.accepted.said_until)
        return trail

    async def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        """The jobs that are wanted, in batches; see `History.jobs`.

        Raises:
            HistoryGone: the span begins before what is left of the log, or ends before its first record.
            WorkerUnknown: one of the workers has no queue.
        """
        layout = await read_layout(self._log, self._topics, wanted.workers)
        self._look_again()
        self._since = min(self._since, wanted.span.start)
        async with reading(self._log) as reader:
            bounds = await bounds_of(reader, layout.queues, wanted.span)
            await check_is_left(reader, layout, wanted.span, described(layout, wanted.workers), self.kept_from)
            starts = await reader.start_offsets(layout.queues)
        # Also those of which something was deleted: it may have been of the span.
        parts = [part for part in layout.parts if any(queue in bounds or starts[queue] for queue in part.queues)]
        read = partial(_read_part, layout, wanted, bounds, starts, self._told)
        async with aclosing(side_by_side(self._log, parts, read)) as pieces:
            async for piece in pieces:
                yield piece

    def _told(self, until: int) -> None:
        self._until = max(self._until, until)
        # What all was said of long ago has nothing new: a replay of it looks once.
        if until > time.time_ns() // 1_000_000:
            self._look_again()

    def _look_again(self) -> None:
        self._answers.look_again()
        self._memory.look_again()

    async def recorded_workers(self) -> Collection[str]:
        """The names of the workers that have ever had a job."""
        return await recorded_workers(self._log, self._topics)

    async def count_left(self, wanted: Wanted) -> Counter[str]:
        """How many of the jobs that are wanted are left, by worker. That others were deleted is no error.

        Raises:
            WorkerUnknown: one of the workers has no queue.
        """
        if not wanted.fields:
            return await count_accepted(self._log, self._topics, wanted)
        layout = await read_layout(self._log, self._topics, wanted.workers)
        async with reading(self._log) as reader:
            bounds = await bounds_of(reader, layout.queues, wanted.span)
        parts = [part for part in layout.parts if any(queue in bounds for queue in part.queues)]
        counts: Counter[str] = Counter()
        # Nobody asks for what these recorded: until when that may be is not to be kept.
        read = partial(_read_part, layout, wanted, bounds, {}, lambda _: None)
        async with aclosing(side_by_side(self._log, parts, read)) as pieces:
            async for piece in pieces:
                counts.update(layout.worker_of(job.source) for job in piece)
        return counts

    async def count(self, wanted: Wanted) -> int:
        """About how many jobs of these workers were accepted in the span, whatever their fields are: so many records stand there.

        Raises as `jobs`.
        """
        layout = await read_layout(self._log, self._topics, wanted.workers)
        async with reading(self._log) as reader:
            firsts = await since(reader, layout.queues, wanted.span.start)
            ends = await until(reader, layout.queues, wanted.span.end)
        return sum(max(0, ends[queue] - firsts[queue]) for queue in layout.queues)

    def check_fields(self, fields: Collection[str]) -> None:
        """Jobs can be chosen by all of their fields: nothing is redacted here."""

    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        """What an attempt of a job recorded, as JSON; of a job that `find`, `runs` or `jobs` gave before."""
        return of_attempt(await self.own_recordings(job), attempt)

    async def own_recordings(self, job: RecordedJob) -> Sequence[Answer]:
        """What all attempts of a job recorded, in the order of the log; of a job that was given before."""
        found = await self.all_recordings(job.id)
        return of_run(found, job, await self._runs_beside(job) if is_unclear(found, job) else None)

    async def _runs_beside(self, job: RecordedJob) -> Sequence[RecordedJob] | None:
        """All jobs that had the id of one that was given before; None where nothing is left of them by now."""
        try:
            return [run.job for run in (await find_job(self._log, self._topics, job.id)).runs]
        except (JobUnknown, HistoryGone):
            return None

    async def all_recordings(self, job_id: str) -> Sequence[Answer]:
        """What all attempts of all jobs recorded that had an id, in the order of the log; of jobs that were given before."""
        return await self._answers.of(job_id, Span(self._since, self._until))

    async def memory_at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        """A conversation's memory as it was; see `History.memory_at`."""
        return await self._memory.at(conversation, at)

    async def read_memory_ahead(self, conversation: ConversationRef, *, at_most: int | None) -> None:
        """See `ReadsMemoryAhead`."""
        await self._memory.read_ahead(conversation, at_most=at_most)

    async def memory_records(self, conversation: ConversationRef, until: int) -> Sequence[TimedRow]:
        """The records of which a conversation's memory at a time, or before it, is made."""
        return await self._memory.records_until(conversation, until)


async def _read_part(
    layout: Layout,
    wanted: Wanted,
    bounds: Bounds,
    starts: Mapping[TopicPartition, int],
    tell: Callable[[int], None],
    reader: LogReader,
    part: Part,
) -> AsyncGenerator[Sequence[RecordedJob]]:
    """The jobs of a part that are wanted, in pieces.

    Args:
        starts: where the queues begin: a job of the span that was deleted raises HistoryGone. None of them, and none does.
        tell: gets, before the jobs are given, when all is said of them.
    """
    own = {queue: bounds[queue] for queue in part.queues if queue in bounds}
    entries = await read_accepted(reader, layout, own, wanted.span)
    firsts = {queue: begin for queue, (begin, _) in own.items()}
    states = States(entries, by_place(layout, part, starts), by_place(layout, part, firsts), wanted.span)
    if part.state is not None:
        await states.read(reader, part.state)
    again = states.made_again()
    tell(states.said_until(again))
    for chunk in chunks_of(entries, _AT_ONCE):
        jobs = [job for place, entry in chunk if place not in again and (job := entry.recorded()) is not None]
        if wanted.fields:
            jobs = [job for job in jobs if matches(job, wanted.fields)]
        if jobs:
            yield jobs
        await asyncio.sleep(0)


@asynccontextmanager
async def open_history(settings: Settings | None = None) -> AsyncIterator[LogHistory]:
    """What is recorded in the namespace of the settings, for as long as the block lasts.

    Args:
        settings: from the environment when left out, with the broker that runs for this folder if it names none.

    Raises:
        BrokerError: the brokers cannot be reached.
        ConfigurationError: a setting is wrong, or names no broker.
    """
    own = given_settings(settings) or settings_of_this_folder()
    log = KafkaLog(own)
    history = LogHistory(log, Topics(own.namespace), retention_seconds=own.engine.job_retention_seconds)
    try:
        await log.topic_names()
        yield history
    finally:
        await history.stop()
        await log.close()
