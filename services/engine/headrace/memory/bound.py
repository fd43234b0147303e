"""The memory as one job reaches it: bound to the job's tenant and id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.ports import Appended, ConversationRef, MemorySnapshot, MemoryStore, NewCompaction, NewEntry, StoredCompaction


class BoundMemory:
    """The `ConversationMemory` of one attempt of a job.

    Attributes:
        tenant: whose conversations alone can be reached.
        job_id: makes everything idempotent: what one attempt has written, the next one does not write again.
    """

    def __init__(self, store: MemoryStore, tenant: str, job_id: str) -> None:
        self.tenant = tenant
        self.job_id = job_id
        self._store = store
        self._appended = 0

    async def read(self, user_id: str, conversation_id: str) -> MemorySnapshot:
        """The memory with all that was acknowledged before the call, by whomever."""
        return await self._store.read(self._ref(user_id, conversation_id))

    async def append(self, user_id: str, conversation_id: str, entries: Sequence[NewEntry]) -> Appended:
        """Adds entries. Those without an id get one from the job's id and their count, the same in every attempt.

        Of an entry that an earlier attempt has added, the text of that attempt stands.

        Raises:
            ConversationInvalid: an entry cannot be stored; none was.
        """
        named: list[NewEntry] = []
        for entry in entries:
            if entry.id is None:
                self._appended += 1
                entry = replace(entry, id=f"{self.job_id}-{self._appended}")
            named.append(entry)
        return await self._store.append(self._ref(user_id, conversation_id), named)

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
        compaction = NewCompaction(
            job_id=self.job_id, base_version=base_version, supersedes=supersedes, summary=summary, title=title
        )
        return await self._store.compact(self._ref(user_id, conversation_id), compaction)

    async def find_compaction(self, user_id: str, conversation_id: str) -> StoredCompaction | None:
        """What this job has done to the conversation already, or None."""
        return await self._store.find_compaction(self._ref(user_id, conversation_id), self.job_id)

    def _ref(self, user_id: str, conversation_id: str) -> ConversationRef:
        return ConversationRef(self.tenant, user_id, conversation_id)
