"""The memory of conversations as it was when a job ran, with what the job's replay has written since, which nobody else sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from headrace.codec import decode
from headrace.core.memory import AppliedCompaction
from headrace.errors import MemoryConflict, MemoryStoreError, NotRecorded
from headrace.memory.records import compaction_record, validated
from headrace.memory.summarise.tokens import total_tokens
from headrace.models import MemoryCompaction, MemoryEntry
from headrace.ports import Appended, ConversationRef, MemorySnapshot, NewCompaction, NewEntry, StoredCompaction
from headrace.replay.rerunning.effects import Effects, MemoryAppended, MemoryCompacted

ReadPast = Callable[[ConversationRef], Awaitable[MemorySnapshot]]
"""Reads a conversation's memory as it was."""


class PastMemory:
    """The `MemoryStore` of one replayed attempt.

    What was superseded by then is not known to it: an entry with the id of such a one is added again.

    Args:
        read_past: asked once for each conversation.
        effects: what is written goes there, and nowhere else.
    """

    def __init__(self, read_past: ReadPast, effects: Effects) -> None:
        self._read_past = read_past
        self._effects = effects
        self._reading = asyncio.Lock()
        self._now: dict[ConversationRef, MemorySnapshot] = {}
        self._summaries: dict[str, StoredCompaction] = {}

    async def read(self, conversation: ConversationRef) -> MemorySnapshot:
        """The memory as it was when the attempt began, with what it has written since.

        Raises:
            NotRecorded: nothing tells what it was.
        """
        async with self._reading:
            if conversation not in self._now:
                try:
                    self._now[conversation] = await self._read_past(conversation)
                except NotRecorded:
                    if conversation not in self._effects.memory_unknown:
                        self._effects.memory_unknown.append(conversation)
                    raise
        return self._now[conversation]

    async def append(self, conversation: ConversationRef, entries: Sequence[NewEntry]) -> Appended:
        """Adds entries for this attempt. Raises ConversationInvalid as a live one does."""
        new = validated(conversation, entries)
        try:
            before = await self.read(conversation)
        except NotRecorded:
            before = None  # to add to what is not known is told all the same
        known = set() if before is None else {entry.id for entry in before.entries}
        added: list[MemoryEntry] = []
        for entry in new:
            if entry.id not in known:
                known.add(entry.id)
                added.append(entry)
        if added:
            if before is not None:
                now = (*before.entries, *added)
                self._now[conversation] = replace(before, entries=now, tokens=before.tokens + total_tokens(added))
            self._effects.memory.append(MemoryAppended(conversation, [(entry.id, entry.content) for entry in added]))
        return Appended(tuple(entry.id for entry in new), len(added))

    async def compact(self, conversation: ConversationRef, compaction: NewCompaction) -> StoredCompaction:
        """Puts a summary in the place of entries for this attempt. Raises MemoryConflict, MemoryStoreError as a live one does."""
        written = decode(MemoryCompaction, compaction_record(conversation, compaction).value)
        before = await self.read(conversation)
        if (done := await self.find_compaction(conversation, compaction.job_id)) is not None:
            return done
        _check(before, compaction)
        superseded = set(written.supersedes)
        summary = MemoryEntry(
            **conversation._asdict(),
            id=written.id,
            role="summary",
            name=written.title,
            content=written.summary,
            at=written.at,
        )
        place = next(number for number, entry in enumerate(before.entries) if entry.id in superseded)
        left = [entry for entry in before.entries[place:] if entry.id not in superseded]
        entries = (*before.entries[:place], summary, *left)
        applied = AppliedCompaction(
            id=written.id,
            job_id=compaction.job_id,
            version=before.version + 1,  # any that is greater: the log has given it none
            superseded=len(superseded),
            entries_before=len(before.entries),
            entries_after=len(entries),
            weight_before=before.tokens,
            weight_after=total_tokens(entries),
        )
        self._now[conversation] = MemorySnapshot(applied.version, entries, applied.weight_after, (*before.compactions, applied))
        self._effects.memory.append(MemoryCompacted(conversation, written.supersedes, written.summary, written.title))
        done = self._summaries[written.id] = StoredCompaction(applied, written.summary, written.title)
        return done

    async def find_compaction(self, conversation: ConversationRef, job_id: str) -> StoredCompaction | None:
        """What the job has done to the conversation already, in this attempt or before it.

        Raises:
            MemoryStoreError: it has, and its summary was summarised itself before the attempt: nothing tells its text.
        """
        snapshot = await self.read(conversation)
        applied = next((each for each in snapshot.compactions if each.job_id == job_id), None)
        if applied is None:
            return None
        if (known := self._summaries.get(applied.id)) is not None:
            return known
        summary = next((entry for entry in snapshot.entries if entry.id == applied.id), None)
        if summary is None:
            raise MemoryStoreError("The job's own summary was summarised before this attempt began: its text is not at hand.")
        return StoredCompaction(applied, summary.content, summary.name)


def _check(before: MemorySnapshot, compaction: NewCompaction) -> None:
    """Raises what a live store does where the request is of another memory than there is."""
    if compaction.base_version != before.version:
        raise MemoryConflict(
            f"The memory was compacted meanwhile (version {before.version}, not {compaction.base_version}): read it again and "
            "repeat."
        )
    live = {entry.id for entry in before.entries}
    if foreign := [entry_id for entry_id in compaction.supersedes if entry_id not in live]:
        raise MemoryStoreError(
            f"{len(foreign)} of the superseded ids are no live entries of the conversation, for example {foreign[0]!r}."
        )
