"""What the jobs of a span recorded, for whoever asks for one job after another: the topic is read once."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from headrace.core.identifiers import is_fresh
from headrace.core.records import SOURCE_HEADER
from headrace.core.topics import Topics
from headrace.ports import Log, LogReader, Record, RecordingKey, TopicPartition
from headrace.reading import batches_between
from headrace.recordings import RecordingPlace, parse_recording_key
from headrace.recordings.records import recording_partition
from headrace.replay.history import RecordedJob, Span
from headrace.replay.recorded.folding import Place, place_of_job
from headrace.replay.recorded.run_times import is_sure_to_be_at_work, run_at, time_of_run
from headrace.replay.recorded.scanning import reading
from headrace.replay.recorded.shared_reads import SharedReads
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, since, until


class Answer(NamedTuple):
    """Something that a job recorded.

    Attributes:
        at: the time of its record, in milliseconds since the Unix epoch.
        source, offset: where that stands.
        job_place: where the record of the job stands; None where nothing says so.
        value: JSON.
    """

    place: RecordingPlace
    at: int
    source: TopicPartition
    offset: int
    job_place: Place | None
    value: bytes


class _Kept(NamedTuple):
    """The same, with the place of the value in the file."""

    place: RecordingPlace
    at: int
    source: TopicPartition
    offset: int
    job_place: Place | None
    position: int
    length: int


class _ByJob(defaultdict[str, list[_Kept]]):
    """What was recorded in one partition, by the jobs' ids, in the order of the log."""

    def __init__(self) -> None:
        super().__init__(list)


class _Read(NamedTuple):
    """What was read of a partition: all of a span, from one offset up to another, and for which look at the log."""

    span: Span
    first: int
    end: int
    kept: _ByJob
    look: int

    def covers(self, span: Span, look: int) -> bool:
        """Whether all of a span was read that was there at a look."""
        return self.span.start <= span.start and span.end <= self.span.end and look <= self.look


class RecordedAnswers:
    """Recordings of a namespace in some span: of those partitions that are asked for, each read once, and on when the span grows,
    or another look is wanted.

    Their values are kept in a file without a name, which goes with this object.
    """

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topic = topics.recordings.name
        self._counting: SharedReads[None, int] = SharedReads()
        self._reading: SharedReads[int, None] = SharedReads()
        self._values: _Values | None = None
        self._partitions: int | None = None
        self._look = self._counted_at = 0
        self._read_so_far: dict[int, _Read] = {}

    def look_again(self) -> None:
        """From now on what is given has all that is in the log now."""
        self._look += 1

    async def of(self, job_id: str, span: Span) -> Sequence[Answer]:
        """All that was recorded under a job's id, in the order of the log.

        Args:
            span: in which all jobs that will be asked for were accepted, and have recorded what they did.

        Raises:
            BrokerError: the brokers cannot be reached.
        """
        look = self._look
        if self._partitions is None or (not self._partitions and self._counted_at < look):
            self._partitions = await self._counting.read(None, self._count)
            self._counted_at = look
        if not self._partitions or span.start >= span.end:
            return ()
        number = recording_partition(job_id, self._partitions)
        # A read that was under way may have been one of a smaller span, or an earlier look.
        while (read := self._read_so_far.get(number)) is None or not read.covers(span, look):
            await self._reading.read(number, partial(self._read, TopicPartition(self._topic, number), span, look))
        return [Answer(*each[:5], self._value(each)) for each in read.kept.get(job_id, ())]

    async def stop(self) -> None:
        """Ends what is being read, and gives up what is kept."""
        await self._counting.stop()
        await self._reading.stop()
        self._read_so_far.clear()
        if self._values is not None:
            self._values.close()
            self._values = None

    async def _count(self) -> int:
        exists = self._topic in await self._log.topic_names()
        return await self._log.partition_count(self._topic) if exists else 0

    async def _read(self, partition: TopicPartition, span: Span, look: int) -> None:
        earlier, later = _ByJob(), _ByJob()
        before = self._read_so_far.get(partition.partition)
        if before is not None:
            span = Span(min(before.span.start, span.start), max(before.span.end, span.end))
        async with reading(self._log) as reader:
            # The times of jobs are their callers', those of recordings the brokers'.
            asked_from = max(0, span.start - AHEAD_MILLISECONDS)
            if before is None:
                first = end = (await since(reader, [partition], asked_from))[partition]
                kept = later
            else:
                first, end, kept = before.first, before.end, before.kept
                if span.start < before.span.start:
                    first = (await since(reader, [partition], asked_from))[partition]
                    await self._keep(reader, partition, (first, before.first), earlier)
            last = (await until(reader, [partition], span.end))[partition]
            await self._keep(reader, partition, (end, last), later)
        # Not before all of it is there: nobody sees a part.
        if before is not None:
            for job_id, found in earlier.items():
                kept[job_id] = found + kept[job_id]
            for job_id, found in later.items():
                kept[job_id].extend(found)
        self._read_so_far[partition.partition] = _Read(span, first, max(end, last), kept, look)

    async def _keep(self, reader: LogReader, partition: TopicPartition, bounds: tuple[int, int], found: _ByJob) -> None:
        if self._values is None:
            self._values = _Values()
        async with aclosing(batches_between(reader, {partition: bounds} if bounds[0] < bounds[1] else {})) as batches:
            async for _, records in batches:
                await asyncio.to_thread(_keep, self._values, found, records)

    def _value(self, kept: _Kept) -> bytes:
        assert self._values is not None
        return self._values.read(kept.position, kept.length)


class _Values:
    """A file without a name, into which several threads may write."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="headrace-recordings-")  # noqa: SIM115 - `close` closes it
        self._lock = threading.Lock()

    def append(self, value: bytes) -> int:
        """Writes a value; its position."""
        with self._lock:
            position = self._file.seek(0, 2)
            self._file.write(value)
            return position

    def read(self, position: int, length: int) -> bytes:
        """The value at a position."""
        with self._lock:
            self._file.seek(position)
            return self._file.read(length)

    def close(self) -> None:
        """Gives up the file."""
        with self._lock:
            self._file.close()


def _keep(values: _Values, kept: _ByJob, records: Sequence[Record]) -> None:
    source = TopicPartition(records[0].topic, records[0].partition)
    found = [
        (place, record, record.value)
        for record in records
        if (place := parse_recording_key(record.key)) is not None and record.value is not None
    ]
    position = values.append(b"".join(value for _, _, value in found))
    for place, record, value in found:
        job_place = dict(record.headers).get(SOURCE_HEADER)
        kept[place.job_id].append(_Kept(place, record.timestamp, source, record.offset, job_place, position, len(value)))
        position += len(value)


def is_unclear(found: Sequence[Answer], job: RecordedJob) -> bool:
    """Whether it takes all jobs that had the id to tell which of them recorded something.

    Engines before this one have not said that of what they wrote.
    """
    untold = [each.at for each in found if each.job_place is None]
    return bool(untold) and not is_fresh(job.id) and not is_sure_to_be_at_work(job, untold)


def of_run(found: Sequence[Answer], job: RecordedJob, runs: Sequence[RecordedJob] | None = None) -> Sequence[Answer]:
    """What a job recorded, of all that was recorded under its id; see `History.runs`. Each says then that it is this job's.

    Args:
        runs: all jobs that had the id; where these are not known the job's own time tells what it recorded, of what says nothing
            of that itself. So each of these is one job's alone.
    """
    if not found:
        return ()
    own = place_of_job(job)
    others = () if is_fresh(job.id) else [each for each in runs or () if place_of_job(each) != own]

    def is_own(answer: Answer) -> bool:
        if answer.job_place is not None:
            return answer.job_place == own
        if runs is None and not is_fresh(job.id):
            return answer.at in time_of_run(job)
        return run_at([*others, job], answer.at) is job

    return [each._replace(job_place=own) for each in found if is_own(each)]


def of_attempt(found: Iterable[Answer], attempt: int) -> Mapping[RecordingKey, bytes]:
    """What one attempt recorded. Of one key the last counts: what was written before it was not acknowledged."""
    return {each.place.key: each.value for each in found if each.place.attempt == attempt}
