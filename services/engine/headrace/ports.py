"""The interfaces behind which all input and output stands. `headrace.kafka` implements those of the log.

Every method that talks to a broker raises a `BrokerError` when it cannot be reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from headrace.core.memory import AppliedCompaction
from headrace.core.topics import Topic
from headrace.errors import HeadraceError
from headrace.models import MemoryEntry, MemoryRole

Header = tuple[str, bytes]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Record(Protocol):
    """A record as it was read. `timestamp` is in milliseconds since the Unix epoch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
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

    async def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions, and no others, from these offsets on.

        Partitions that were read before go on where they were if they are named with their position. An offset below the
        log's start is moved to it, and so is one above the log's end: that log was made anew.

        Raises:
            TopicMissing: a topic does not exist.
        """

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        """The next records, or nothing after `timeout` seconds. Nothing, too, while no broker can be reached."""

    async def positions(self) -> Mapping[TopicPartition, int]:
        """The offset of the next record of each assigned partition, also past records that compaction removed."""

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]: ...


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


class ConversationRef(NamedTuple):
    """Which conversation, and whose."""

    tenant: str
    user_id: str
    conversation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """Something to be put into a conversation's memory.

    Attributes:
        name: who said it, where the role does not tell.
        id: names it within its conversation; an entry whose id is there already is not added again. Made up when None.
        at: when it was said; now when None. The order is that of the log, not of these times.
    """

    role: MemoryRole
    content: str
    name: str | None = None
    id: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: the entries' ids in the order given, and how many of them were not there before."""

    ids: tuple[str, ...]
    added: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCompaction:
    """A summary that is to take the place of entries.

    Attributes:
        base_version: the version of the snapshot that was summarised.
        supersedes: ids of entries and summaries of that snapshot.
        title: by whose name the summary is read.
    """

    job_id: str
    base_version: int
    supersedes: Sequence[str]
    summary: str
    title: str | None = None


@dataclass(frozen=True, slots=True)
class StoredCompaction:
    """A compaction that holds: what it did to the conversation, and its text."""

    applied: AppliedCompaction
    summary: str
    title: str | None


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """A conversation's memory as it is read now.

    Attributes:
        version: the offset of the last compaction that holds; -1 before the first.
        entries: in reading order. A summary has the role `summary`, its title as `name`, and stands where the entries stood
            that it replaced.
        tokens: estimated, of all entries together.
        compactions: those that hold, oldest first.
    """

    version: int
    entries: tuple[MemoryEntry, ...]
    tokens: int
    compactions: tuple[AppliedCompaction, ...]

    @property
    def summaries(self) -> tuple[MemoryEntry, ...]:
        """The entries that are summaries."""
        return tuple(entry for entry in self.entries if entry.role == "summary")


class MemoryStore(Protocol):
    """The memory of all conversations. Entries are superseded, never changed or deleted.

    Every method raises MemoryStoreError when the store was stopped, and BrokerError when the broker cannot be used.
    """

    async def append(self, conversation: ConversationRef, entries: Sequence[NewEntry]) -> Appended:
        """Adds entries in this order, and returns when a read will show them.

        Raises:
            ConversationInvalid: an entry cannot be stored; none was.
            BrokerError: not all entries were acknowledged in time, and some may land later. The same call with the ids given
                adds what is missing.
        """

    async def read(self, conversation: ConversationRef) -> MemorySnapshot:
        """The memory with all that was acknowledged before the call, by whomever. A conversation never heard of is empty."""

    async def compact(self, conversation: ConversationRef, compaction: NewCompaction) -> StoredCompaction:
        """Puts a summary in the place of entries, at once or not at all.

        A job compacts a conversation once: called again for the same job, it answers what was done the first time.

        Raises:
            MemoryConflict: another compaction came first, so that the summary is of something that is no longer read.
            MemoryStoreError: the request makes no sense; the message says why.
            BrokerError: no acknowledgement came in time. The record may land later; the same call answers what became of it.
        """

    async def find_compaction(self, conversation: ConversationRef, job_id: str) -> StoredCompaction | None:
        """What a job has done to the conversation already, or None."""


class ConversationMemory(Protocol):
    """The memory of the conversations of a job's tenant, as the job reaches it through its context.

    Everything is idempotent by the job's id: a second attempt of a job adds nothing twice. Every method raises BrokerError
    when the broker cannot be used, or did not acknowledge in time.
    """

    async def read(self, user_id: str, conversation_id: str) -> MemorySnapshot:
        """The memory with all that was acknowledged before the call, by whomever."""

    async def append(self, user_id: str, conversation_id: str, entries: Sequence[NewEntry]) -> Appended:
        """Adds entries. Those without an id get one from the job's id and their count, the same in every attempt.

        Raises:
            ConversationInvalid: an entry cannot be stored; none was.
        """

    async def compact(
        self,
        user_id: str,
        conversation_id: str,
        *,
        base_version: int,
        supersedes: Sequence[str],
        summary: str,
        title: str | None = None,
    ) -> StoredCompaction:
        """Puts a summary in the place of entries, once for this job.

        Raises:
            MemoryConflict: another compaction came first: read again.
            MemoryStoreError: the request makes no sense; the message says why.
        """

    async def find_compaction(self, user_id: str, conversation_id: str) -> StoredCompaction | None:
        """What this job has done to the conversation already, or None."""


class Log(Protocol):
    """A cluster: makes topics, writers, readers and group members."""

    async def create_topics(self, topics: Collection[Topic]) -> None:
        """Creates what is missing; "exists" is success.

        Raises:
            TopicMisconfigured: a topic exists with settings under which data could be lost.
        """

    async def delete_topics(self, names: Collection[str]) -> None:
        """Deletes topics with all their records, and returns when they are gone; those that do not exist are passed over."""

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
