"""Recording what live jobs get from outside. It connects when a job first records something, and costs no other job anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from headrace.core.records import SOURCE_HEADER
from headrace.core.timestamps import to_milliseconds
from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.models import Job
from headrace.ports import Log, LogWriter, NewRecord, RecordingKey, TopicPartition
from headrace.recordings.names import is_unsure
from headrace.recordings.reading import CLOCKS_APART_MILLISECONDS, RecordingTails
from headrace.recordings.records import recording_headers, recording_key, recording_partition

_APPEND_SECONDS: Final = 15.0


class LiveRecordings:
    """Writes what the jobs of one engine record, and finds what their earlier attempts did."""

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topic = topics.recordings
        self._tails = RecordingTails(log)
        self._connecting = asyncio.Lock()
        self._writer: LogWriter | None = None
        self._partitions = 0
        self._stopped = False

    def of(self, job: Job, attempt: int) -> LiveRecorder:
        """What an attempt records with."""
        return LiveRecorder(self, job, attempt)

    async def stop(self, *, timeout: float) -> None:
        """Waits at most so many seconds for what is under way. What comes later fails."""
        self._stopped = True
        await self._tails.stop()
        async with self._connecting:
            if self._writer is not None:
                await self._writer.stop(timeout=timeout)

    async def check(self) -> None:
        """Checks the topic, if there is one: else a job would be the first to hear what is wrong with it. None is made.

        Raises:
            TopicMisconfigured: what is recorded could be lost, or would not be taken.
            BrokerError: the brokers cannot be used.
        """
        if self._topic.name in await self._log.topic_names():
            await self._log.create_topics([self._topic])

    async def connect(self) -> None:
        """Makes the topic and a writer, where they are not there. Raises: BrokerError."""
        await self._connected()

    async def write(self, job: Job, key: bytes, value: bytes) -> None:
        """Writes a record, and waits for its acknowledgement. Raises: BrokerError."""
        writer = await self._connected()
        record = NewRecord(key, value, recording_headers(job))
        await writer.append(self._partition_of(job), record, timeout=_APPEND_SECONDS)

    async def before(self, job: Job, attempt: int) -> Mapping[RecordingKey, bytes]:
        """What the attempts before this one recorded, the newest of each key. Raises: BrokerError."""
        await self._connected()
        since = to_milliseconds(job.started_at or job.created_at)
        records = await self._tails.read(self._partition_of(job), job.id, since)
        own = dict(recording_headers(job)).get(SOURCE_HEADER)
        # What engines before this one wrote does not say which job's it is: an earlier one of the same id ended long before.
        earlier = [
            each
            for each in records
            if each.place.attempt < attempt
            and (each.source == own if each.source is not None else each.at >= since - CLOCKS_APART_MILLISECONDS)
        ]
        # Stable: of one attempt the last record of a key counts.
        return {each.place.key: each.value for each in sorted(earlier, key=lambda each: each.place.attempt)}

    def _partition_of(self, job: Job) -> TopicPartition:
        return TopicPartition(self._topic.name, recording_partition(job.id, self._partitions))

    async def _connected(self) -> LogWriter:
        """A writer that works, for a topic that there is."""
        writer = self._writer
        if writer is not None and writer.failure is None:
            return writer
        async with self._connecting:
            if self._stopped:
                raise BrokerError("Nothing is recorded any more: the engine has stopped.")
            if self._writer is None:
                await self._log.create_topics([self._topic])
                self._partitions = await self._log.partition_count(self._topic.name)
            elif self._writer.failure is None:
                return self._writer
            else:
                await self._writer.stop(timeout=0.0)
            fresh = self._log.writer()
            await fresh.start()
            self._writer = fresh
            return fresh


class LiveRecorder:
    """The `Recorder` of one attempt of a job that an engine runs."""

    def __init__(self, recordings: LiveRecordings, job: Job, attempt: int) -> None:
        self._recordings = recordings
        self._job = job
        self._attempt = attempt
        self._reading = asyncio.Lock()
        self._before: Mapping[RecordingKey, bytes] | None = None

    async def find(self, key: RecordingKey, *, reuse: bool) -> bytes | None:
        """What an earlier attempt recorded, where that may be taken."""
        # Before anything is asked for outside, and paid for, it is known that there is a topic and a writer to record it with.
        await self._recordings.connect()
        if not reuse or self._attempt == 1 or is_unsure(key):
            # Of one whose place is not sure nobody knows which call of the earlier attempt it was.
            return None
        async with self._reading:
            if self._before is None:
                self._before = await self._recordings.before(self._job, self._attempt)
        return self._before.get(key)

    async def write(self, key: RecordingKey, value: bytes) -> None:
        """Records an answer, and returns when it is acknowledged."""
        await self._recordings.write(self._job, recording_key(self._job.id, self._attempt, key), value)
