"""What `ended-keys` tells a new owner of a job partition: which jobs have ended that may be asked for again."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from headrace.codec import decode
from headrace.core.duplicates import UNKNOWN, End
from headrace.core.records import SOURCE_HEADER
from headrace.core.timestamps import to_milliseconds
from headrace.engine.partition import OwnedPartition
from headrace.errors import BrokerUnreachable, RecordUndecodable
from headrace.models import EndedKeyRecord
from headrace.ports import Log, LogReader, Record, TopicPartition

_logger = logging.getLogger(__name__)

_FETCH_SECONDS = 0.1
_MOST_RECORDS = 5_000
_SILENCE_SECONDS = 30.0


class EndedKeys:
    """Reads `ended-keys` for the job partitions that an engine takes over. Where nothing stands there, it costs one request.

    Args:
        topic: its name.
        now: milliseconds since the Unix epoch.
        window_seconds: entries that are older than two of these are passed over; Kafka deletes them in whole segments.
    """

    def __init__(self, log: Log, topic: str, now: Callable[[], int], window_seconds: float) -> None:
        self._log = log
        self._topic = topic
        self._now = now
        self._kept = 2_000 * window_seconds
        # Is asked for offsets alone: an answer never waits behind a fetch that waits for records.
        self._asked = log.reader()

    async def start(self) -> None:
        """Connects. Raises a BrokerError."""
        await self._asked.start()

    async def stop(self) -> None:
        """Disconnects."""
        await self._asked.stop()

    async def learn(self, partitions: Sequence[OwnedPartition]) -> None:
        """Reads what stands there at the time of the call, from where each partition was read up to before.

        Raises a BrokerError when that is not possible.
        """
        wanted: dict[TopicPartition, list[OwnedPartition]] = defaultdict(list)
        for partition in partitions:
            wanted[TopicPartition(self._topic, partition.state_partition)].append(partition)
        ends = await self._asked.end_offsets(wanted)
        behind = {place: owned for place, owned in wanted.items() if any(each.ended_keys_read < ends[place] for each in owned)}
        if not behind:
            return
        starts = await self._asked.start_offsets(behind)
        positions = {place: max(starts[place], min(each.ended_keys_read for each in owned)) for place, owned in behind.items()}
        if any(position < ends[place] for place, position in positions.items()):
            await self._read(positions, ends, behind)
        for place, owned in behind.items():
            for partition in owned:
                partition.ended_keys_read = ends[place]

    async def _read(
        self,
        positions: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        wanted: Mapping[TopicPartition, Sequence[OwnedPartition]],
    ) -> None:
        reader = self._log.reader()
        try:
            await reader.start()
            await reader.assign(positions)
            await self._fetch(reader, ends, wanted)
        finally:
            await reader.stop()

    async def _fetch(
        self,
        reader: LogReader,
        ends: Mapping[TopicPartition, int],
        wanted: Mapping[TopicPartition, Sequence[OwnedPartition]],
    ) -> None:
        oldest = self._now() - self._kept
        about = {place: {each.source_prefix: each for each in owned} for place, owned in wanted.items()}
        moved_at = asyncio.get_running_loop().time()
        positions = await reader.positions()
        while any(positions[place] < ends[place] for place in wanted):
            for place, records in (await reader.fetch(timeout=_FETCH_SECONDS, maximum=_MOST_RECORDS)).items():
                for record in records:
                    if record.timestamp >= oldest:
                        _take(record, about[place])
            before, positions = positions, await reader.positions()
            now = asyncio.get_running_loop().time()
            if positions != before:
                moved_at = now
            elif now - moved_at > _SILENCE_SECONDS:
                raise BrokerUnreachable(f"The brokers gave nothing of {self._topic} for {_SILENCE_SECONDS:g} s.")


def _take(record: Record, about: Mapping[bytes, OwnedPartition]) -> None:
    """Takes in an entry, if it is about one of these partitions, by what their source headers begin with."""
    source = next((value for name, value in record.headers if name == SOURCE_HEADER), None)
    if source is None:
        return
    prefix, slash, _ = source.rpartition(b"/")
    partition = about.get(prefix + slash)
    if partition is None:
        return
    try:
        entry = decode(EndedKeyRecord, record.value)
    except RecordUndecodable as error:
        _logger.warning("an entry of %s/%d at offset %d was skipped: %s", *record_place(record), error)
        return
    end = End(entry.offset, to_milliseconds(entry.ended_at), entry.arguments_digest or UNKNOWN)
    if not partition.ids.has_ended(entry.id, end.offset):
        partition.ids.end(entry.id, end)


def record_place(record: Record) -> tuple[str, int, int]:
    """Where a record stands, for what is said of it."""
    return record.topic, record.partition, record.offset
