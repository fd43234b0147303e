"""The memory that a replayed job sees is that of its time, and what it writes there is seen by itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ConversationInvalid, MemoryCompactionWorker, MemoryConflict, MemoryEntry, MemoryStoreError, NewEntry
from headrace.core.comparison import Verdict
from headrace.core.topics import Topics
from headrace.memory.bound import BoundMemory
from headrace.memory.store import TopicMemoryStore
from headrace.memory.summarise import Summary
from headrace.ports import ConversationRef, MemorySnapshot, MemoryStore
from headrace.replay.rerunning.effects import Effects, MemoryAppended, MemoryCompacted
from headrace.replay.rerunning.past_memory import PastMemory
from headrace.replay.rerunning.rerun import Rerunner
from headrace.settings import MemorySettings, Settings
from headrace.testing import InMemoryLog
from support.histories import STARTED_AT, InMemoryHistory, recorded_job

HERE = ConversationRef("acme", "ann", "trip")
TOPICS = Topics("unit")
AT = datetime(2026, 3, 2, 9, tzinfo=UTC)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from([*"abcdef", None]), min_size=1, max_size=3)),
        st.tuples(st.just("compact"), st.lists(st.sampled_from("abcdefx"), min_size=1, max_size=3, unique=True)),
        st.tuples(st.just("compact-late"), st.just(["a"])),
        st.tuples(st.just("find"), st.just([])),
    ),
    max_size=8,
)


async def past_of(store: MemoryStore) -> tuple[PastMemory, Effects]:
    snapshot, effects = await store.read(HERE), Effects()

    async def read(conversation: ConversationRef) -> MemorySnapshot:
        return snapshot if conversation == HERE else MemorySnapshot(-1, (), 0, ())

    return PastMemory(read, effects), effects


async def step(memory: BoundMemory, what: str, ids: Sequence[str | None]) -> Any:
    """Does one thing; what came of it, without what the log alone gives: versions and ids of summaries."""
    try:
        if what == "append":
            entries = [NewEntry(role="user", content=f"text of {each}", id=each) for each in ids]
            return await memory.append("ann", "trip", entries)
        if what == "find":
            found = await memory.find_compaction("ann", "trip")
        else:
            snapshot = await memory.read("ann", "trip")
            version = snapshot.version - (what == "compact-late")
            wanted = [str(each) for each in ids]
            found = await memory.compact("ann", "trip", base_version=version, supersedes=wanted, summary="short", title="t")
    except (MemoryConflict, MemoryStoreError) as error:
        return type(error)
    if found is None:
        return None
    applied = found.applied
    sizes = applied.entries_before, applied.entries_after, applied.weight_before, applied.weight_after, applied.superseded
    return found.summary, found.title, applied.job_id, sizes


def seen(snapshot: MemorySnapshot) -> Any:
    entries = [(each.role, each.name, each.content, each.id if each.role != "summary" else None) for each in snapshot.entries]
    return entries, snapshot.tokens, [each.job_id for each in snapshot.compactions]


# Each example waits for a store that reads what it has written.
@settings(max_examples=15)
@given(st.lists(st.sampled_from("abc"), unique=True), STEPS)
def test_a_job_sees_of_itself_what_it_would_see_in_the_log(before: list[str], steps: list[tuple[str, list[str | None]]]) -> None:
    async def run() -> None:
        async with TopicMemoryStore(InMemoryLog(), TOPICS) as store:
            await store.append(HERE, [NewEntry(role="user", content=f"text of {each}", id=each) for each in before])
            past, _ = await past_of(store)
            live_job, past_job = BoundMemory(store, "acme", "a-job"), BoundMemory(past, "acme", "a-job")
            superseded: set[str | None] = set()
            for what, ids in steps:
                # What a summary has replaced is not known to a replay: an entry of that id is new to it.
                if what == "append" and superseded.intersection(ids):
                    continue
                made = await step(live_job, what, ids)
                assert await step(past_job, what, ids) == made, (what, ids)
                if what == "compact" and isinstance(made, tuple):
                    superseded.update(ids)
                assert seen(await past_job.read("ann", "trip")) == seen(await live_job.read("ann", "trip"))

    asyncio.run(run())


@pytest.fixture
async def store() -> AsyncIterator[TopicMemoryStore]:
    async with TopicMemoryStore(InMemoryLog(), TOPICS) as opened:
        yield opened


async def test_nothing_is_written_and_all_is_captured(store: TopicMemoryStore) -> None:
    await store.append(HERE, [NewEntry(role="user", content="hello", id="a")])
    before = await store.read(HERE)
    past, effects = await past_of(store)
    memory = BoundMemory(past, "acme", "a-job")
    await memory.append("ann", "trip", [NewEntry(role="tool", content="new")])
    await memory.append("ann", "trip", [NewEntry(role="tool", content="new", id="a-job-1")])
    await memory.compact("ann", "trip", base_version=-1, supersedes=["a", "a-job-1"], summary="short")
    await memory.append("bob", "other", [NewEntry(role="user", content="his")])
    assert effects.memory == [
        MemoryAppended(HERE, [("a-job-1", "new")]),
        MemoryCompacted(HERE, ["a", "a-job-1"], "short", None),
        MemoryAppended(ConversationRef("acme", "bob", "other"), [("a-job-2", "his")]),
    ]
    assert await store.read(HERE) == before
    with pytest.raises(ConversationInvalid):
        await memory.append("ann", "trip", [NewEntry(role="summary", content="mine")])


async def test_what_an_earlier_attempt_did_is_found(store: TopicMemoryStore) -> None:
    await store.append(HERE, [NewEntry(role="user", content="hello", id=each) for each in "ab"])
    earlier = BoundMemory(store, "acme", "a-job")
    await earlier.compact("ann", "trip", base_version=-1, supersedes=["a"], summary="short", title="t")
    past, _ = await past_of(store)
    found = await BoundMemory(past, "acme", "a-job").find_compaction("ann", "trip")
    assert found is not None and (found.summary, found.title) == ("short", "t")
    assert await BoundMemory(past, "acme", "another").find_compaction("ann", "trip") is None

    version = (await store.read(HERE)).version
    summary = (await store.read(HERE)).entries[0].id
    await BoundMemory(store, "acme", "another").compact(
        "ann", "trip", base_version=version, supersedes=[summary], summary="shorter"
    )
    past, _ = await past_of(store)
    with pytest.raises(MemoryStoreError, match="not at hand"):
        await BoundMemory(past, "acme", "a-job").find_compaction("ann", "trip")


@dataclass
class Model:
    """A summariser that asks a model elsewhere."""

    asked: list[int] = field(default_factory=list)
    name: str = "model"
    asks_outside: bool = True

    async def summarise(self, texts: Sequence[MemoryEntry], *, title: str | None, token_budget: int) -> Summary:
        self.asked.append(len(texts))
        return Summary("a summary of what was said")


async def test_the_shipped_worker_is_handed_the_models_answer_that_was_recorded() -> None:
    small = Settings(memory=MemorySettings(token_budget=100, keep_turns=2))
    entries = tuple(
        MemoryEntry(**HERE._asdict(), id=f"e{number}", role="user", content=f"{number:03d} " * 10, at=AT) for number in range(30)
    )
    history = InMemoryHistory(memories={HERE: MemorySnapshot(-1, entries, 300, ())})
    history.record("a-job", 1, "summary", {"text": "what the model said then of all that", "truncated": False})
    model = Model()
    job = recorded_job("memory_compaction_worker", {"userId": "ann", "conversationId": "trip"}, result={})
    async with Rerunner(history, [MemoryCompactionWorker(small, summariser=model)]) as rerunner:
        rerun = await rerunner.rerun(job)
    assert rerun.error is None and rerun.comparison.verdict is Verdict.DIFFERENT
    assert rerun.replayed.result["summary"] == "what the model said then of all that"
    assert (rerun.replayed.result["compacted"], rerun.replayed.result["summariser"]) == (True, "model")
    assert model.asked == []
    assert history.asked == [(HERE, STARTED_AT)], "once, for the time of the attempt"
