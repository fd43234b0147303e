"""The worker that compacts the memory of a conversation, or a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.job_context import JobContext
from headrace.memory.compaction import Compactor
from headrace.memory.summarise import AsksOutside, Closable, Summariser, Summary, summariser_from
from headrace.memory.window import WindowPolicy
from headrace.models import MemoryEntry
from headrace.settings import Settings, load_settings
from headrace.tool_models import MemoryCompactionArguments, MemoryCompactionResult


class MemoryCompactionWorker(AbstractWorker[MemoryCompactionArguments]):
    """Summarises what is old in a conversation's memory. It reaches memory only through its job's context.

    Args:
        settings: the token budget, the turns to keep and the summariser; those of the environment when None.
        summariser: in place of the one that the settings name. If it has an `async close()`, the worker calls it in the end.
    """

    name = "memory_compaction_worker"
    description = (
        "Cleans up a conversation's memory: summarises what is old, keeps the newest turns as they are, and stays within the "
        "token budget. With a text given, it stores a summary of that text in the conversation's memory."
    )
    category = "memory"
    kind = "memory_compaction"
    order_by = ("userId", "conversationId")

    def __init__(self, settings: Settings | None = None, *, summariser: Summariser | None = None) -> None:
        settings = settings or load_settings()
        self._policy = WindowPolicy(token_budget=settings.memory.token_budget, keep_turns=settings.memory.keep_turns)
        # Made at the start, so that wrong settings stop the engine and not every job.
        self._summariser = summariser or summariser_from(settings)

    async def run(self, args: MemoryCompactionArguments, ctx: JobContext) -> MemoryCompactionResult:
        """Compacts what the arguments name.

        Raises:
            SummaryRejected: the summary was empty, not shorter, cut off or an error; nothing was changed.
            MemoryConflict: other compactions of the conversation came first again and again; nothing was changed.
        """
        summariser = self._summariser
        if isinstance(summariser, AsksOutside) and summariser.asks_outside:
            summariser = _Recorded(summariser, ctx)
        compactor = Compactor(memory=ctx.memory, summariser=summariser, policy=self._policy, now=ctx.now)
        result = await compactor.compact(args)
        ctx.logger.info(
            "Memory of %s/%s: %d entries of %d tokens became %d of %d",
            args.user_id,
            args.conversation_id,
            result.entries_before,
            result.tokens_before,
            result.entries_after,
            result.tokens_after,
        )
        return result

    async def close(self) -> None:
        """Closes its summariser, if that holds anything open."""
        if isinstance(self._summariser, Closable):
            await self._summariser.close()


class _Recorded:
    """A summariser whose summaries are recorded for replays of the job.

    No attempt takes those of an earlier one: meanwhile there may be more to be summarised.
    """

    def __init__(self, summariser: Summariser, ctx: JobContext) -> None:
        self._summariser = summariser
        self._ctx = ctx

    @property
    def name(self) -> str:
        return self._summariser.name

    async def summarise(self, texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> Summary:
        async def ask() -> dict[str, Any]:
            return asdict(await self._summariser.summarise(texts, title=title, token_budget=token_budget))

        return Summary(**await self._ctx.recorded("summary", ask))
