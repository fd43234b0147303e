"""Reading what jobs recorded: the end of one partition, from the time on at which a job began."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.core.records import SOURCE_HEADER
from headrace.core.topics import Topics
from headrace.ports import Log, RecordingKey, TopicPartition
from headrace.reading import records_between
from headrace.recordings.records import RecordingPlace, job_part, parse_recording_key, recording_partition

CLOCKS_APART_MILLISECONDS: Final = 60_000
"""So much the time of a job's start, of its engine's clock, may be ahead of the brokers', of whom that of a record is."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One record: what was got from outside, as JSON.

    Attributes:
        at: the brokers' time of it, in milliseconds since the Unix epoch.
        source: where the record stands of the job that recorded it, as headers have it; None where nothing says so.
    """

    place: RecordingPlace
    at: int
    value: bytes
    source: bytes | None


@dataclass(slots=True, eq=False)
class _Reader:
    """Who waits for what a job recorded since a time."""

    job: bytes
    since: int
    found: asyncio.Future[Sequence[Recorded]]


class RecordingTails:
    """Reads the ends of partitions of a topic that there is. Those who come while a partition is read share the next reading.

    So it costs little when a thousand jobs begin their second attempts at once.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: dict[TopicPartition, list[_Reader]] = {}
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}

    async def read(self, partition: TopicPartition, job_id: str, since: int) -> Sequence[Recorded]:
        """All that a job has recorded up to now, in the order of the log; and what an earlier one did that had its id, where
        others who wait need what is so old.

        Args:
            since: when it began, in milliseconds since the Unix epoch.

        Raises:
            BrokerError: the brokers cannot be used.
        """
        reader = _Reader(job_part(job_id), since - CLOCKS_APART_MILLISECONDS, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(partition, []).append(reader)
        if partition not in self._tasks:
            self._tasks[partition] = asyncio.create_task(self._serve(partition), name=f"recordings-{partition.partition}")
        return await reader.found

    async def stop(self) -> None:
        """Ends what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, partition: TopicPartition) -> None:
        try:
            while readers := self._waiting.pop(partition, None):
                try:
                    await self._read(partition, readers)
                except Exception as error:
                    for each in readers:
                        if not each.found.done():
                            each.found.set_exception(error)
                finally:
                    for each in readers:
                        each.found.cancel()  # of no effect where there is an answer
        finally:
            del self._tasks[partition]
            for each in self._waiting.pop(partition, ()):
                each.found.cancel()

    async def _read(self, partition: TopicPartition, readers: Sequence[_Reader]) -> None:
        found: dict[bytes, list[Recorded]] = {each.job: [] for each in readers}
        reader = self._log.reader()
        try:
            await reader.start()
            # Asked for after all who wait have come: what was acknowledged before that is below it.
            ends = await reader.end_offsets([partition])
            starts = await reader.offsets_since([partition], min(each.since for each in readers))
            if starts[partition] < ends[partition]:
                async for record in records_between(reader, {partition: (starts[partition], ends[partition])}):
                    key = record.key or b""
                    of_job = found.get(key[: key.find(b"/")])
                    if of_job is not None and record.value is not None and (place := parse_recording_key(key)) is not None:
                        of_job.append(Recorded(place, record.timestamp, record.value, dict(record.headers).get(SOURCE_HEADER)))
        finally:
            await reader.stop()
        for each in readers:
            if not each.found.done():
                each.found.set_result(found[each.job])


async def recordings_of(
    log: Log, topics: Topics, job_id: str, attempt: int, since: int, *, tails: RecordingTails | None = None
) -> Mapping[RecordingKey, bytes]:
    """What an attempt of a job recorded, as JSON. Nothing is made where there is no such topic.

    Args:
        since: when the job began, in milliseconds since the Unix epoch.
        tails: those of whoever reads much.

    Raises:
        BrokerError: the brokers cannot be used.
    """
    name = topics.recordings.name
    if name not in await log.topic_names():
        return {}
    partition = TopicPartition(name, recording_partition(job_id, await log.partition_count(name)))
    records = await (tails or RecordingTails(log)).read(partition, job_id, since)
    # Of one key the last counts: what was written before was not acknowledged, and asked for again.
    return {each.place.key: each.value for each in records if each.place.attempt == attempt}
