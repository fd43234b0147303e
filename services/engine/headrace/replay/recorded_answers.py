"""What the jobs of a span recorded, for whoever asks for one job after another: the topic is read once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import IO, Final, NamedTuple

from headrace.core.topics import Topics
from headrace.ports import Log, Record, RecordingKey, TopicPartition
from headrace.reading import batches_between
from headrace.recordings import RecordingPlace, parse_recording_key
from headrace.recordings.records import recording_partition
from headrace.replay.history import Span
from headrace.replay.scanning import reading
from headrace.replay.spans import since, until

BEFORE_MILLISECONDS: Final = 60_000
"""The times of jobs are their callers', those of recordings their engines': so far the clocks may be apart."""


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


class _Read(NamedTuple):
    """How far a partition was read: all of a span, up to an offset."""

    span: Span
    end: int


class RecordedAnswers:
    """Recordings of a namespace in some span: of those partitions that are asked for, each read once, and on when the span grows.

    Their values are kept in a file without a name, which goes with this object.
    """

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topic = topics.recordings.name
        self._reading = asyncio.Lock()
        self._file: IO[bytes] | None = None
        self._partitions: int | None = None
        self._read_so_far: dict[int, _Read] = {}
        self._kept: dict[str, list[_Kept]] = {}

    async def of(self, job_id: str, span: Span) -> Sequence[Answer]:
        """All that a job recorded, in the order of the log.

        Args:
            span: in which all jobs that will be asked for were accepted, and have recorded what they did.

        Raises:
            BrokerError: the brokers cannot be reached.
        """
        async with self._reading:
            if self._partitions is None:
                exists = self._topic in await self._log.topic_names()
                self._partitions = await self._log.partition_count(self._topic) if exists else 0
            if self._partitions and span.start < span.end:
                number = recording_partition(job_id, self._partitions)
                await self._read(TopicPartition(self._topic, number), span)
        return [Answer(*each[:4], self._value(each)) for each in self._kept.get(job_id, ())]

    def close(self) -> None:
        """Gives up what is kept."""
        self._read_so_far.clear()
        self._kept.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _read(self, partition: TopicPartition, span: Span) -> None:
        read = self._read_so_far.get(partition.partition)
        if read is not None and read.span.start <= span.start and span.end <= read.span.end:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="headrace-recordings-")  # noqa: SIM115 - `close` closes it
        async with reading(self._log) as reader:
            if read is not None and read.span.start <= span.start:
                first = read.end
            else:
                self._forget(partition.partition)
                first = (await since(reader, [partition], max(0, span.start - BEFORE_MILLISECONDS)))[partition]
            end = (await until(reader, [partition], span.end))[partition]
            bounds = {partition: (first, end)} if first < end else {}
            async with aclosing(batches_between(reader, bounds)) as batches:
                async for _, records in batches:
                    await asyncio.to_thread(self._keep, self._file, records)
        self._read_so_far[partition.partition] = _Read(span, max(first, end))

    def _forget(self, number: int) -> None:
        assert self._partitions
        for job_id in [each for each in self._kept if recording_partition(each, self._partitions) == number]:
            del self._kept[job_id]

    def _keep(self, file: IO[bytes], records: Sequence[Record]) -> None:
        position = file.seek(0, 2)
        source = TopicPartition(records[0].topic, records[0].partition)
        for record in records:
            place = parse_recording_key(record.key)
            if place is not None and record.value is not None:
                file.write(record.value)
                self._kept.setdefault(place.job_id, []).append(
                    _Kept(place, record.timestamp, source, record.offset, position, len(record.value))
                )
                position += len(record.value)

    def _value(self, kept: _Kept) -> bytes:
        assert self._file is not None
        self._file.seek(kept.position)
        return self._file.read(kept.length)


def of_attempt(found: Iterable[Answer], attempt: int) -> Mapping[RecordingKey, bytes]:
    """What one attempt recorded. Of one key the last counts: what was written before it was not acknowledged."""
    return {each.place.key: each.value for each in found if each.place.attempt == attempt}
