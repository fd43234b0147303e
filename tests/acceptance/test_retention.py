"""What ended long ago vanishes from a real cluster, and nothing else does (rule J3 of the ownership protocol)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from headrace import AbstractWorker, Client, JobContext, Settings
from headrace.core.topics import Topics
from headrace.engine import janitor
from headrace.engine.retention import delete_ended
from headrace.kafka import KafkaLog
from headrace.ports import TopicPartition
from support.engines import ended, engine_with, eventually, read_all, with_engine
from support.log import started


class Gated(AbstractWorker[dict[str, Any]]):
    """Its jobs wait if they are told to."""

    name = "gated"

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        if args.get("waits"):
            await self.gate.wait()


async def test_old_ended_jobs_vanish_and_unfinished_ones_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor, "TIMES", replace(janitor.TIMES, start=0.0, round=0.5, settled=0.5, retention=0.5))
    settings, worker = with_engine(settings, partitions=1, job_retention_seconds=1.0), Gated()
    queue = Topics(settings.namespace).jobs_name(Gated.name)

    async def begins_at() -> int | None:
        records = await read_all(settings, queue)
        return records[0].offset if records else None

    async with engine_with(settings, worker) as engine, Client(settings) as client:
        jobs = [await engine.enqueue(worker.name, {"waits": waits}) for waits in (False, True, False)]

        async def two_have_ended() -> bool:
            return engine.statistics[worker.name].ended == 2

        await eventually(two_have_ended)

        async def vanished() -> bool:
            return await client.get_job(jobs[0].id) is None

        await eventually(vanished)
        assert await begins_at() == 1, "its record is gone before its snapshots are"
        unfinished, behind = [await client.get_job(job.id) for job in jobs[1:]]
        assert unfinished is not None and unfinished.status == "running"
        assert behind is not None and behind.status == "completed"
        worker.gate.set()

        async def all_vanished() -> bool:
            return [await client.get_job(job.id) for job in jobs] == [None, None, None]

        await eventually(all_vanished)
        assert await begins_at() is None


async def test_what_is_young_stays_in_a_queue_of_which_something_was_deleted(settings: Settings) -> None:
    settings, worker, topics = with_engine(settings, partitions=1, janitor=False), Gated(), Topics(settings.namespace)
    log, made = KafkaLog(settings), topics.jobs(worker.name, 1)
    # A segment for each record: Kafka keeps the deleted ones for minutes, and looks at them, too.
    await log.create_topics([replace(made, configuration={**made.configuration, "segment.ms": "1"})])
    async with engine_with(settings, worker) as engine, Client(settings) as client:
        for _ in range(4):
            await ended(client, await engine.enqueue(worker.name, {}))
    queue = TopicPartition(made.name, 0)
    times = [record.timestamp for record in await read_all(settings, queue.topic)]
    await log.delete_records({queue: 1})
    try:
        async with started(log.reader()) as reader:

            async def begins_at(older_than: int) -> int:
                return (await delete_ended(log, reader, topics, [(worker.name, 0)], older_than))[worker.name, 0]

            # As when jobs are to be kept for longer than they were: what is gone already is young, too.
            assert await begins_at(times[0]) == 1
            assert await begins_at(times[-1]) == 3
            assert await begins_at(times[-1] + 1) == 4, "all of it is old"
    finally:
        await log.close()
