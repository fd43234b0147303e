"""A worker's rate limit holds across engines, loses no job, keeps order, and takes no slot; a paused worker starts nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext, RateLimit, RetryPolicy
from headrace.testing import InMemoryLog
from support import leases, requests
from support.flaky import FlakyWorker
from support.log import eventually
from support.memory_engines import Bench, passing
from support.requests import cancel, pause, resume
from support.virtual_time import in_virtual_time


class LimitedWorker(FlakyWorker):
    """Remembers when its jobs began."""

    def __init__(self, limit: RateLimit | None, *, concurrency: int = 10, retry: RetryPolicy | None = None) -> None:
        super().__init__(retry, concurrency=concurrency)
        self.rate_limit = limit
        self.moments: list[float] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        self.moments.append(asyncio.get_running_loop().time())
        return await super().run(args, ctx)


def most_within(moments: list[float], seconds: float) -> int:
    """The most starts in any time of this length."""
    ordered = sorted(moments)
    return max(sum(at <= other < at + seconds - 1e-6 for other in ordered) for at in ordered)


@in_virtual_time
async def test_no_time_has_more_starts_than_the_limit_and_with_jobs_enough_it_is_reached(tmp_path: Path) -> None:
    bench = Bench(tmp_path, partitions=4)
    worker = LimitedWorker(RateLimit(12, 1.0))
    async with bench.engine(worker):
        jobs = [(bench.enqueue(f"job-{each}", each % 4), each % 4) for each in range(240)]
        began = asyncio.get_running_loop().time()
        await passing(10)
        assert 115 <= len(worker.moments) <= 125
        await passing(15)
        assert all(bench.has_completed(job, partition=partition) for job, partition in jobs)
        assert most_within(worker.moments, 1.0) <= 12
        assert 18 <= max(worker.moments) - began <= 21


@in_virtual_time
async def test_the_limit_is_that_of_all_engines_together(tmp_path: Path) -> None:
    bench = leases.lease_bench(tmp_path, partitions=4)
    limit = RateLimit(8, 1.0)
    first, second = LimitedWorker(limit), LimitedWorker(limit)
    async with leases.engine(bench, first), leases.engine(bench, second, InMemoryLog(bench.cluster)):
        await passing(60)
        for each in range(160):
            bench.enqueue(f"job-{each}", each % 4)
        await passing(40)
        moments = first.moments + second.moments
        assert len(moments) == 160
        assert min(len(first.moments), len(second.moments)) > 60
        assert most_within(moments, 1.0) <= 8


@in_virtual_time
async def test_a_limit_below_the_number_of_partitions_lets_every_partition_have_its_turn(tmp_path: Path) -> None:
    bench = Bench(tmp_path, partitions=4)
    worker = LimitedWorker(RateLimit(1, 60.0))
    async with bench.engine(worker):
        for each in range(12):
            bench.enqueue(f"job-{each}", each % 4)
        await passing(800)
        assert len(worker.moments) == 12
        assert most_within(worker.moments, 240.0) <= 4


@in_virtual_time
async def test_what_waits_for_the_limit_takes_no_slot_and_keeps_the_order_of_its_key(tmp_path: Path) -> None:
    bench = Bench(tmp_path, partitions=2)
    worker = LimitedWorker(RateLimit(2, 10.0), concurrency=1)
    async with bench.engine(worker):
        for name in "abcd":
            bench.enqueue(name, 0, key="k")
        await passing(2)
        assert worker.names_started() == ["a"]
        bench.enqueue("x", 1)
        await passing(10)
        assert "x" in worker.names_started(), "the jobs of the other partition do not wait for those of this one"
        await passing(60)
        assert [name for name in worker.names_started() if name != "x"] == ["a", "b", "c", "d"]


@in_virtual_time
async def test_attempts_count_and_a_cancelled_job_leaves_the_queue_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    requests.make_topics(bench)
    worker = LimitedWorker(RateLimit(1, 10.0), retry=RetryPolicy(max_attempts=3, initial=1, jitter=0))
    worker.fail("a", *[ValueError("boom")] * 2)
    async with bench.engine(worker):
        first = bench.enqueue("a")
        await passing(45)
        assert bench.has_completed(first)
        assert most_within(worker.moments, 10.0) == 1
        jobs = [bench.enqueue(name, key="k") for name in "bcd"]
        await passing(1)
        for job in jobs[:2]:
            cancel(bench, job)
        await passing(1)
        assert [bench.statuses(job)[-1:] for job in jobs[:2]] in ([["cancelled"]] * 2, [["completed"], ["cancelled"]])
        await passing(30)
        assert bench.has_completed(jobs[2])
        assert bench.committed() == 4


@in_virtual_time
async def test_what_waits_for_the_limit_is_handed_over_with_its_partition(tmp_path: Path) -> None:
    bench = leases.lease_bench(tmp_path, partitions=2)
    limit = RateLimit(2, 20.0)
    first, second = LimitedWorker(limit), LimitedWorker(limit)
    async with leases.engine(bench, first):
        await eventually(lambda: bool(bench.claims(0)) and bool(bench.claims(1)), "the claims")
        jobs = [(bench.enqueue(f"job-{each}", each % 2, key=f"k{each % 2}"), each % 2) for each in range(8)]
        await passing(5)
        async with leases.engine(bench, second, InMemoryLog(bench.cluster)):
            await passing(200)
            assert all(bench.has_completed(job, partition=partition) for job, partition in jobs)
            assert second.moments, "the other engine got one of the partitions"
            for number in range(2):
                started = [name for name, _ in first.started + second.started if int(name.removeprefix("job-")) % 2 == number]
                assert started == [f"job-{each}" for each in range(8) if each % 2 == number]


@in_virtual_time
async def test_what_waits_for_the_limit_comes_back_when_its_claim_is_lost(tmp_path: Path) -> None:
    bench = leases.lease_bench(tmp_path)
    worker, log = LimitedWorker(RateLimit(1, 20.0)), InMemoryLog(bench.cluster)
    async with leases.engine(bench, worker, log):
        await eventually(lambda: bool(bench.claims()), "the claim")
        jobs = [bench.enqueue(name, key=f"key of {name}") for name in "abc"]
        await eventually(lambda: worker.names_started() == ["a"], "the first start")
        log.cut_off()
        await passing(60)
        log.reconnect()
        await passing(200)
        assert len(bench.claims()) > 1
        assert bench.has_completed(*jobs)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@in_virtual_time
async def test_a_paused_worker_starts_nothing_until_it_is_resumed_and_what_runs_goes_on(bench: Bench) -> None:
    worker = FlakyWorker(RetryPolicy(max_attempts=3, initial=5, jitter=0))
    worker.close_gate("running")
    worker.fail("running", ValueError("boom"))
    async with bench.engine(worker):
        running = bench.enqueue("running")
        await eventually(lambda: worker.running == ["running"], "the start")
        pause(bench)
        await passing(1)
        waiting = bench.enqueue("waiting")
        worker.open_gate("running")
        await passing(60)
        assert bench.statuses(running) == ["running", "queued"]
        assert worker.names_started() == ["running"], "neither a new job nor a retry starts"
        resume(bench)
        await passing(1)
        assert bench.has_completed(running, waiting)


@in_virtual_time
async def test_a_pause_outlasts_engines_and_concerns_one_worker_alone(bench: Bench) -> None:
    requests.make_topics(bench)
    pause(bench)
    job = bench.enqueue("a")
    for _ in range(2):
        worker = FlakyWorker()
        async with bench.engine(worker):
            await passing(30)
            assert worker.started == []
    pause(bench, "another")
    resume(bench)
    async with bench.engine(FlakyWorker()):
        await eventually(lambda: bench.has_completed(job), "the end")


@in_virtual_time
async def test_a_job_of_a_paused_worker_can_be_cancelled(bench: Bench) -> None:
    requests.make_topics(bench)
    pause(bench)
    worker = FlakyWorker()
    async with bench.engine(worker):
        jobs = [bench.enqueue(name, key="k") for name in "abc"]
        await passing(1)
        cancel(bench, jobs[1])
        await passing(1)
        assert [bench.statuses(job) for job in jobs] == [[], ["cancelled"], []]
        resume(bench)
        await eventually(lambda: bench.committed() == 3, "the ends")
        assert worker.names_started() == ["a", "c"]


@pytest.mark.parametrize("count, told", [(1, True), (7, True), (8, False)])
@in_virtual_time
async def test_a_limit_below_the_number_of_partitions_is_warned_of_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, told: bool
) -> None:
    bench = Bench(tmp_path, partitions=8)
    async with bench.engine(LimitedWorker(RateLimit(count, 60.0))):
        warnings = [record.getMessage() for record in caplog.records if record.name == "headrace.engine.limiting"]
    expected = f"the rate limit of {LimitedWorker.name}, {count} in 60 s, is lower than its queue has partitions (8)"
    assert [message[: len(expected)] for message in warnings] == ([expected] if told else [])
    if count == 1:
        assert "in 480 s each of them may start a job" in warnings[0]
