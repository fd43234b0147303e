"""How jobs of a sandbox have ended that its replay did not run to their ends: what anybody does there may be the cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from headrace.codec import decode_object
from headrace.core.comparison import Outcome
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.topics import Topics
from headrace.errors import RecordUndecodable
from headrace.ports import Log, LogReader, TopicPartition, UnplacedRecord
from headrace.reading import unplaced_between
from headrace.replay.recorded.folding import Claims


class SandboxEnds:
    """Reads the `job-state` of a sandbox, each time from where it had come to."""

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topic = topics.job_state.name
        self._reader: LogReader | None = None
        self._claims: dict[TopicPartition, Claims] = {}
        self._read_to: dict[TopicPartition, int] = {}
        # Of what was read before the brokers went away, too.
        self._found: dict[str, Outcome] = {}

    async def newly_ended(self, jobs: Collection[str]) -> Mapping[str, Outcome]:
        """What came of those of these jobs of which the topic says, behind what was read before, that they have ended.

        Raises:
            BrokerError: the brokers cannot be used.
            TopicMissing: the sandbox is there no more.
        """
        reader = await self._started()
        ends = await reader.end_offsets(self._claims.keys())
        bounds = {each: (self._read_to[each], end) for each, end in ends.items() if self._read_to[each] < end}
        async with aclosing(unplaced_between(reader, bounds)) as batches:
            async for partition, records in batches:
                self._take(partition, records, jobs)
        found, self._found = self._found, {}
        return found

    def _take(self, partition: TopicPartition, records: Sequence[UnplacedRecord], jobs: Collection[str]) -> None:
        claims = self._claims[partition]
        for record in records:
            seen = claims.see(record)
            if seen is not None and not seen.void and seen.status in TERMINAL and record.key is not None:
                job_id = record.key.decode(errors="replace")
                if job_id in jobs:
                    self._found[job_id] = _outcome(JobStatus(seen.status), record.value)
        self._read_to[partition] = records[-1].offset + 1

    async def _started(self) -> LogReader:
        if self._reader is None:
            reader = self._log.reader()
            await reader.start()
            self._reader = reader
        if not self._claims:
            partitions = [TopicPartition(self._topic, number) for number in range(await self._reader.partitions(self._topic))]
            self._read_to = dict(await self._reader.start_offsets(partitions))
            self._claims = {each: Claims() for each in partitions}
        return self._reader

    async def stop(self) -> None:
        """Gives up the connection."""
        if self._reader is not None:
            await self._reader.stop()


def _outcome(status: JobStatus, value: bytes | None) -> Outcome:
    """Without the result, which nobody compares."""
    try:
        error: Any = decode_object(value).get("error")
    except RecordUndecodable:
        error = None
    told = error if isinstance(error, dict) else {}
    return Outcome(status, None, told.get("type"), told.get("message"))
