"""The compaction of a conversation and of a text, as a job does it, over a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from headrace.core.topics import Topics
from headrace.errors import ArgumentsInvalid, BrokerUnreachable, MemoryConflict, MemoryStoreError, SummaryRejected
from headrace.job_context import JobContext, JobServices
from headrace.memory import BoundMemory, TopicMemoryStore
from headrace.memory.compaction import ROUNDS, SHORT_TEXT_TOKENS
from headrace.memory.summarise import Summariser, Summary, estimate_tokens
from headrace.models import Job
from headrace.ports import ConversationRef, NewCompaction, NewEntry
from headrace.settings import MemorySettings, Settings
from headrace.testing import InMemoryLog
from headrace.tool_models import MemoryCompactionResult
from headrace.workers.memory_compaction import MemoryCompactionWorker
from support.memories import AT, Always, FirstWords
from support.stores import is_compaction

HERE = ConversationRef("default", "ann", "trip")
TOPICS = Topics("unit")
MEMORY = TOPICS.memory.name
TOKENS = 10  # tokens of each entry


@dataclass
class Bench:
    """A store, and jobs that run on it."""

    log: InMemoryLog
    store: TopicMemoryStore

    async def fill(self, count: int, *, start: int = 0) -> None:
        entries = [
            NewEntry(role="user", content=f"{number:03d} " * TOKENS, id=f"e{number}") for number in range(start, start + count)
        ]
        await self.store.append(HERE, entries)

    async def run(
        self, summariser: Summariser, *, job: str = "job-1", tenant: str = "default", budget: int = 100, **arguments: Any
    ) -> MemoryCompactionResult:
        """One attempt of a job, in a context as an engine makes it."""
        settings = Settings(memory=MemorySettings(token_budget=budget, keep_turns=2))
        worker = MemoryCompactionWorker(settings, summariser=summariser)
        wire = {"userId": "ann", "conversationId": "trip", **arguments}
        record = Job.model_validate(
            {
                "id": job,
                "tenant": tenant,
                "workerName": worker.name,
                "status": "running",
                "createdAt": AT,
                "updatedAt": AT,
                "args": wire,
            }
        )
        services = JobServices(memory=lambda running: BoundMemory(self.store, running.tenant, running.id))
        result = await worker.process_job(record, JobContext(record, services=services))
        assert isinstance(result, MemoryCompactionResult)
        return result

    async def contents(self) -> list[str]:
        return [entry.content for entry in (await self.store.read(HERE)).entries]

    def records(self) -> int:
        return len(self.log.cluster.topic_records(MEMORY))

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[TopicMemoryStore]:
        """The same memory as another process has it."""
        async with TopicMemoryStore(InMemoryLog(self.log.cluster), TOPICS) as store:
            yield store


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    log = InMemoryLog()
    async with TopicMemoryStore(log, TOPICS) as store:
        yield Bench(log, store)


async def test_the_old_part_becomes_a_summary_and_the_new_part_stays(bench: Bench) -> None:
    await bench.fill(30)
    summariser = FirstWords()
    result = await bench.run(summariser, title="Numbers")
    snapshot = await bench.store.read(HERE)
    assert [(each.role, each.name) for each in snapshot.entries[:2]] == [("summary", "Numbers"), ("user", None)]
    assert [each.id for each in snapshot.entries[1:]] == ["e25", "e26", "e27", "e28", "e29"]
    assert snapshot.tokens <= 100
    [(texts, title, tokens)] = summariser.asked
    assert (len(texts), title, tokens) == (25, "Numbers", 50)
    assert result == MemoryCompactionResult(
        entries_before=30,
        entries_after=6,
        tokens_before=300,
        tokens_after=snapshot.tokens,
        superseded=25,
        summariser="first-words",
        compacted=True,
        summary=snapshot.entries[0].content,
    )


async def test_a_memory_within_its_budget_is_left_alone(bench: Bench) -> None:
    await bench.fill(10)
    result = await bench.run(FirstWords())
    assert (result.compacted, result.entries_before, result.entries_after, result.tokens_after) == (False, 10, 10, 100)
    assert (result.superseded, result.summary) == (0, None)
    assert bench.records() == 10


async def test_an_empty_conversation_is_no_error(bench: Bench) -> None:
    result = await bench.run(FirstWords())
    assert (result.compacted, result.entries_before, result.tokens_before) == (False, 0, 0)


async def test_a_second_compaction_takes_the_first_summary_in(bench: Bench) -> None:
    await bench.fill(30)
    first = await bench.run(FirstWords())
    await bench.fill(20, start=30)
    summariser = FirstWords()
    second = await bench.run(summariser, job="job-2")
    [(texts, _, _)] = summariser.asked
    assert texts[0] == first.summary
    assert second.entries_before == first.entries_after + 20
    snapshot = await bench.store.read(HERE)
    assert [each.id for each in snapshot.summaries] == [snapshot.entries[0].id]
    assert len(snapshot.compactions) == 2


async def test_the_next_attempt_of_a_job_answers_what_the_first_one_did(bench: Bench) -> None:
    await bench.fill(30)
    first = await bench.run(FirstWords())
    await bench.fill(30, start=30)
    written = bench.records()
    summariser = FirstWords()
    assert await bench.run(summariser) == first
    assert not summariser.asked
    assert bench.records() == written


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (Summary(""), "empty"),
        (Summary("x" * 4_000), "not shorter"),
        (Summary("Error: no connection"), "error or a refusal"),
        (Summary("001 002", truncated=True), "cut off"),
    ],
)
@pytest.mark.parametrize("content", [None, "A long text. " * 100])
async def test_an_unfit_summary_fails_the_job_and_changes_nothing(
    bench: Bench, answer: Summary, what: str, content: str | None
) -> None:
    await bench.fill(30)
    before = await bench.store.read(HERE)
    with pytest.raises(SummaryRejected, match=what):
        await bench.run(Always(answer), content=content)
    assert bench.records() == 30
    assert await bench.store.read(HERE) == before


async def test_when_another_compaction_comes_first_the_job_begins_anew(bench: Bench) -> None:
    await bench.fill(30)
    summariser = FirstWords()
    ours = bench.log.hold_appends(MEMORY, matching=is_compaction)
    running = asyncio.create_task(bench.run(summariser))
    await ours.caught()
    async with bench.elsewhere() as other:
        await other.compact(HERE, NewCompaction(job_id="other", base_version=-1, supersedes=["e0", "e1"], summary="o"))
    ours.release()
    result = await running
    assert [asked[0][0] for asked in summariser.asked] == ["000 " * TOKENS, "o"]
    assert result.entries_before == 29
    assert len((await bench.store.read(HERE)).compactions) == 2


async def test_a_job_that_always_comes_second_fails_with_the_conflict(bench: Bench) -> None:
    await bench.fill(30)
    running = asyncio.create_task(bench.run(FirstWords()))
    ours = bench.log.hold_appends(MEMORY, matching=is_compaction)
    async with bench.elsewhere() as other:
        for number in range(ROUNDS):
            await ours.caught()
            version = (await other.read(HERE)).version
            await other.compact(
                HERE,
                NewCompaction(job_id=f"other-{number}", base_version=version, supersedes=[f"e{number}"], summary="other words"),
            )
            before, ours = ours, bench.log.hold_appends(MEMORY, matching=is_compaction)
            before.release()
        with pytest.raises(MemoryConflict, match="came first"):
            await running
    assert ours.count == 0
    assert await bench.store.find_compaction(HERE, "job-1") is None


async def test_a_job_reaches_only_its_own_tenant(bench: Bench) -> None:
    await bench.fill(30)
    result = await bench.run(FirstWords(), tenant="other")
    assert result.entries_before == 0


# --- a text that is given ---------------------------------------------------------------------------------------------

TEXT = "\n\n".join(f"Paragraph {number}: " + "the boat leaves at nine from the old harbour. " * 6 for number in range(10))


async def test_a_text_is_stored_and_its_summary_takes_its_place(bench: Bench) -> None:
    await bench.fill(3)
    summariser = FirstWords()
    result = await bench.run(summariser, content=TEXT, title="Boat", budget=1_000)
    snapshot = await bench.store.read(HERE)
    assert [(each.role, each.name) for each in snapshot.entries][-1] == ("summary", "Boat")
    assert [each.id for each in snapshot.entries[:-1]] == ["e0", "e1", "e2"]
    told = [entry for entry, by in await bench.store.history(HERE) if by is not None]
    assert [(each.role, each.name, each.content) for each in told] == [("tool", "Boat", TEXT.strip())]
    [(texts, title, tokens)] = summariser.asked
    assert (len(texts), title) == (10, "Boat")
    assert tokens == -(-estimate_tokens(TEXT.strip()) // 5)
    assert (result.compacted, result.entries_before, result.entries_after, result.superseded) == (True, 10, 1, 1)
    assert (result.tokens_before, result.tokens_after) == (
        estimate_tokens(TEXT.strip()),
        estimate_tokens(snapshot.entries[-1].content),
    )


async def test_a_texts_summary_is_within_the_budget_too(bench: Bench) -> None:
    summariser = FirstWords()
    await bench.run(summariser, content=TEXT, budget=60)
    assert summariser.asked[0][2] == 60


async def test_a_text_is_stored_once_however_often_its_job_runs(bench: Bench) -> None:
    first = await bench.run(FirstWords(), content=TEXT)
    written = bench.records()
    summariser = FirstWords()
    assert await bench.run(summariser, content=TEXT) == first
    assert not summariser.asked
    assert bench.records() == written == 2


async def test_a_job_that_ended_between_text_and_summary_goes_on_from_there(bench: Bench) -> None:
    bench.log.refuse_appends(MEMORY, BrokerUnreachable("gone"), matching=is_compaction)
    with pytest.raises(BrokerUnreachable, match="gone"):
        await bench.run(FirstWords(), content=TEXT)
    assert await bench.contents() == [TEXT.strip()]
    result = await bench.run(FirstWords(), content=TEXT)
    assert await bench.contents() == [result.summary]
    assert bench.records() == 2


async def test_a_short_text_is_kept_as_it_is(bench: Bench) -> None:
    text = "Ann likes the window seat."
    result = await bench.run(FirstWords(), content=text, title="Seat")
    assert (result.compacted, result.summary, result.tokens_before) == (False, text, result.tokens_after)
    assert await bench.run(FirstWords(), content=text, title="Seat") == result
    assert await bench.contents() == [text]
    longest = "x" * 4 * SHORT_TEXT_TOKENS
    assert not (await bench.run(FirstWords(), job="job-2", content=longest)).compacted
    assert (await bench.run(FirstWords(), job="job-3", content=longest + "x")).compacted


@pytest.mark.parametrize("content", ["", "  \n "])
async def test_a_text_without_words_is_no_text(bench: Bench, content: str) -> None:
    await bench.fill(30)
    assert (await bench.run(FirstWords(), content=content)).entries_before == 30


async def test_a_text_that_another_job_took_in_meanwhile_is_told_as_such(bench: Bench) -> None:
    ours = bench.log.hold_appends(MEMORY, matching=is_compaction)
    running = asyncio.create_task(bench.run(FirstWords(), content=TEXT))
    await ours.caught()
    async with bench.elsewhere() as other:
        await other.compact(HERE, NewCompaction(job_id="o", base_version=-1, supersedes=["job-1-1"], summary="other"))
    ours.release()
    with pytest.raises(MemoryStoreError, match="Another job took the text"):
        await running
    assert await bench.contents() == ["other"]


# --- the memory of a job ----------------------------------------------------------------------------------------------


async def test_entries_of_a_job_have_the_same_ids_in_every_attempt(bench: Bench) -> None:
    for _ in range(2):
        memory = BoundMemory(bench.store, "default", "job-9")
        await memory.append(
            "ann", "trip", [NewEntry(role="assistant", content="a"), NewEntry(role="user", content="b", id="own")]
        )
        await memory.append("ann", "trip", [NewEntry(role="assistant", content="c")])
    snapshot = await BoundMemory(bench.store, "default", "job-9").read("ann", "trip")
    assert [each.id for each in snapshot.entries] == ["job-9-1", "own", "job-9-2"]


def test_the_worker_is_offered_to_agents_and_orders_its_jobs_by_conversation() -> None:
    definition = MemoryCompactionWorker(Settings(), summariser=FirstWords()).definition()
    assert (definition.name, definition.kind, definition.category) == ("memory_compaction_worker", "memory_compaction", "memory")
    assert definition.order_by == ["userId", "conversationId"]
    assert set(definition.order_by) <= set(definition.arguments_schema["properties"])


async def test_arguments_that_the_worker_does_not_know_are_refused(bench: Bench) -> None:
    with pytest.raises(ArgumentsInvalid, match="speed"):
        await bench.run(FirstWords(), speed=3)
