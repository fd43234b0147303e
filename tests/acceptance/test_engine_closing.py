"""What workers hold is given back when their engine has stopped."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from headrace import AbstractWorker, Client, ConfigurationError, JobContext, Settings, TopicMisconfigured, WorkerEngine, worker
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.memory import Memory
from headrace.memory.summarise.openai import OpenAISummariser
from headrace.ports import NewEntry
from headrace.settings import MemorySettings, OpenAISettings
from headrace.workers.memory_compaction import MemoryCompactionWorker
from support.chat_api import Answer, chat_api
from support.engines import ended
from support.log import eventually


class Holder(AbstractWorker[Any]):
    """Has something open from its making on."""

    name = "holder"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.runs = asyncio.Event()

    async def run(self, args: Any, ctx: JobContext) -> None:
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("job ends")

    async def close(self) -> None:
        self.told.append("closed")


class Broken(Holder):
    name = "broken"

    async def close(self) -> None:
        await super().close()
        raise OSError("the pool is gone")


class Hanging(Holder):
    name = "hanging"

    async def close(self) -> None:
        await super().close()
        await asyncio.Event().wait()


class EndsItsTask(Holder):
    """Ends a task of its own, and waits for it, as is often done: that raises the task's cancellation."""

    name = "ends_its_task"

    async def close(self) -> None:
        await super().close()
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        task.cancel()
        await task


class EndsTheProcess(Holder):
    name = "ends_the_process"

    async def close(self) -> None:
        await super().close()
        raise SystemExit(1)


class Stubborn(Holder):
    """Takes no notice of a cancellation."""

    name = "stubborn"

    def __init__(self) -> None:
        super().__init__()
        self.let, self.gone = asyncio.Event(), asyncio.Event()

    async def close(self) -> None:
        await super().close()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            await self.let.wait()
        self.gone.set()


@worker()
def function(args: dict[str, Any], ctx: JobContext) -> None:
    """Holds nothing."""


async def test_a_worker_is_closed_once_when_its_jobs_have_ended(settings: Settings) -> None:
    holder = Holder()
    engine = WorkerEngine(settings)
    engine.register_worker(holder)
    async with engine:
        await engine.enqueue("holder", {})
        async with asyncio.timeout(60):
            await holder.runs.wait()
        assert await engine.stop(grace_seconds=0)
        assert holder.told == ["job ends", "closed"]
    assert holder.told == ["job ends", "closed"]


async def test_workers_that_cannot_be_closed_are_logged_and_hold_nothing_up(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.worker_ends._CLOSE_SECONDS", 1.0)
    stubborn = Stubborn()
    workers = [Broken(), Hanging(), EndsItsTask(), EndsTheProcess(), stubborn, Holder()]
    engine = WorkerEngine(settings)
    for each in (*workers, function):
        engine.register_worker(each)
    with caplog.at_level(logging.ERROR, "headrace.engine"):
        async with engine:
            pass
        assert [each.told for each in workers] == [["closed"]] * 6
        async with Client(settings) as client:
            assert {each.live_instances for each in await client.list_workers()} == {0}, "it has said that it is gone"
    stubborn.let.set()
    async with asyncio.timeout(10):
        await stubborn.gone.wait()
    told = {record.getMessage(): record.exc_info and record.exc_info[0] for record in caplog.records}
    assert told == {
        "worker broken could not be closed": OSError,
        "worker hanging could not be closed": TimeoutError,
        "worker ends_its_task could not be closed": asyncio.CancelledError,
        "worker ends_the_process could not be closed": SystemExit,
        "worker stubborn could not be closed": TimeoutError,
    }


async def test_the_connections_to_a_model_are_closed(settings: Settings) -> None:
    with chat_api(Answer("The boat leaves at nine.")) as api:
        asking = settings.model_copy(
            update={
                "memory": MemorySettings(summariser="openai", token_budget=100, keep_turns=1),
                "openai": OpenAISettings(base_url=api.url, model="m"),
            }
        )
        summariser = OpenAISummariser.from_settings(asking.openai)
        async with Memory(settings) as memory, Client(settings, view=True) as client:
            await memory.append("ann", "trip", [NewEntry(role="user", content="The boat leaves at nine. " * 40)] * 4)
            engine = WorkerEngine(asking)
            engine.register_worker(MemoryCompactionWorker(asking, summariser=summariser))
            async with engine:
                arguments = {"userId": "ann", "conversationId": "trip"}
                job = await ended(client, await client.enqueue("memory_compaction_worker", arguments))
                assert job.status == "completed", job.error
                assert not summariser.client.is_closed()
        assert summariser.client.is_closed()


async def test_a_summariser_of_ones_own_need_not_be_closable(settings: Settings) -> None:
    await MemoryCompactionWorker(settings).close()


async def test_an_engine_whose_start_fails_leaves_nothing_running(settings: Settings) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ConfigurationError, match="no worker"):
        async with WorkerEngine(settings):
            raise AssertionError("it has no worker, and started")
    log = KafkaLog(settings)
    topics = Topics(settings.namespace)
    await log.create_topics([replace(topics.dead_letters, configuration={"retention.ms": "1000"})])
    await log.close()
    engine = WorkerEngine(settings)
    engine.register_worker(Holder)
    with pytest.raises(TopicMisconfigured):
        await engine.__aenter__()
    await eventually(lambda: asyncio.all_tasks() <= before, "nothing is left running")


@pytest.mark.parametrize(
    "wrong", [{"cleanup.policy": "compact"}, {"max.message.bytes": "1000"}], ids=["compacted", "small messages"]
)
async def test_recordings_that_would_be_lost_stop_the_start_before_a_job_pays_for_one(
    settings: Settings, wrong: dict[str, str]
) -> None:
    log, topic = KafkaLog(settings), Topics(settings.namespace).recordings
    try:
        await log.create_topics([replace(topic, configuration={**topic.configuration, **wrong}, guarded=frozenset())])
    finally:
        await log.close()
    engine = WorkerEngine(settings)
    engine.register_worker(Holder)
    [(name, value)] = wrong.items()
    with pytest.raises(
        TopicMisconfigured, match=rf"(?s){topic.name} exists with {name}={value}.*{name}={topic.configuration[name]}"
    ):
        await engine.__aenter__()


async def test_an_engine_makes_no_topic_for_recordings_that_nobody_makes(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Holder)
    async with engine:
        log = KafkaLog(settings)
        assert Topics(settings.namespace).recordings.name not in await log.topic_names()
        await log.close()
