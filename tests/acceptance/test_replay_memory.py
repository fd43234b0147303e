"""A job that is replayed sees the memory of conversations as it was, though the clocks of clients, engines and brokers differ."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from headrace import Client, JobContext, Memory, NewEntry, Settings, WorkerEngine, worker
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.replay import Rerunner, Verdict
from headrace.replay.recorded.log_history import open_history
from support.engines import ended, read_all


@worker
async def recalls(args: dict[str, Any], ctx: JobContext) -> list[str]:
    """What it reads of a conversation, before and after it has said something there itself, if it has to."""
    before = await ctx.memory.read("ann", "trip")
    if args["says"]:
        await ctx.memory.append("ann", "trip", [NewEntry(role="assistant", content="of the job")])
    after = await ctx.memory.read("ann", "trip")
    return [entry.content for snapshot in (before, after) for entry in snapshot.entries]


@pytest.mark.parametrize("ahead", [-60_000, 60_000], ids=["behind", "ahead"])
@pytest.mark.parametrize("by_broker", [True, False], ids=["by-broker", "by-writer"])
@pytest.mark.parametrize("says", [True, False], ids=["says", "reads"])
async def test_the_memory_is_as_it_was_though_the_engines_clock_is_another(
    settings: Settings, ahead: int, by_broker: bool, says: bool
) -> None:
    """Somebody remembers, then enqueues, then remembers more, all within the minute by which the engine's clock differs."""
    topic = Topics(settings.namespace).memory
    if not by_broker:  # as topics are that were made before their times were the brokers'
        configuration = {**topic.configuration, "message.timestamp.type": "CreateTime"}
        log = KafkaLog(settings)
        await log.create_topics([replace(topic, configuration=configuration)])
        await log.close()
    engine = WorkerEngine(settings, now=lambda: time.time_ns() // 1_000_000 + ahead)
    engine.register_worker(recalls)
    await engine.start()
    try:
        async with Memory(settings) as memory, Client(settings) as client:
            await memory.append("ann", "trip", [NewEntry(role="user", content="before")])
            job = await ended(client, await client.enqueue("recalls", {"says": says}))
            await memory.append("ann", "trip", [NewEntry(role="user", content="later")])
    finally:
        await engine.stop(grace_seconds=10)
    assert job.result == (["before", "before", "of the job"] if says else ["before", "before"])
    assert job.started_at is not None and (job.started_at < job.created_at) is (ahead < 0)
    assert {record.timestamp_type for record in await read_all(settings, topic)} == {int(by_broker)}
    async with open_history(settings) as history, Rerunner(history, [recalls]) as rerunner:
        rerun = await rerunner.rerun(await history.find(job.id))
    assert (rerun.replayed.result, rerun.comparison.verdict) == (job.result, Verdict.SAME)
