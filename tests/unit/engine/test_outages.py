"""A broker that is away while a job enqueues another, or writes, ends the attempt and not the job; not again and again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import AbstractWorker, EnqueueTimeout, JobContext, RetryPolicy, WorkerEngine
from headrace.errors import AppendTimeout, BrokerAuthenticationFailed, BrokerUnreachable
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog
from support.flaky import FlakyWorker
from support.leases import lease_bench
from support.log import eventually
from support.memory_engines import TOPICS, Bench, GatedWorker, ended, loop_clock, passing, wall_clock
from support.virtual_time import in_virtual_time

MOST_OUTAGES = 60


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Leaf(AbstractWorker[dict[str, Any]]):
    name = "leaf"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        return None


class Parent(GatedWorker):
    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        self.started.append((args["name"], ctx.attempt))
        await asyncio.sleep(5)
        return (await ctx.enqueue("leaf", {"n": 1})).id


def away(kind: str) -> Exception:
    if kind == "enqueue":
        return EnqueueTimeout("job-x", may_be_accepted=True, seconds=10)
    return AppendTimeout(may_land=True, seconds=10) if kind == "append" else BrokerUnreachable("away")


@in_virtual_time
async def test_a_job_that_enqueues_during_an_outage_is_interrupted_and_its_child_exists_once(tmp_path: Path) -> None:
    bench = lease_bench(tmp_path)
    worker, log = Parent(), InMemoryLog(bench.cluster)
    engine = WorkerEngine(bench.settings, log=log, clock=loop_clock, now=wall_clock)
    engine.register_worker(worker)
    engine.register_worker(Leaf())
    await engine.start()
    try:
        await passing(10)
        await engine.enqueue("leaf", {"n": 0})  # so that its queue is known
        job_id = bench.enqueue("a")
        await eventually(lambda: worker.started == [("a", 1)], "the start")
        await passing(3)
        log.cut_off()
        await passing(14)
        log.reconnect()
        await passing(120)
        job = ended(bench, job_id)
        assert job.failures == 0
        *before, last = [attempt.status for attempt in job.attempts]
        assert (set(before), last) == ({"interrupted"}, "completed")
    finally:
        await engine.stop(grace_seconds=0)
    partitions = range(bench.settings.engine.partitions)
    queues = [TopicPartition(TOPICS.jobs_name("leaf"), number) for number in partitions]
    ids = [orjson.loads(record.value or b"")["id"] for queue in queues for record in bench.cluster.records(queue)]
    assert set(ids[1:]) == {job.result}, "a repetition is the same job"


@pytest.mark.parametrize("kind", ["enqueue", "append", "unreachable"])
@in_virtual_time
async def test_only_outages_in_a_row_are_counted_and_none_is_a_failure(bench: Bench, kind: str) -> None:
    worker = FlakyWorker(RetryPolicy(max_attempts=2, initial=1, jitter=0))
    some = [away(kind)] * (MOST_OUTAGES - 1)
    worker.fail("a", *some, ValueError("boom"), *some)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(300)
        job = ended(bench, job_id)
        assert (job.status, job.failures, job.attempt) == ("completed", 1, 2 * MOST_OUTAGES)


@pytest.mark.parametrize("kind", ["enqueue", "append", "unreachable"])
@in_virtual_time
async def test_a_job_that_asks_brokers_which_never_come_fails(bench: Bench, kind: str) -> None:
    worker = FlakyWorker()
    worker.fail("a", *[away(kind)] * 1_000)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(300)
        job = ended(bench, job_id)
        assert (job.status, job.failures, job.attempt) == ("failed", 1, MOST_OUTAGES + 1)
        assert job.error is not None and job.error.type.startswith("headrace.errors.")


@in_virtual_time
async def test_the_count_outlives_its_engine(bench: Bench) -> None:
    worker = FlakyWorker()
    worker.fail("a", *[away("enqueue")] * 1_000)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(20)
    async with bench.engine(worker):
        await passing(300)
        assert ended(bench, job_id).failures == 1 and ended(bench, job_id).attempt <= MOST_OUTAGES + 2


@in_virtual_time
async def test_a_broker_that_refuses_the_credentials_is_not_away(bench: Bench) -> None:
    worker = FlakyWorker()
    worker.fail("a", BrokerAuthenticationFailed("who are you?"))
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(5)
        assert ended(bench, job_id).status == "failed"
