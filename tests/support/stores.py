"""One conversation in a store over a log in memory, for tests of the store."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.partitions import key_partition
from headrace.core.topics import Topics
from headrace.memory.tables import key_of
from headrace.ports import ConversationRef, MemorySnapshot, NewCompaction, NewEntry, NewRecord, TopicPartition
from headrace.testing import InMemoryLog, StoredRecord

HERE = ConversationRef("default", "ann", "trip")
TOPICS = Topics("unit")
PARTITION = TopicPartition(TOPICS.memory.name, key_partition(key_of(HERE), TOPICS.memory.partitions))


def said(*texts: str) -> list[NewEntry]:
    return [NewEntry(role="user", content=text, id=text) for text in texts]


def ids(snapshot: MemorySnapshot) -> list[str]:
    return [entry.id for entry in snapshot.entries]


def compaction(snapshot: MemorySnapshot, *supersedes: str, job: str = "job-1", summary: str = "sum") -> NewCompaction:
    return NewCompaction(job_id=job, base_version=snapshot.version, supersedes=supersedes, summary=summary, title="Trip")


def records(log: InMemoryLog) -> Sequence[StoredRecord]:
    """What stands in the conversation's partition; nothing where the topic was never made."""
    made = PARTITION.topic in log.cluster.topic_names()
    return log.cluster.records(PARTITION) if made else ()


def is_compaction(record: NewRecord) -> bool:
    return b'"type":"compaction"' in (record.value or b"")
