"""One conversation in a store over a log of lists, for tests of the store."""

from __future__ import annotations

from headrace.core.partitions import key_partition
from headrace.core.topics import Topics
from headrace.memory.tables import key_of
from headrace.ports import ConversationRef, MemorySnapshot, NewCompaction, NewEntry, TopicPartition

HERE = ConversationRef("default", "ann", "trip")
TOPICS = Topics("unit")
PARTITION = TopicPartition(TOPICS.memory.name, key_partition(key_of(HERE), TOPICS.memory.partitions))


def said(*texts: str) -> list[NewEntry]:
    return [NewEntry(role="user", content=text, id=text) for text in texts]


def ids(snapshot: MemorySnapshot) -> list[str]:
    return [entry.id for entry in snapshot.entries]


def compaction(snapshot: MemorySnapshot, *supersedes: str, job: str = "job-1", summary: str = "sum") -> NewCompaction:
    return NewCompaction(job_id=job, base_version=snapshot.version, supersedes=supersedes, summary=summary, title="Trip")
