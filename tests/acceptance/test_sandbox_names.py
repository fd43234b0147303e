"""What a sandbox may be called, and who else may be in it: nothing that is to last, and nothing of others."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import orjson
import pytest

from headrace import ApiKeys, AuditTrail, Client, Job, Memory, NamespaceIsSandbox, NewEntry, Settings, WorkerEngine
from headrace.core.topics import Topic, Topics
from headrace.errors import AppendTimeout, ConfigurationError
from headrace.kafka.log import KafkaLog
from headrace.kafka.writer import KafkaWriter
from headrace.ports import Acknowledged, NewRecord, TopicPartition
from headrace.replay.sandboxes.cleaning import clean_sandboxes
from headrace.replay.sandboxes.sandbox import opened_sandbox, sandbox_settings
from headrace.replay.sandboxes.sandboxed import SandboxRun
from headrace.replay_errors import SandboxInUse
from support.clusters import state_of
from support.engines import PATIENCE_SECONDS, eventually
from support.recorded import Today, recorded_job
from support.sandboxes import Count, commit_as_another, odd_fails, of_namespace, replay_of


@pytest.fixture
def sandbox(settings: Settings) -> Settings:
    return sandbox_settings(settings, f"{settings.namespace}.replay-1", 10)


async def test_a_job_of_somebody_else_ends_the_replay_and_is_not_told_to_be_done(
    log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    """Of a program that is none of headrace's, or of an older version: all others are refused."""
    today = Today(odd_fails, gate=asyncio.Event())
    topics = Topics(sandbox.namespace)

    async def intrude() -> None:
        async def begun() -> bool:
            return bool(today.begun)

        await eventually(begun)
        record = {**recorded_job(7).record, "id": "a-stranger", "orderingKey": "a-stranger"}
        writer = log.writer()
        await writer.start()
        place = TopicPartition(topics.jobs_name("count"), 0)
        await writer.append(place, NewRecord(b"a-stranger", orjson.dumps(record)), timeout=30)
        await writer.stop(timeout=5)
        assert today.gate is not None
        today.gate.set()

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(SandboxInUse, match=f"Job a-stranger was enqueued in the sandbox {sandbox.namespace} by somebody"):
            async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=True):
                intruding = asyncio.create_task(intrude())
                run = SandboxRun(log, sandbox, {"count": Count()}, replay_of(20, today))
                await asyncio.gather(run.run(), intruding)
    async with Client(sandbox) as client:

        async def known() -> Job | None:
            return await client.get_job("a-stranger")

        found = await eventually(known)
    await clean_sandboxes(log, settings, every=True)
    assert found.status in ("running", "queued")


async def test_a_name_that_is_in_use_is_refused_and_nothing_changes(log: KafkaLog, settings: Settings) -> None:
    taken = sandbox_settings(settings, "mine", 10)
    topics = Topics(taken.namespace)
    await log.create_topics([topics.job_state, topics.control, topics.workers])
    before = await state_of(settings)
    with pytest.raises(SandboxInUse, match="and 2 more topics of that namespace"):
        async with opened_sandbox(log, taken, settings.namespace, ["count"], keep=False):
            raise AssertionError("it opened")
    assert await state_of(settings) == before
    for name in ("no/name", "mine.jobs"):
        with pytest.raises(ConfigurationError, match="No sandbox can be named"):
            sandbox_settings(settings, name, 10)


async def test_nothing_that_is_to_last_gets_into_a_sandbox(
    log: KafkaLog, settings: Settings, sandbox: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at it does."""
    monkeypatch.setattr("headrace.replay.sandboxes.sandbox.ALIVE_EVERY_SECONDS", 3_600.0)

    async def accept() -> None:
        async with Client(sandbox) as client:
            await client.enqueue(Count(), {"number": 1})

    async def remember() -> None:
        async with Memory(sandbox) as memory:
            await memory.append("ada", "trip", [NewEntry(role="user", content="Hello")])

    engine = WorkerEngine(sandbox)
    engine.register_worker(Count())
    starts = {"engine": engine.start, "audit": AuditTrail(sandbox).start, "keys": ApiKeys(sandbox).start}
    async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
        await log.create_topics(Topics(sandbox.namespace).of_engine(["count"], 1, 1.0))
        async with Client(sandbox) as client:
            assert (await client.list_jobs()).jobs == []
            assert await client.memory().history("ada", "trip") == []
        before = await state_of(settings)
        for what, begin in {**starts, "client": accept, "memory": remember}.items():
            with pytest.raises(NamespaceIsSandbox, match="is named like the sandbox of a replay of jobs of"):
                await begin()
            assert await state_of(settings) == before, what
        await engine.stop()
    await engine.stop()


class Overtaken(KafkaLog):
    """A cluster in which a client has made a topic just before the marker is made."""

    other = Topics("")

    async def create_topics(self, topics: Collection[Topic]) -> None:
        await super().create_topics([self.other.job_state, *topics])


async def test_a_name_that_is_taken_while_a_sandbox_is_made_is_refused(
    log: KafkaLog, settings: Settings, sandbox: Settings
) -> None:
    """Who took it may not have seen the marker."""
    overtaken = Overtaken(settings)
    overtaken.other = Topics(sandbox.namespace)
    try:
        with pytest.raises(SandboxInUse, match=f"the cluster has {overtaken.other.job_state.name} of that namespace"):
            async with opened_sandbox(overtaken, sandbox, settings.namespace, ["count"], keep=False):
                raise AssertionError("it opened")
        assert of_namespace(await state_of(settings), sandbox.namespace) == [overtaken.other.job_state.name]
    finally:
        await overtaken.close()
        await log.delete_topics([overtaken.other.job_state.name])


class NotAcknowledged(KafkaWriter):
    """The writer of a client that never hears that its marker was written."""

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        await super().append(target, record, timeout=timeout)
        raise AppendTimeout(may_land=True, seconds=timeout)


class Unanswered(KafkaLog):
    def writer(self) -> KafkaWriter:
        return NotAcknowledged(self._cluster, self._administration)


async def test_a_marker_of_which_nobody_knows_whether_it_was_written_is_removed(settings: Settings, sandbox: Settings) -> None:
    client = Unanswered(settings)
    try:
        with pytest.raises(AppendTimeout):
            async with opened_sandbox(client, sandbox, settings.namespace, ["count"], keep=True):
                raise AssertionError("it opened")
    finally:
        await client.close()
    assert of_namespace(await state_of(settings), sandbox.namespace) == []


async def test_a_name_of_which_another_application_has_a_group_is_refused(
    log: KafkaLog, settings: Settings, sandbox: Settings, topic: str
) -> None:
    """No topic has that name: by a marker that names the group, what the group has committed would be deleted in the end."""
    group, place = f"{sandbox.namespace}.count", TopicPartition(topic, 0)
    await commit_as_another(log, group, place, 7)
    before = await state_of(settings)
    with pytest.raises(SandboxInUse, match=rf"the cluster has the consumer group {group} of that namespace\."):
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
            raise AssertionError("it opened")
    assert await state_of(settings) == before
    assert (await log.committed_offsets(group))[place] == 7


async def test_of_two_at_once_one_gets_the_name(log: KafkaLog, settings: Settings, sandbox: Settings) -> None:
    inside = asyncio.Event()
    over = asyncio.Event()

    async def use() -> None:
        async with opened_sandbox(log, sandbox, settings.namespace, ["count"], keep=False):
            inside.set()
            await over.wait()

    tasks = {asyncio.create_task(use()) for _ in range(3)}
    async with asyncio.timeout(60):
        await inside.wait()
        refused: set[asyncio.Task[None]] = set()
        while len(refused) < 2:
            refused, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.01)
    over.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(task.exception()) for task in refused] == [SandboxInUse, SandboxInUse]
    assert sum(task.exception() is None for task in tasks) == 1
    assert of_namespace(await state_of(settings), sandbox.namespace) == []
