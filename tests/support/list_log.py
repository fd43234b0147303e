"""A log of lists: what a store needs of `ports.Log`, in this process, for tests that need no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.core.topics import Topic
from headrace.errors import HeadraceError
from headrace.ports import Acknowledged, AppendFailed, NewRecord, Outcome, Record, TopicPartition


@dataclass(frozen=True, slots=True)
class ListedRecord:
    """A record as it is read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class ListLog:
    """Partitions as lists. Everything is acknowledged at once.

    Attributes:
        before_append: awaited before `append` writes, so that a test can let others come first.
        after_append: awaited after `append` has written and before it answers, so that a test can take the answer away.
        before_submit: called before `submit` writes, so that a test can let another's record land first.
        refuses: what `submit` answers instead of writing.
    """

    lists: dict[TopicPartition, list[ListedRecord]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    before_append: Callable[[], Awaitable[None]] | None = None
    after_append: Callable[[], Awaitable[None]] | None = None
    before_submit: Callable[[], None] | None = None
    refuses: HeadraceError | None = None
    reads: int = 0

    async def create_topics(self, topics: Collection[Topic]) -> None:
        for topic in topics:
            self.counts.setdefault(topic.name, topic.partitions)

    async def delete_topics(self, names: Collection[str]) -> None:
        for name in names:
            self.counts.pop(name, None)
        self.lists = {partition: records for partition, records in self.lists.items() if partition.topic in self.counts}

    async def partition_count(self, topic: str) -> int:
        return self.counts[topic]

    async def close(self) -> None:
        """Nothing is open."""

    def writer(self) -> ListWriter:
        return ListWriter(self)

    def reader(self) -> ListReader:
        return ListReader(self)

    def group_consumer(self, *_: Any) -> Any:
        raise AssertionError("no test here joins a group")

    async def topic_names(self) -> set[str]:
        return set(self.counts)

    async def committed_offsets(self, group: str) -> Mapping[TopicPartition, int]:
        raise AssertionError(f"no test here asks for offsets of {group}")

    def put(self, target: TopicPartition, record: NewRecord) -> Acknowledged:
        """Writes one record."""
        records = self.lists.setdefault(target, [])
        made = ListedRecord(*target, len(records), 1_000 + len(records), record.key, record.value, tuple(record.headers))
        records.append(made)
        return Acknowledged(made.offset, made.timestamp)


@dataclass
class ListWriter:
    """Writes to a `ListLog`."""

    log: ListLog

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self, *, timeout: float) -> None:
        """Nothing is under way."""

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        async with asyncio.timeout(timeout):
            if self.log.before_append is not None:
                await self.log.before_append()
            written = self.log.put(target, record)
            if self.log.after_append is not None:
                await self.log.after_append()
        return written

    async def append_all(self, records: Sequence[tuple[TopicPartition, NewRecord]], *, timeout: float) -> list[Outcome]:
        return [await self.append(target, record, timeout=timeout) for target, record in records]

    @property
    def failure(self) -> None:
        return None

    def submit(self, target: TopicPartition, records: Sequence[NewRecord], done: Callable[[Outcome], None]) -> None:
        if self.log.refuses is not None:
            done(AppendFailed(self.log.refuses))
            return
        if self.log.before_submit is not None:
            self.log.before_submit()
        written = [self.log.put(target, record) for record in records]
        done(written[0])


@dataclass
class ListReader:
    """Reads from a `ListLog`."""

    log: ListLog
    at: dict[TopicPartition, int] = field(default_factory=dict)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing is open."""

    async def partitions(self, topic: str) -> int:
        return self.log.counts[topic]

    async def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.at = {
            partition: offset if offset <= len(self.log.lists.get(partition, ())) else 0
            for partition, offset in positions.items()
        }

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        assert timeout > 0
        await asyncio.sleep(0)
        found: dict[TopicPartition, Sequence[Record]] = {}
        for partition, offset in self.at.items():
            records = self.log.lists.get(partition, [])[offset:][:maximum]
            if records:
                found[partition] = records
                self.at[partition] = offset + len(records)
                self.log.reads += len(records)
        return found

    async def positions(self) -> Mapping[TopicPartition, int]:
        return dict(self.at)

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {partition: len(self.log.lists.get(partition, ())) for partition in partitions}
