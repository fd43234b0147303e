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

from headrace.core.topics import Topics
from headrace.ports import Log, Record, RecordingKey, TopicPartition
from headrace.reading import batches_between
from headrace.recordings import RecordingPlace, parse_recording_key
from headrace.recordings.records import recording_partition
from headrace.replay.history import RecordedJob, Span
from headrace.replay.recorded.run_times import time_of_run
from headrace.replay.recorded.scanning import reading
from headrace.replay.recorded.shared_reads import SharedReads
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, since, until


class Answer(NamedTuple):
    """Something that a job recorded.

    Attributes:
        at: the time of its record, in milliseconds since the Unix epoch.
        source, offset: where that stands.
        value: JSON.
    """

    place: RecordingPlace
    at: int
    source: TopicPartition
    offset: int
    value: bytes


class _Kept(NamedTuple):
    """The same, with the place of the value in the file."""

    place: RecordingPlace
    at: int
    source: TopicPartition
    offset: int
    position: int
    length: int


class _ByJob(defaultdict[str, list[_Kept]]):
    """What was recorded in one partition, by the jobs' ids, in the order of the log."""

    def __init__(self) -> None:
        super().__init__(list)


class _Read(NamedTuple):
    """What was read of a partition: all of a span, up to an offset, and for which look at the log."""

    span: Span
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
        return [Answer(*each[:4], self._value(each)) for each in read.kept.get(job_id, ())]

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
        if self._values is None:
            self._values = _Values()
        values, found = self._values, _ByJob()
        before = self._read_so_far.get(partition.partition)
        if before is not None and before.span.start > span.start:
            before = None
        if before is not None:
            span = Span(before.span.start, max(before.span.end, span.end))
        async with reading(self._log) as reader:
            if before is not None:
                first = before.end
            else:
                # The times of jobs are their callers', those of recordings the brokers'.
                first = (await since(reader, [partition], max(0, span.start - AHEAD_MILLISECONDS)))[partition]
            end = (await until(reader, [partition], span.end))[partition]
            bounds = {partition: (first, end)} if first < end else {}
            async with aclosing(batches_between(reader, bounds)) as batches:
                async for _, records in batches:
                    await asyncio.to_thread(_keep, values, found, records)
        # Not before all of it is there: nobody sees a part.
        kept = _ByJob() if before is None else before.kept
        for job_id, more in found.items():
            kept[job_id].extend(more)
        self._read_so_far[partition.partition] = _Read(span, max(first, end), kept, look)

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
        kept[place.job_id].append(_Kept(place, record.timestamp, source, record.offset, position, len(value)))
        position += len(value)


def of_run(found: Sequence[Answer], job: RecordedJob) -> Sequence[Answer]:
    """What a job recorded, of all that was recorded under its id; see `History.runs`."""
    if not found:
        return ()  # as of most jobs: when they ran need not be found out
    ran = time_of_run(job)
    return [each for each in found if each.at in ran]


def of_attempt(found: Iterable[Answer], attempt: int) -> Mapping[RecordingKey, bytes]:
    """What one attempt recorded. Of one key the last counts: what was written before it was not acknowledged."""
    return {each.place.key: each.value for each in found if each.place.attempt == attempt}
