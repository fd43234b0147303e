"""A log in memory as views see one: sparse partitions, committed offsets, a broker that can be away; and what engines write."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from headrace.core import snapshots
from headrace.core.ownership import Version
from headrace.core.partitions import state_partition
from headrace.core.records import definition_key, instance_key, lease_key, source_header, status_header, version_header
from headrace.core.topics import Topic, Topics
from headrace.errors import BrokerUnreachable
from headrace.ports import TopicPartition

NAMESPACE = "view-test"
TOPICS = Topics(NAMESPACE)
WORKER = "send_digest"


@dataclass(frozen=True, slots=True)
class MadeRecord:
    """A record as it is read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class ViewLog:
    """Partitions with records at any offsets.

    Attributes:
        topics: the names of its topics.
        state_partitions: how many `job-state` has.
        job_partitions: how many the topic of a worker has.
        ends: where each partition ends, which may lie beyond its last record.
        starts: where each partition begins.
        committed: by group.
        away: while it is set, whatever is asked fails.
        held: partitions whose records are not given out for now.
    """

    topics: Topics = TOPICS
    state_partitions: int = 4
    job_partitions: int = 2
    records: dict[TopicPartition, list[MadeRecord]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    committed: dict[str, dict[TopicPartition, int]] = field(default_factory=dict)
    away: bool = False
    held: set[TopicPartition] = field(default_factory=set)
    fetched: list[MadeRecord] = field(default_factory=list)

    def put(
        self,
        partition: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        *,
        timestamp: int | None = None,
    ) -> MadeRecord:
        """Writes a record at the end of a partition."""
        offset = self.ends.get(partition, 0)
        made = MadeRecord(*partition, offset, 1_000 + offset if timestamp is None else timestamp, key, value, headers)
        self.records.setdefault(partition, []).append(made)
        self.ends[partition] = offset + 1
        return made

    def compact(self, partition: TopicPartition, offsets: Collection[int]) -> None:
        """Takes records out of a partition, as compaction does."""
        self.records[partition] = [record for record in self.records[partition] if record.offset not in offsets]

    def check(self) -> None:
        if self.away:
            raise BrokerUnreachable("nothing answers at memory:9092")

    async def create_topics(self, topics: Collection[Topic]) -> None:
        self.check()
        for topic in topics:
            wanted = self.state_partitions if topic.name == self.topics.job_state.name else topic.partitions
            self.counts.setdefault(topic.name, wanted)

    async def delete_topics(self, names: Collection[str]) -> None:
        for name in names:
            self.counts.pop(name, None)

    async def topic_names(self) -> set[str]:
        self.check()
        return set(self.counts)

    async def partition_count(self, topic: str) -> int:
        self.check()
        return self.counts[topic]

    async def committed_offsets(self, group: str) -> Mapping[TopicPartition, int]:
        self.check()
        return self.committed.get(group, {})

    async def close(self) -> None:
        """Nothing is open."""

    def writer(self) -> Any:
        raise AssertionError("a view writes nothing")

    def reader(self) -> ViewReader:
        return ViewReader(self)

    def group_consumer(self, *_: Any) -> Any:
        raise AssertionError("a view joins no group")


@dataclass
class ViewReader:
    """Reads from a `ViewLog`."""

    log: ViewLog
    at: dict[TopicPartition, int] = field(default_factory=dict)

    async def start(self) -> None:
        self.log.check()

    async def stop(self) -> None:
        """Nothing is open."""

    async def partitions(self, topic: str) -> int:
        return await self.log.partition_count(topic)

    async def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self.log.check()
        self.at = {
            partition: max(offset, self.log.starts.get(partition, 0)) if offset <= self.log.ends.get(partition, 0) else 0
            for partition, offset in positions.items()
        }

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[MadeRecord]]:
        self.log.check()
        assert timeout > 0
        found: dict[TopicPartition, Sequence[MadeRecord]] = {}
        left = maximum or 1_000_000
        for partition, offset in self.at.items():
            if partition in self.log.held or left == 0:
                continue
            known = self.log.records.get(partition, [])
            some = [record for record in known if record.offset >= offset][:left]
            left -= len(some)
            last = bool(known) and bool(some) and some[-1] is known[-1]
            self.at[partition] = some[-1].offset + 1 if some and not last else self.log.ends.get(partition, 0)
            if some:
                found[partition] = some
                self.log.fetched += some
        await asyncio.sleep(0 if found else 0.002)
        return found

    async def positions(self) -> Mapping[TopicPartition, int]:
        self.log.check()
        return dict(self.at)

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.log.check()
        return {partition: self.log.starts.get(partition, 0) for partition in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.log.check()
        return {partition: self.log.ends.get(partition, 0) for partition in partitions}


class Engines:
    """What clients and engines write of the jobs of one worker, in the order of the calls."""

    def __init__(self, log: ViewLog, worker: str = WORKER) -> None:
        self.log = log
        self.worker = worker
        log.counts[log.topics.job_state.name] = self.log.state_partitions
        log.counts[log.topics.jobs_name(worker)] = self.log.job_partitions
        self.snapshots: dict[str, dict[str, Any]] = {}

    def define(self) -> None:
        """Publishes the worker's definition."""
        definition = {"schemaVersion": 1, "name": self.worker, "description": "Sends a digest.", "category": "tool"}
        self.log.put(TopicPartition(self.log.topics.workers.name, 0), definition_key(self.worker), orjson.dumps(definition))

    def live(self, instance: str, *, timestamp: int, **fields: Any) -> None:
        """Publishes a sign of life."""
        record = {
            "schemaVersion": 1,
            "instanceId": instance,
            "workers": [self.worker],
            "host": "here",
            "processId": 1,
            "startedAt": "2026-03-02T09:30:00.000Z",
            "seenAt": "2026-03-02T09:30:00.000Z",
            **fields,
        }
        topic = TopicPartition(self.log.topics.workers.name, 0)
        self.log.put(topic, instance_key(instance), orjson.dumps(record), timestamp=timestamp)

    def state(self, partition: int) -> TopicPartition:
        """The partition of `job-state` in which the jobs of a partition of the worker stand."""
        return TopicPartition(self.log.topics.job_state.name, state_partition(self.worker, partition, self.log.state_partitions))

    def jobs(self, partition: int) -> TopicPartition:
        return TopicPartition(self.log.topics.jobs_name(self.worker), partition)

    def enqueue(self, job_id: str, partition: int = 0, *, created: str = "2026-03-02T09:30:00.000Z", **fields: Any) -> MadeRecord:
        """A client's job record."""
        raw = {
            "schemaVersion": 1,
            "id": job_id,
            "tenant": "default",
            "workerName": self.worker,
            "createdAt": created,
            "args": {"to": ["ann"]},
            "ctx": {"userId": "ann", "conversationId": "trip"},
            **fields,
        }
        made = self.log.put(self.jobs(partition), job_id.encode(), orjson.dumps(raw))
        source = {"topic": made.topic, "partition": partition, "offset": made.offset}
        small = len(orjson.dumps(raw["args"])) <= snapshots.ARGUMENTS_REPEATED_BYTES
        self.snapshots.setdefault(job_id, snapshots.queued(raw, source, repeat_arguments=small))
        return made

    def claim(self, instance: str, previous: int, partition: int = 0) -> int:
        """An instance's claim; returns its offset, which is the epoch of what it writes."""
        raw = {
            "schemaVersion": 1,
            "kind": "claim",
            "workerName": self.worker,
            "partition": partition,
            "instanceId": instance,
            "previous": previous,
        }
        return self.log.put(self.state(partition), lease_key(self.worker, partition, instance), orjson.dumps(raw)).offset

    def write(self, snapshot: dict[str, Any], *, keep: bool = True) -> MadeRecord:
        """A snapshot as an engine writes it."""
        source = snapshot["source"]
        headers = (
            source_header(self.worker, source["partition"], source["offset"]),
            version_header(Version(snapshot["epoch"], snapshot["attempt"], snapshot["sequence"])),
            status_header(snapshot["status"]),
        )
        if keep:
            self.snapshots[snapshot["id"]] = snapshot
        return self.log.put(self.state(source["partition"]), snapshot["id"].encode(), orjson.dumps(snapshot), headers)

    def run(self, job_id: str, epoch: int, instance: str = "one") -> MadeRecord:
        """An attempt begins."""
        writer = snapshots.Writer(instance, epoch)
        return self.write(snapshots.running(self.snapshots[job_id], writer, "2026-03-02T09:31:00.000Z"))

    def complete(self, job_id: str, result: Any = None) -> MadeRecord:
        """The attempt returns."""
        return self.write(snapshots.completed(self.snapshots[job_id], result, "2026-03-02T09:32:00.000Z"))

    def fail(self, job_id: str, **error: Any) -> MadeRecord:
        """The attempt raises."""
        told = {"type": "ValueError", "message": "no", "traceback": "Traceback ...", **error}
        return self.write(snapshots.failed(self.snapshots[job_id], told, "2026-03-02T09:32:00.000Z"))

    def forget(self, job_id: str, partition: int = 0) -> MadeRecord:
        """The janitor's tombstone."""
        return self.log.put(self.state(partition), job_id.encode(), None)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """What the worker's group has committed, by partition."""
        self.log.committed[self.log.topics.group(self.worker)] = {self.jobs(number): offset for number, offset in offsets.items()}
