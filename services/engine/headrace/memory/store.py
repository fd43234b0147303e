"""The memory of conversations in the topic `memory`, read through SQLite tables that this process keeps."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from headrace.core.memory import Conversation
from headrace.core.partitions import key_partition
from headrace.core.topics import Topics
from headrace.errors import BrokerUnreachable, ConversationInvalid, MemoryConflict, MemoryStoreError
from headrace.memory import tables
from headrace.memory.follower import PartitionFollower
from headrace.memory.records import compaction_record, entry_records, validated
from headrace.models import MemoryEntry
from headrace.ports import (
    Appended,
    AppendFailed,
    ConversationRef,
    Log,
    LogWriter,
    MemorySnapshot,
    NewCompaction,
    NewEntry,
    NewRecord,
    Outcome,
    StoredCompaction,
    TopicPartition,
)
from headrace.sandbox_refusal import provide_topics, refuse_sandbox
from headrace.views.database import Database

ResultT = TypeVar("ResultT")

_RECORDS_AT_ONCE: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How a store works.

    Attributes:
        view_path: the file of its tables, kept for the next start. None: a temporary one, removed by `stop`. A process that
            finds it taken uses a numbered file beside it.
        write_seconds: how long to wait for an acknowledgement.
        read_seconds: how long reading to the end of a conversation's partition may take.
        stop_seconds: how long `stop` waits for writes under way.
    """

    view_path: Path | None = None
    write_seconds: float = 15.0
    read_seconds: float = 60.0
    stop_seconds: float = 5.0


class TopicMemoryStore:
    """The `MemoryStore` of a cluster. Any number of processes may use one conversation at the same time.

    Records are only ever added, each under a key of its own; what they mean is decided by their order in the log. A write is
    answered when this process has read its own record back, so that the answer is what every other reader sees too.
    """

    def __init__(self, log: Log, topics: Topics, options: StoreOptions | None = None) -> None:
        self._log = log
        self._topics = topics
        self._topic = topics.memory
        self._options = options or StoreOptions()
        self._resources = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._started = False
        self._stopped = False
        self._partitions = 0
        self._writer: LogWriter
        self._database: Database
        self._follower: PartitionFollower

    async def start(self) -> None:
        """Creates the topic if there is none, connects and opens the tables. The first use does so too, if nobody did before.

        Raises:
            MemoryStoreError: the store was stopped, which is for good.
            BrokerError: the broker cannot be used.
            SandboxUnknown: the namespace is named like a replay's sandbox, and there is none of that name.
            ConfigurationError: the topic exists with settings that would lose data, or the file cannot be made.
        """
        async with self._starting:
            self._check_open()
            if not self._started:
                await self._connect()
                self._started = True

    async def _connect(self) -> None:
        async with AsyncExitStack() as resources:
            await provide_topics(self._log, self._topics, [self._topic])
            self._partitions = await self._log.partition_count(self._topic.name)
            self._database = await Database.open(self._view_path(resources), tables.SCHEMA, identity=self._topic.name)
            resources.push_async_callback(self._database.close)
            self._follower = PartitionFollower(
                self._log, self._database, partitions=self._partitions, timeout=self._options.read_seconds
            )
            await self._follower.start()
            resources.push_async_callback(self._follower.stop)
            self._writer = self._log.writer()
            await self._writer.start()
            resources.push_async_callback(self._writer.stop, timeout=self._options.stop_seconds)
            self._resources = resources.pop_all()

    async def stop(self) -> None:
        """Ends what is under way, and closes the tables. What comes later is refused: nobody would close it again."""
        self._stopped = True
        # A first use may be connecting: what it opens is closed too.
        async with self._starting:
            await self._resources.aclose()

    def _check_open(self) -> None:
        if self._stopped:
            raise MemoryStoreError("The memory was closed: its engine has stopped, or its `async with` has ended.")

    async def __aenter__(self) -> TopicMemoryStore:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _view_path(self, resources: AsyncExitStack) -> Path:
        if self._options.view_path is not None:
            return self._options.view_path
        directory = tempfile.mkdtemp(prefix="headrace-memory-")
        resources.callback(shutil.rmtree, directory, ignore_errors=True)
        return Path(directory) / "memory.sqlite"

    # --- the MemoryStore ---

    async def append(self, conversation: ConversationRef, entries: Sequence[NewEntry], *, same: bool = False) -> Appended:
        """Adds entries in this order, and returns when a read will show them. What has an id that is there is not added.

        Args:
            same: an id that is there must have the same role and content; else it does not matter what it has.

        Raises:
            ConversationInvalid: an entry cannot be stored, or is not the same. None was added, if it is not that of a process
                that wrote at the same time.
            NamespaceIsSandbox: the memory would go with the sandbox of a replay. None was added.
            BrokerError: not all entries were acknowledged in time, and some may land later. The same call with the ids given
                adds what is missing.
        """
        refuse_sandbox(self._topics)
        # In a thread: for tens of thousands of entries it takes as long as an event loop must not be held up.
        new = await asyncio.to_thread(validated, conversation, entries)
        ids = tuple(entry.id for entry in new)
        known = await self._read(conversation, lambda connection: tables.first_keys(connection, conversation, ids))
        if same and known:
            differing = await self._database.read(lambda connection: tables.differing(connection, conversation, new))
            _check_same(differing, "Nothing was added.")
        records = await asyncio.to_thread(entry_records, conversation, new, known)
        if not records:
            return Appended(ids, 0)
        await self._submit(self._partition(conversation), list(records.values()))
        # Another process may have added the same ids meanwhile: whose record stands first is what counts.
        first = await self._read(conversation, lambda connection: tables.first_keys(connection, conversation, records))
        if same:
            differing = await self._database.read(lambda connection: tables.differing(connection, conversation, new))
            _check_same(differing, "It came from another process meanwhile; turns that were not there were added.")
        return Appended(ids, sum(first.get(entry_id) == record.key for entry_id, record in records.items()))

    async def read(self, conversation: ConversationRef) -> MemorySnapshot:
        """The memory with all that was acknowledged before the call, by whomever.

        Raises:
            BrokerError: the conversation's partition could not be read to its end.
        """
        return await self._read(conversation, lambda connection: tables.snapshot(connection, conversation))

    async def history(self, conversation: ConversationRef) -> list[tuple[MemoryEntry, str | None]]:
        """All that was ever part of the memory, each with the id of the summary that replaced it and stands after it."""
        return await self._read(conversation, lambda connection: tables.history(connection, conversation))

    async def compact(self, conversation: ConversationRef, compaction: NewCompaction) -> StoredCompaction:
        """Puts a summary in the place of entries, at once or not at all, and once for each job.

        Raises:
            MemoryConflict: another compaction came first.
            MemoryStoreError: the request makes no sense; the message says why.
            BrokerError: no acknowledgement came in time. The record may land later; the same call answers what became of it.
        """
        record = compaction_record(conversation, compaction)
        job_id = compaction.job_id
        folded, done = await self._read(conversation, lambda connection: _job_in(connection, conversation, job_id))
        if done is not None:
            return done
        _check_base(folded, compaction)
        partition = self._partition(conversation)
        try:
            written = await self._writer.append(partition, record, timeout=self._options.write_seconds)
        except TimeoutError:
            raise BrokerUnreachable(self._unanswered()) from None
        await self._follower.catch_up(partition, written.offset + 1)
        _, done = await self._database.read(lambda connection: _job_in(connection, conversation, job_id))
        if done is None:
            raise MemoryConflict(
                f"Another compaction of conversation {conversation.conversation_id} came first: read it again and repeat."
            )
        return done

    async def find_compaction(self, conversation: ConversationRef, job_id: str) -> StoredCompaction | None:
        """What a job has done to the conversation already, or None."""
        _, done = await self._read(conversation, lambda connection: _job_in(connection, conversation, job_id))
        return done

    # --- reading and writing ---

    def _partition(self, conversation: ConversationRef) -> TopicPartition:
        return TopicPartition(self._topic.name, key_partition(tables.key_of(conversation), self._partitions))

    async def _read(self, conversation: ConversationRef, work: Callable[..., ResultT]) -> ResultT:
        if not self._started:
            await self.start()
        # Also after that: the store may have been stopped while it connected.
        self._check_open()
        await self._follower.catch_up(self._partition(conversation))
        return await self._database.read(work)

    async def _submit(self, partition: TopicPartition, records: Sequence[NewRecord]) -> None:
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            settled: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._writer.submit(partition, records[start : start + _RECORDS_AT_ONCE], partial(_settle, settled))
            try:
                async with asyncio.timeout(self._options.write_seconds):
                    outcome = await settled
            except TimeoutError:
                raise BrokerUnreachable(self._unanswered()) from None
            if isinstance(outcome, AppendFailed):
                raise outcome.reason

    def _unanswered(self) -> str:
        return (
            f"{self._topic.name} gave no acknowledgement within {self._options.write_seconds:g} s. What was written may land "
            "later; repeating the call with the same ids does no harm."
        )


def _job_in(
    connection: sqlite3.Connection, conversation: ConversationRef, job_id: str
) -> tuple[Conversation, StoredCompaction | None]:
    folded = tables.fold(connection, conversation)
    return folded, tables.compaction_of(connection, conversation, folded, job_id)


def _settle(settled: asyncio.Future[Outcome], outcome: Outcome) -> None:
    # The answer may come after the one who waited has given up.
    if not settled.done():
        settled.set_result(outcome)


def _check_same(differing: Sequence[str], outcome: str) -> None:
    if differing:
        others = f", and so are {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ConversationInvalid(
            f"Turn {differing[0]} is in the memory already, with another role or text{others}. {outcome} Give the conversation "
            'another name (--conversation), or these turns numbers of their own ("turn").'
        )


def _check_base(conversation: Conversation, compaction: NewCompaction) -> None:
    """What can be known before the write. What happens between this and the write, the order of the log decides."""
    if compaction.base_version != conversation.version:
        raise MemoryConflict(
            f"The memory was compacted meanwhile (version {conversation.version}, not {compaction.base_version}): read it again "
            "and repeat."
        )
    foreign = [entry_id for entry_id in compaction.supersedes if not conversation.is_live(entry_id)]
    if foreign:
        raise MemoryStoreError(
            f"{len(foreign)} of the superseded ids are no live entries of the conversation, for example {foreign[0]!r}."
        )
