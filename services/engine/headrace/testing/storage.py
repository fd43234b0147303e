"""Topics and the records of their partitions: what a cluster keeps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from headrace.core.topics import Topic
from headrace.errors import TopicMisconfigured
from headrace.ports import Header, NewRecord, TopicPartition

# What Kafka takes where a topic does not say.
_DEFAULTS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
    "min.compaction.lag.ms": "0",
    "max.message.bytes": "1048588",
}


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it stands in the log. `timestamp` is in milliseconds since the Unix epoch; see `Record`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    timestamp_type: int = 0


_offset_of = attrgetter("offset")


@dataclass(slots=True)
class StoredPartition:
    """The records of a partition, in order. Their offsets rise, and may have gaps.

    Attributes:
        start: the first offset that is still there.
        end: the offset of the next record.
    """

    name: TopicPartition
    start: int = 0
    end: int = 0
    records: list[StoredRecord] = field(default_factory=list)

    def append(self, records: Sequence[NewRecord], timestamps: Sequence[int], *, timestamp_type: int = 0) -> int:
        """Writes records, and returns the offset of the first."""
        first = self.end
        self.records.extend(
            StoredRecord(*self.name, first + number, timestamp, record.key, record.value, tuple(record.headers), timestamp_type)
            for number, (record, timestamp) in enumerate(zip(records, timestamps, strict=True))
        )
        self.end += len(records)
        return first

    def read(self, offset: int, maximum: int | None) -> tuple[Sequence[StoredRecord], int]:
        """At most so many records from an offset on, and where to read on: past the gap where nothing is left."""
        first = bisect_left(self.records, offset, key=_offset_of)
        last = len(self.records) if maximum is None else first + maximum
        found = self.records[first:last]
        return found, self.end if last >= len(self.records) else found[-1].offset + 1 if found else offset

    def since(self, timestamp: int) -> int:
        """The offset of the first record that is not older than a time, or the end."""
        return next((record.offset for record in self.records if record.timestamp >= timestamp), self.end)

    def within(self, offset: int) -> int:
        """The offset itself, or the log's start where that offset is not in the log."""
        return offset if self.start <= offset <= self.end else self.start

    def remove(self, offsets: Collection[int]) -> None:
        gone = set(offsets)
        self.records = [record for record in self.records if record.offset not in gone]

    def remove_before(self, offset: int) -> None:
        self.start = max(self.start, min(offset, self.end))
        self.records = [record for record in self.records if record.offset >= self.start]

    def compact(self, newest_timestamp: int, *, tombstones: bool) -> None:
        """Leaves the newest record of each key, of all before the first that is newer than the given time.

        Args:
            tombstones: takes tombstones away, too, as a later pass does when their time is over.
        """
        cleanable = 0
        while cleanable < len(self.records) and self.records[cleanable].timestamp <= newest_timestamp:
            cleanable += 1
        newest = {record.key: record.offset for record in self.records[:cleanable]}
        kept = [
            record
            for record in self.records[:cleanable]
            if newest[record.key] == record.offset and not (tombstones and record.value is None)
        ]
        self.records = kept + self.records[cleanable:]


class StoredTopic:
    """A topic: its settings and its partitions."""

    def __init__(self, topic: Topic) -> None:
        self.configuration: Mapping[str, str] = {**_DEFAULTS, **topic.configuration}
        self.partitions = [StoredPartition(TopicPartition(topic.name, number)) for number in range(topic.partitions)]

    @property
    def keeps_append_time(self) -> bool:
        """Whether records get the time of the cluster, and not that of their writer."""
        return self.configuration["message.timestamp.type"] == "LogAppendTime"

    @property
    def largest_batch(self) -> int:
        """The size of the largest batch that is taken, in bytes."""
        return int(self.configuration["max.message.bytes"])

    def verify(self, topic: Topic) -> None:
        """Raises TopicMisconfigured where a guarded setting is not as it is wanted."""
        wanted = {name: topic.configuration[name] for name in sorted(topic.guarded & topic.configuration.keys())}
        wrong = {name: right for name, right in wanted.items() if not topic.allows(name, self.configuration.get(name))}
        if wrong:
            found = ", ".join(f"{name}={self.configuration.get(name)}" for name in wrong)
            right = ", ".join(f"{name}={value}" for name, value in wrong.items())
            raise TopicMisconfigured(f"The topic {topic.name} exists with {found}: data could be lost. It must have {right}.")
