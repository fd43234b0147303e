"""The state that the processes of a test share: topics, groups, the clock; and what is done to it from outside."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from headrace.core.topics import Topic
from headrace.errors import BrokerError, TopicMissing
from headrace.ports import Committed, NewRecord, TopicPartition
from headrace.testing.faults import Faults
from headrace.testing.groups import Group
from headrace.testing.storage import StoredPartition, StoredRecord, StoredTopic

Written = Callable[[TopicPartition, Sequence[StoredRecord]], None]
CommitKept = Callable[[str, Mapping[TopicPartition, Committed]], None]
Fetched = Callable[[TopicPartition, Sequence[StoredRecord]], None]


class InMemoryCluster(Faults):
    """A cluster of brokers in this process. Each process of a test reaches it by an `InMemoryLog` of its own.

    It has no threads and no time but the event loop's: under a loop with a virtual clock, whatever happens in it happens in the
    same order in every run. The faults of `Faults` meet here the writes of all processes.

    Args:
        now: the wall clock, in milliseconds since the Unix epoch.
        latency: how many seconds the next message takes on its way, there or back.

    Attributes:
        fetched: called with what is given out, by partition.
        written: called with what was written, by partition.
        committed: called with what a group has committed.
        context: in which everything runs that the cluster does by itself.
    """

    def __init__(self, *, now: Callable[[], int] | None = None, latency: Callable[[], float] | None = None) -> None:
        super().__init__()
        self.now = now or _wall_clock
        self.latency = latency or _no_latency
        self.fetched: Fetched | None = None
        self.written: Written | None = None
        self.committed: CommitKept | None = None
        self.context = contextvars.copy_context()
        self._topics: dict[str, StoredTopic] = {}
        self._groups: dict[str, Group] = {}
        self._withheld: set[TopicPartition] = set()
        self._watchers: dict[str, dict[asyncio.Event, None]] = {}
        self._names = 0

    # --- topics -------------------------------------------------------------------------------------------------------

    def create_topics(self, topics: Collection[Topic]) -> None:
        """Creates what is missing, and checks what exists. Raises TopicMisconfigured."""
        for topic in topics:
            if (existing := self._topics.get(topic.name)) is None:
                self._topics[topic.name] = StoredTopic(topic)
            else:
                existing.verify(topic)

    def delete_topics(self, names: Collection[str]) -> None:
        """Deletes topics, with their records and what groups have committed of them."""
        for name in names:
            if self._topics.pop(name, None) is not None:
                for group in self._groups.values():
                    group.forget_topic(name)

    def topic_names(self) -> set[str]:
        """Every topic there is."""
        return set(self._topics)

    def partition_count(self, topic: str) -> int:
        """How many partitions the topic has. Raises TopicMissing."""
        return len(self._topic(topic).partitions)

    # --- records ------------------------------------------------------------------------------------------------------

    def append(self, target: TopicPartition, *records: NewRecord, timestamp: int | None = None) -> int:
        """Writes records at once, as somebody would of whom the test knows nothing else; the offset of the first.

        Args:
            timestamp: of all of them; the time of the cluster when left out.

        Raises:
            TopicMissing: there is no such topic.
            BrokerError: it has no such partition.
        """
        return self.write(target, records, [self.now() if timestamp is None else timestamp] * len(records))

    def write(self, target: TopicPartition, records: Sequence[NewRecord], timestamps: Sequence[int]) -> int:
        """Writes records with the times of their writer; the offset of the first. Raises as `append`."""
        partition = self.partition(target)
        kept = self._topic(target.topic).keeps_append_time
        offset = partition.append(records, timestamps, timestamp_type=int(kept))
        if self.written is not None:
            self.written(target, partition.records[-len(records) :])
        self._wake([target.topic])
        return offset

    def records(self, target: TopicPartition) -> Sequence[StoredRecord]:
        """The records of a partition that are still there, in order."""
        return tuple(self.partition(target).records)

    def topic_records(self, topic: str) -> Sequence[StoredRecord]:
        """The records of all partitions of a topic, by partition and offset."""
        return tuple(record for partition in self._topic(topic).partitions for record in partition.records)

    def remove_records(self, target: TopicPartition, offsets: Collection[int]) -> None:
        """Takes single records away, and leaves gaps, as compaction does."""
        self.partition(target).remove(offsets)

    def delete_records(self, target: TopicPartition, before: int) -> None:
        """Moves the start of a partition to an offset: what stands before it is gone."""
        self.partition(target).remove_before(before)

    def compact(self, topic: str, *, tombstones: bool = False) -> None:
        """Compacts a topic once, as far as its compaction lag allows: the newest record of each key stays.

        Args:
            tombstones: takes tombstones away, too, as if the time for which they are kept were over.

        Raises:
            ValueError: the topic is not a compacted one.
        """
        stored = self._topic(topic)
        if "compact" not in stored.configuration["cleanup.policy"]:
            raise ValueError(f"the topic {topic} is not compacted")
        newest = self.now() - int(stored.configuration["min.compaction.lag.ms"])
        for partition in stored.partitions:
            partition.compact(newest, tombstones=tombstones)

    def withhold(self, *targets: TopicPartition) -> None:
        """Gives nothing of these partitions out, to anybody, until `give_out`; asked for their ends, it tells them."""
        self._withheld.update(targets)

    def give_out(self, *targets: TopicPartition) -> None:
        """Ends `withhold` for these partitions, or for all when none is named."""
        self._withheld.difference_update(targets or tuple(self._withheld))
        self.wake_all()

    # --- groups -------------------------------------------------------------------------------------------------------

    def members(self, group: str) -> Mapping[str, frozenset[TopicPartition]]:
        """The members of a group as it knows them, and what it gave each in its last assignment."""
        return self.group(group).members()

    def generation(self, group: str) -> int:
        """How many times the group has dealt out its partitions."""
        return self.group(group).generation

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Sets what a group has committed, whoever its members are."""
        self.group(group).store({partition: Committed(offset) for partition, offset in offsets.items()})

    def committed_offsets(self, group: str) -> Mapping[TopicPartition, int]:
        """What a group has committed."""
        return {partition: entry.offset for partition, entry in self.group(group).committed.items()}

    # --- for the handles ----------------------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(self._partitions_of, self.context, partial(self._note_commit, name))
        return self._groups[name]

    def topic(self, name: str) -> StoredTopic:
        """Raises TopicMissing."""
        return self._topic(name)

    def partition(self, target: TopicPartition) -> StoredPartition:
        """Raises: TopicMissing, BrokerError."""
        partitions = self._topic(target.topic).partitions
        if not 0 <= target.partition < len(partitions):
            raise BrokerError(f"The topic {target.topic} has no partition {target.partition}.")
        return partitions[target.partition]

    def read(self, target: TopicPartition, offset: int, maximum: int | None) -> tuple[Sequence[StoredRecord], int]:
        """Records from an offset on, and where to read on. Nothing of a partition that is withheld, or gone."""
        if target in self._withheld or target.topic not in self._topics:
            return (), offset
        partition = self.partition(target)
        found, position = partition.read(partition.within(offset), maximum)
        if found and self.fetched is not None:
            self.fetched(target, found)
        return found, position

    def ends(self) -> dict[TopicPartition, int]:
        """Where each partition of each topic ends."""
        return {partition.name: partition.end for topic in self._topics.values() for partition in topic.partitions}

    def _note_commit(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> None:
        if self.committed is not None:
            self.committed(group, offsets)

    def next_name(self) -> str:
        self._names += 1
        return f"process-{self._names}"

    @contextmanager
    def watched(self, topics: Iterable[str], wake: asyncio.Event) -> Iterator[None]:
        """Sets the event whenever there may be something new in one of the topics."""
        named = list(dict.fromkeys(topics))
        for topic in named:
            self._watchers.setdefault(topic, {})[wake] = None
        try:
            yield
        finally:
            for topic in named:
                del self._watchers[topic][wake]

    def wake_all(self) -> None:
        self._wake(self._watchers)

    def _wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for wake in self._watchers.get(topic, ()):
                wake.set()

    def _topic(self, name: str) -> StoredTopic:
        if name not in self._topics:
            raise TopicMissing(f"The topic {name} does not exist. The engine, gateway or client that needs it makes it.")
        return self._topics[name]

    def _partitions_of(self, topic: str) -> Sequence[TopicPartition]:
        return [partition.name for partition in self._topics[topic].partitions] if topic in self._topics else []


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


def _no_latency() -> float:
    return 0.0
