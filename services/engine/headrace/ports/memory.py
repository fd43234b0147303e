"""The interfaces of conversations' memory. `headrace.memory` implements them over the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from headrace.core.memory import AppliedCompaction
from headrace.models import MemoryEntry, MemoryRole


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
