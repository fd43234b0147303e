"""The compaction of a conversation's memory, or of a text that is given: read, summarise, check, write."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from headrace.errors import MemoryConflict, MemoryStoreError
from headrace.memory.summarise.base import Summariser
from headrace.memory.summarise.guards import check_summary
from headrace.memory.summarise.tokens import estimate_tokens
from headrace.memory.window import WindowPolicy, divide
from headrace.models import (
    MemoryEntry,
)
from headrace.ports import ConversationMemory, MemorySnapshot, NewEntry, StoredCompaction
from headrace.tool_models import (
    MemoryCompactionArguments,
    MemoryCompactionResult,
)

ResultT = TypeVar("ResultT")

ROUNDS = 5
"""How often a compaction is begun anew when another one came first."""

SHORT_TEXT_TOKENS = 100
"""A text up to this size is stored as it is: a summary of it would save nothing."""

CONTENT_SHARE = 0.2
"""The part of a text's tokens that its summary may take."""

_LEAST_SUMMARY_TOKENS = 50
_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True, slots=True)
class Compactor:
    """Compacts memory for one job.

    Attributes:
        memory: as the job's context gives it. Nothing is read or written elsewhere.
        now: the job's clock.
    """

    memory: ConversationMemory
    summariser: Summariser
    policy: WindowPolicy
    now: Callable[[], datetime]

    async def compact(self, arguments: MemoryCompactionArguments) -> MemoryCompactionResult:
        """Compacts what the arguments name, once for the job however often it runs.

        Raises:
            SummaryRejected: the summary is unfit; nothing was changed.
            MemoryConflict: other compactions of the conversation came first again and again; nothing was changed.
        """
        if arguments.content is not None and arguments.content.strip():
            return await self._compact_content(arguments, arguments.content.strip())
        return await self._compact_conversation(arguments)

    # --- a conversation's memory ---

    async def _compact_conversation(self, arguments: MemoryCompactionArguments) -> MemoryCompactionResult:
        address = (arguments.user_id, arguments.conversation_id)
        done = await self.memory.find_compaction(*address)
        if done is None:
            done = await _repeated(lambda: self._compact_window(arguments))
        return self._unchanged(await self.memory.read(*address)) if done is None else self._result(done)

    async def _compact_window(self, arguments: MemoryCompactionArguments) -> StoredCompaction | None:
        address = (arguments.user_id, arguments.conversation_id)
        snapshot = await self.memory.read(*address)
        window = divide(snapshot.entries, self.policy)
        if window is None:
            return None
        text = await self._summary(window.old, arguments.title, window.summary_tokens)
        return await self.memory.compact(
            *address,
            base_version=snapshot.version,
            supersedes=[entry.id for entry in window.old],
            summary=text,
            title=arguments.title,
        )

    async def _summary(self, sources: Sequence[MemoryEntry], title: str | None, token_budget: int) -> str:
        summary = await self.summariser.summarise(sources, title=title, token_budget=token_budget)
        return check_summary(summary, sources, title=title)

    def _result(self, done: StoredCompaction) -> MemoryCompactionResult:
        applied = done.applied
        return MemoryCompactionResult(
            entries_before=applied.entries_before,
            entries_after=applied.entries_after,
            tokens_before=applied.weight_before,
            tokens_after=applied.weight_after,
            superseded=applied.superseded,
            summariser=self.summariser.name,
            compacted=True,
            summary=done.summary,
        )

    def _unchanged(self, snapshot: MemorySnapshot) -> MemoryCompactionResult:
        return MemoryCompactionResult(
            entries_before=len(snapshot.entries),
            entries_after=len(snapshot.entries),
            tokens_before=snapshot.tokens,
            tokens_after=snapshot.tokens,
            superseded=0,
            summariser=self.summariser.name,
            compacted=False,
        )

    # --- a text that is given ---

    async def _compact_content(self, arguments: MemoryCompactionArguments, content: str) -> MemoryCompactionResult:
        """The text becomes one entry, and its summary takes the entry's place: nobody who asks for it later has lost it.

        The summary is made first, so that an unfit one leaves no trace.
        """
        address = (arguments.user_id, arguments.conversation_id)
        paragraphs = _paragraphs(arguments, content, self.now())
        done = await self.memory.find_compaction(*address)
        if done is None:
            tokens = estimate_tokens(content)
            if tokens <= SHORT_TEXT_TOKENS:
                await self._append_content(arguments, content)
                return self._content_result(content, paragraphs, content, compacted=False)
            allowed = min(self.policy.token_budget, max(_LEAST_SUMMARY_TOKENS, math.ceil(tokens * CONTENT_SHARE)))
            text = await self._summary(paragraphs, arguments.title, allowed)
            entry_id = await self._append_content(arguments, content)
            done = await _repeated(lambda: self._replace(arguments, entry_id, text))
        return self._content_result(content, paragraphs, done.summary, compacted=True)

    async def _append_content(self, arguments: MemoryCompactionArguments, content: str) -> str:
        entry = NewEntry(role="tool", name=arguments.title or "content", content=content, at=self.now())
        appended = await self.memory.append(arguments.user_id, arguments.conversation_id, [entry])
        return appended.ids[0]

    async def _replace(self, arguments: MemoryCompactionArguments, entry_id: str, text: str) -> StoredCompaction:
        address = (arguments.user_id, arguments.conversation_id)
        snapshot = await self.memory.read(*address)
        if all(entry.id != entry_id for entry in snapshot.entries) and not await self.memory.find_compaction(*address):
            raise MemoryStoreError("Another job took the text into its summary before this one's was stored; nothing is lost.")
        return await self.memory.compact(
            *address, base_version=snapshot.version, supersedes=[entry_id], summary=text, title=arguments.title
        )

    def _content_result(
        self, content: str, paragraphs: Sequence[MemoryEntry], stored: str, *, compacted: bool
    ) -> MemoryCompactionResult:
        return MemoryCompactionResult(
            entries_before=len(paragraphs),
            entries_after=1,
            tokens_before=estimate_tokens(content),
            tokens_after=estimate_tokens(stored),
            superseded=1 if compacted else 0,
            summariser=self.summariser.name,
            compacted=compacted,
            summary=stored,
        )


async def _repeated(attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Runs `attempt`, which begins with a fresh read, until no other compaction comes first."""
    for _ in range(ROUNDS - 1):
        try:
            return await attempt()
        except MemoryConflict:
            continue
    return await attempt()


def _paragraphs(arguments: MemoryCompactionArguments, content: str, at: datetime) -> list[MemoryEntry]:
    """The text as entries for the summariser, one for each paragraph. They are not stored."""
    return [
        MemoryEntry(
            user_id=arguments.user_id,
            conversation_id=arguments.conversation_id,
            id=f"paragraph-{number}",
            role="tool",
            name=arguments.title,
            content=paragraph.strip(),
            at=at,
        )
        for number, paragraph in enumerate(_PARAGRAPHS.split(content), start=1)
    ]
