"""The interfaces of the log. `headrace.kafka` implements them, and `headrace.testing` does in memory.

Every method that talks to a broker raises a `BrokerError` when it cannot be reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.core.topics import Topic
from headrace.errors import HeadraceError

Header = tuple[str, bytes]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class UnplacedRecord(Protocol):
    """A record as it was read, by somebody who knows in which partition. `timestamp` is in milliseconds since the Unix epoch."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


class Record(UnplacedRecord, Protocol):
    """A record that tells where it stands."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def timestamp_type(self) -> int | None:
        """Whose clock its time is by: 0 for its writer's, 1 for that of the broker, None where it has none."""


class NewRecord(NamedTuple):
    """A record to be written. A value of None is a tombstone."""

    key: bytes
    value: bytes | None
    headers: Sequence[Header] = ()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """All in-sync replicas have the records: the first stands at `offset`, the others follow it."""

    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class AppendFailed:
    """The records of a batch were refused, or their fate is unknown: they may still land later.

    What was submitted for the same partition and was still waiting behind them has failed too: nothing overtakes.

    Attributes:
        may_land: False where the records are certainly not in the log, and will not be: they were never sent, or the brokers
            refused them before they tried.
    """

    reason: HeadraceError
    may_land: bool = True


Outcome = Acknowledged | AppendFailed


class LogWriter(Protocol):
    """Writes records to given partitions, in the order of the calls for each partition."""

    async def start(self) -> None: ...

    async def stop(self, *, timeout: float) -> None:
        """Waits at most `timeout` seconds for what is under way, then gives it up: what is left gets `AppendFailed`.

        What is submitted from then on fails too.
        """

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        """Writes one record and waits for its acknowledgement.

        As `append_all`, with one record.

        Raises:
            AppendTimeout: none came within `timeout` seconds; `may_land` says whether the record may land all the same.
            BrokerError: the brokers refused it.
            TopicMissing: there is no such topic.
        """

    async def append_all(self, records: Sequence[tuple[TopicPartition, NewRecord]], *, timeout: float) -> list[Outcome]:
        """Writes records, each for itself, and waits for their acknowledgements, at most `timeout` seconds.

        Returns what became of each, in their order. What was not on its way when the time was over, or when the caller was
        cancelled, is taken back: it fails with an `AppendTimeout`, and will not land. So does what had to wait all that time
        because the writer holds as many bytes of other appended records as it may. What is on its way may land later.
        """

    def submit(self, target: TopicPartition, records: Sequence[NewRecord], done: Callable[[Outcome], None]) -> None:
        """Hands over records without waiting. `done` is called once, in the event loop, when their fate is known.

        Records that are submitted for one partition land in the order of the calls; many calls share a request. The records
        of one call follow each other without a gap as long as they fit in a batch (512 KiB); those of a larger call may have
        other calls' records between them, and are `Acknowledged` together, after the last, with the offset of the first.

        Nothing expires, and nothing bounds how much waits: while no broker can be reached the records are kept, and it is the
        caller who bounds how many.
        """

    @property
    def failure(self) -> HeadraceError | None:
        """Why this writer writes nothing any more: an error that nobody expected, after which it must be made anew; else None.

        Everything that waited then has failed, and so does all that comes.
        """


class LogReader(Protocol):
    """Reads given partitions from given offsets, outside of any consumer group."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            TopicMissing: there is no such topic.
        """

    async def assign(self, positions: Mapping[TopicPartition, int], *, ends: Mapping[TopicPartition, int] | None = None) -> None:
        """Reads these partitions, and no others, from these offsets on.

        Partitions that were read before go on where they were if they are named with their position. An offset below the
        log's start is moved to it, and so is one above the log's end: that log was made anew.

        Args:
            ends: offsets from which on nothing of a partition is wanted. It may come all the same, but once a position is
                there nothing more is asked of the brokers for that partition.

        Raises:
            TopicMissing: a topic does not exist.
        """

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        """The next records, or nothing after `timeout` seconds. Nothing, too, while no broker can be reached."""

    async def fetch_unplaced(self, *, timeout: float) -> Mapping[TopicPartition, Sequence[UnplacedRecord]]:
        """As `fetch`, for readers of millions of records: these may come without their place, which costs less than half."""

    async def positions(self) -> Mapping[TopicPartition, int]:
        """The offset of the next record of each assigned partition, also past records that compaction removed."""

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]: ...

    async def offsets_since(self, partitions: Collection[TopicPartition], timestamp: int) -> Mapping[TopicPartition, int]:
        """The offset of the first record of each partition that is not older than `timestamp`, its end where there is none.

        Of a partition from which `delete_records` has taken something it may be the end although there is one: Kafka looks at
        what was deleted, too, as long as it has the files, and then no further.

        Args:
            timestamp: in milliseconds since the Unix epoch.
        """


@dataclass(frozen=True, slots=True)
class GroupListener:
    """What a member of a consumer group does when its partitions change. Both are called in the event loop.

    Every change of the group revokes all partitions and then assigns anew, also those that stay.

    Attributes:
        assigned: told of all partitions that this member holds from now on, which may be none. They are paused, and stand at
            the committed offsets, or at the log's start.
        revoked: told of all partitions that are given up when it returns; until then they can be committed. The whole group
            waits for it, at most the session timeout. After this member was taken for dead it is called too, late: the
            partitions may have another owner by then. Not called by `stop`.
    """

    assigned: Callable[[Collection[TopicPartition]], None]
    revoked: Callable[[Collection[TopicPartition]], Awaitable[None]]


class Committed(NamedTuple):
    """What a group has committed of a partition: the offset, and the text that went along."""

    offset: int
    metadata: str = ""


class GroupConsumer(Protocol):
    """A member of a consumer group, reading one topic. New partitions are paused until `resume` is called for them.

    `pause`, `resume` and `seek` do nothing for partitions that this member does not hold.
    """

    @property
    def member_id(self) -> str:
        """What the group knows this member by; empty while it is none."""

    async def start(self) -> None:
        """Connects and begins to join the group; does not wait for partitions.

        Raises:
            TopicMissing: there is no such topic.
        """

    async def stop(self, *, timeout: float) -> None:
        """Leaves the group, in at most `timeout` seconds and a moment. `revoked` is not called."""

    async def fetch(
        self, *, timeout: float, maximum: int, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """The next records of partitions that are not paused, or nothing after `timeout` seconds.

        With `partitions` given, of these alone: what was read ahead of the others stays where it is, which `pause` throws away.
        Must be called again and again, also when all are paused. Nothing fetched before a revocation is returned after it.
        """

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...
    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed | None]: ...

    async def commit(self, offsets: Mapping[TopicPartition, Committed], *, timeout: float = 10.0) -> bool:
        """Commits offsets of partitions that this member holds now, each with its text; others are left out.

        Tells whether all of them are committed. If not, a revocation or the timeout came between, the group has taken this
        member for dead, or a partition is not held: whoever holds it now commits it.
        """


class Log(Protocol):
    """A cluster: makes topics, writers, readers and group members."""

    async def create_topics(self, topics: Collection[Topic]) -> None:
        """Creates what is missing; "exists" is success.

        Raises:
            TopicMisconfigured: a topic exists with settings under which data could be lost.
        """

    async def delete_topics(self, names: Collection[str]) -> None:
        """Deletes topics with all their records, and returns when they are gone; those that do not exist are passed over."""

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Deletes what stands below an offset of each partition, for good; the offset becomes the log's start.

        Raises:
            BrokerError: a partition ends before its offset, or the brokers do not let this client delete.
            TopicMissing: there is no such topic.
        """

    async def topic_names(self) -> set[str]: ...

    async def partition_count(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            TopicMissing: there is no such topic.
        """

    async def committed_offsets(self, group: str) -> Mapping[TopicPartition, int]:
        """What a group has committed, whether or not it has members."""

    async def close(self) -> None: ...

    def writer(self) -> LogWriter: ...
    def reader(self) -> LogReader: ...
    def group_consumer(self, topic: str, group: str, listener: GroupListener) -> GroupConsumer: ...
