"""A log in memory with the topics of a namespace, and what clients and engines write there of the jobs of a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from headrace.core import snapshots
from headrace.core.ownership import Version
from headrace.core.partitions import state_partition
from headrace.core.records import definition_key, instance_key, lease_key, source_header, status_header, version_header
from headrace.core.topics import Topics
from headrace.errors import BrokerUnreachable
from headrace.ports import Header, NewRecord, TopicPartition
from headrace.testing import InMemoryLog, StoredRecord

NAMESPACE = "view-test"
TOPICS = Topics(NAMESPACE)
WORKER = "send_digest"
STATE_PARTITIONS = 4
JOB_PARTITIONS = 8


class WrittenLog(InMemoryLog):
    """The topics of a namespace, for views to read.

    Attributes:
        state_partitions: how many `job-state` has.
        given: all records that were given out, in order.
    """

    def __init__(self, topics: Topics = TOPICS, *, state_partitions: int = STATE_PARTITIONS) -> None:
        super().__init__()
        self.topics = topics
        self.state_partitions = state_partitions
        self.given: list[StoredRecord] = []
        self.cluster.create_topics([topics.workers, replace(topics.job_state, partitions=state_partitions)])
        self.cluster.fetched = lambda _, records: self.given.extend(records)

    def put(
        self,
        target: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        *,
        timestamp: int | None = None,
    ) -> StoredRecord:
        """Writes a record. Its time tells its offset when left out. No writer of headrace's gives it no key."""
        end = self.cluster.partition(target).end
        record = NewRecord(key, value, headers)  # type: ignore[arg-type]  # see above
        self.cluster.append(target, record, timestamp=1_000 + end if timestamp is None else timestamp)
        return self.cluster.records(target)[-1]

    def partitions(self) -> list[TopicPartition]:
        """Every partition that has a record, in the order of the topics' names."""
        names = sorted(self.cluster.topic_names())
        found = [TopicPartition(record.topic, record.partition) for name in names for record in self.cluster.topic_records(name)]
        return list(dict.fromkeys(found))

    def go_away(self) -> None:
        """From now on whatever is asked fails, until `accept_requests`."""
        self.refuse_requests(BrokerUnreachable("nothing answers at memory:9092"))


class Engines:
    """What clients and engines write of the jobs of one worker, in the order of the calls."""

    def __init__(self, log: WrittenLog, worker: str = WORKER) -> None:
        self.log = log
        self.worker = worker
        log.cluster.create_topics([log.topics.jobs(worker, JOB_PARTITIONS)])
        self.snapshots: dict[str, dict[str, Any]] = {}

    def define(self, kind: str | None = None) -> None:
        """Publishes the worker's definition."""
        definition = {"schemaVersion": 1, "name": self.worker, "description": "Sends a digest.", "category": "tool"}
        if kind is not None:
            definition["kind"] = kind
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

    def enqueue(
        self, job_id: str, partition: int = 0, *, created: str = "2026-03-02T09:30:00.000Z", **fields: Any
    ) -> StoredRecord:
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

    def write(self, snapshot: dict[str, Any], *, keep: bool = True) -> StoredRecord:
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

    def run(self, job_id: str, epoch: int, instance: str = "one") -> StoredRecord:
        """An attempt begins."""
        writer = snapshots.Writer(instance, epoch)
        return self.write(snapshots.running(self.snapshots[job_id], writer, "2026-03-02T09:31:00.000Z"))

    def complete(self, job_id: str, result: Any = None) -> StoredRecord:
        """The attempt returns."""
        return self.write(snapshots.completed(self.snapshots[job_id], result, "2026-03-02T09:32:00.000Z"))

    def fail(self, job_id: str, **error: Any) -> StoredRecord:
        """The attempt raises."""
        told = {"type": "ValueError", "message": "no", "traceback": "Traceback ...", **error}
        return self.write(snapshots.failed(self.snapshots[job_id], told, "2026-03-02T09:32:00.000Z"))

    def forget(self, job_id: str, partition: int = 0) -> StoredRecord:
        """The janitor's tombstone."""
        return self.log.put(self.state(partition), job_id.encode(), None)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """What the worker's group has committed, by partition."""
        committed = {self.jobs(number): offset for number, offset in offsets.items()}
        self.log.cluster.commit(self.log.topics.group(self.worker), committed)
