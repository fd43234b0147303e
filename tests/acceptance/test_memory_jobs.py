"""Memory compaction as a job: enqueued, run by an engine on a real broker, and seen by whoever reads the memory."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, Job, WorkerEngine
from headrace.memory import Memory
from headrace.memory.summarise import Summary
from headrace.settings import MemorySettings, Settings
from headrace.workers.memory_compaction import MemoryCompactionWorker
from support.memories import Always

SAMPLE = files("headrace").joinpath("samples/second-bakery.conversation.json")
DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "memory.md").read_text("utf-8")
ADDRESS = {"userId": "mara", "conversationId": "second-bakery"}
ENDED = {"completed", "failed", "cancelled"}
PATIENCE_SECONDS = 60.0


@pytest.fixture
async def memory(settings: Settings) -> AsyncIterator[Memory]:
    async with Memory(settings) as opened:
        await opened.import_conversation(str(SAMPLE))
        yield opened


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with Client(settings, view=True) as opened:
        yield opened


async def ended(client: Client, *accepted: Job) -> list[Job]:
    """The jobs as they stand when all of them have ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            jobs = [await client.get_job(job.id) for job in accepted]
            found = [job for job in jobs if job is not None and job.status in ENDED]
            if len(found) == len(accepted):
                return found
            await asyncio.sleep(0.02)


async def test_a_job_compacts_a_long_conversation_and_tells_what_it_did(
    settings: Settings, client: Client, memory: Memory
) -> None:
    before = await memory.read("mara", "second-bakery")
    engine = WorkerEngine(settings)
    engine.register_worker(MemoryCompactionWorker(settings))
    async with engine:
        [job] = await ended(client, await client.enqueue("memory_compaction_worker", {**ADDRESS, "title": "Second bakery"}))
        assert job.status == "completed", job.error
        after = await memory.read("mara", "second-bakery")
        assert job.result == {
            "entriesBefore": 168,
            "entriesAfter": len(after.entries),
            "tokensBefore": before.tokens,
            "tokensAfter": after.tokens,
            "superseded": 169 - len(after.entries),
            "summariser": "extractive",
            "compacted": True,
            "summary": after.entries[0].content,
        }
        assert after.tokens <= settings.memory.token_budget < before.tokens
        assert [entry.name for entry in after.summaries] == ["Second bakery"]
        assert after.entries[1:] == before.entries[-len(after.entries) + 1 :]
        assert after.compactions[0].job_id == job.id
        [again] = await ended(client, await client.enqueue("memory_compaction_worker", ADDRESS))
        assert again.result["compacted"] is False


async def test_jobs_of_one_conversation_run_one_after_another(settings: Settings, client: Client, memory: Memory) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(MemoryCompactionWorker(settings))
    text = "The boat leaves at nine from the old harbour. Ann brings the keys, and Tomas pays for the fuel. " * 8
    async with engine:
        accepted = [
            await client.enqueue("memory_compaction_worker", {**ADDRESS, "content": f"Note {number}.\n\n{text}"})
            for number in range(6)
        ]
        jobs = await ended(client, *accepted)
        assert {job.status for job in jobs} == {"completed"}, [job.error for job in jobs]
        assert {job.attempt for job in jobs} == {1}
    snapshot = await memory.read("mara", "second-bakery")
    assert [compaction.job_id for compaction in snapshot.compactions] == [job.id for job in accepted]
    assert len(snapshot.entries) == 168 + 6
    assert len(snapshot.summaries) == 6


async def test_an_unfit_summary_fails_the_job_with_a_clear_error_and_changes_nothing(
    settings: Settings, client: Client, memory: Memory
) -> None:
    before = await memory.read("mara", "second-bakery")
    engine = WorkerEngine(settings)
    engine.register_worker(MemoryCompactionWorker(settings, summariser=Always(Summary("Error: the model is overloaded"))))
    async with engine:
        [job] = await ended(client, await client.enqueue("memory_compaction_worker", ADDRESS))
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.type.endswith("SummaryRejected")
    assert "the model is overloaded" in job.error.message
    assert "the memory is unchanged" in job.error.message
    assert await memory.read("mara", "second-bakery") == before


async def test_settings_decide_how_much_is_kept(settings: Settings, client: Client, memory: Memory) -> None:
    small = settings.model_copy(update={"memory": MemorySettings(token_budget=600, keep_turns=3)})
    engine = WorkerEngine(small)
    engine.register_worker(MemoryCompactionWorker(small))
    async with engine:
        [job] = await ended(client, await client.enqueue("memory_compaction_worker", ADDRESS))
    assert job.status == "completed", job.error
    snapshot = await memory.read("mara", "second-bakery")
    assert snapshot.tokens <= 600
    assert len(snapshot.entries) >= 4


async def test_the_worker_of_the_documentation_keeps_a_note(settings: Settings, client: Client, memory: Memory) -> None:
    _, _, rest = DOCUMENTATION.partition("bound to the job's tenant and id:\n\n")
    example, _, _ = rest.partition("\n\nEntries without an id")
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(example), scope)
    engine = WorkerEngine(settings)
    engine.register_worker(scope["KeepNote"])
    async with engine:
        arguments = {"user_id": "mara", "conversation_id": "second-bakery", "note": "The lease is signed."}
        jobs = [(await ended(client, await client.enqueue("keep_note", arguments)))[0] for _ in range(2)]
    assert [(job.status, job.result) for job in jobs] == [("completed", {"entries": 169}), ("completed", {"entries": 170})]
    entries = (await memory.read("mara", "second-bakery")).entries
    assert [(entry.id, entry.role, entry.content) for entry in entries[168:]] == [
        (f"{job.id}-1", "assistant", "The lease is signed.") for job in jobs
    ]
