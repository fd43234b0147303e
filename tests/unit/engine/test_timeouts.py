"""An attempt that takes longer than it may is stopped if it can be, keeps what it has until it ends, and has failed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from headrace import EngineStuck, JobContext, JobTimeout, RetryPolicy
from support import leases
from support.flaky import FlakyWorker
from support.log import eventually
from support.memory_engines import Bench, GatedWorker, ended, passing
from support.virtual_time import in_virtual_time

BOOM = ValueError("boom")


def stubborn_worker() -> FlakyWorker:
    """Its job `stubborn` takes longer than it may, and goes on until it is let."""
    worker = FlakyWorker(timeout=5)
    worker.close_gate("stubborn")
    worker.stubborn = {"stubborn"}
    return worker


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@in_virtual_time
async def test_an_attempt_that_takes_too_long_is_cancelled_and_has_failed(bench: Bench) -> None:
    worker = FlakyWorker(RetryPolicy(max_attempts=2, initial=10, jitter=0), timeout=5)
    worker.close_gate("slow")
    async with bench.engine(worker):
        job_id = bench.enqueue("slow")
        quick = bench.enqueue("quick")
        await passing(60)
        assert bench.has_completed(quick)
        assert worker.waits("slow") == [15]
        job = ended(bench, job_id)
        assert (job.status, job.failures) == ("failed", 2)
        assert job.error is not None and job.error.type == f"{JobTimeout.__module__}.JobTimeout"
        assert job.error.message == "The attempt took longer than 5 s."
        assert "await gate.wait()" in (job.error.traceback or ""), "it says where the attempt stood"
        assert "CancelledError" in (job.error.traceback or "")


@in_virtual_time
async def test_a_job_s_own_timeout_goes_before_the_worker_s(bench: Bench) -> None:
    worker = FlakyWorker(timeout=5)
    worker.close_gate("longer", "shorter", "usual")
    async with bench.engine(worker):
        jobs = [bench.enqueue("longer", attemptTimeout=50.0), bench.enqueue("shorter", attemptTimeout=0.5)]
        jobs.append(bench.enqueue("usual", attemptTimeout=None))
        await passing(2)
        assert sorted(worker.running) == ["longer", "usual"]
        await passing(10)
        assert worker.running == ["longer"]
        worker.open_gate("longer")
        await passing(1)
        assert [ended(bench, job).status for job in jobs] == ["completed", "failed", "failed"]


@in_virtual_time
async def test_an_attempt_that_will_not_stop_keeps_its_slot_and_key_and_is_late_whatever_it_returns(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FlakyWorker(timeout=5, concurrency=1)
    worker.close_gate("stubborn")
    worker.stubborn = {"stubborn"}
    async with bench.engine(worker):
        job_id, behind = bench.enqueue("stubborn", key="k"), bench.enqueue("behind", key="k")
        other = bench.enqueue("other")
        await passing(100)
        assert worker.names_started() == ["stubborn"]
        assert worker.interrupted == ["stubborn"]
        assert "was cancelled after 5 s, and goes on all the same" in caplog.text
        worker.open_gate("stubborn")
        await passing(1)
        job = ended(bench, job_id)
        assert job.status == "failed" and job.error is not None and job.error.type.endswith("JobTimeout")
        assert bench.has_completed(behind, other)


@in_virtual_time
async def test_an_attempt_that_is_being_interrupted_is_not_late(bench: Bench) -> None:
    worker = FlakyWorker(timeout=5)
    worker.close_gate("a")
    worker.stubborn = {"a"}
    async with bench.engine(worker) as engine:
        job_id = bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        await passing(4.5)
        stopping = asyncio.create_task(engine.stop(grace_seconds=0))
        await passing(0.9)
        assert worker.interrupted == ["a"]
        worker.stubborn = set()
        worker.fail("a", BOOM)
        worker.open_gate("a")
        await stopping
        assert [attempt["status"] for attempt in bench.written(job_id)[-1]["attempts"]] == ["interrupted"]


class ThreadedWorker(GatedWorker):
    """A plain function, which waits in its thread for what its jobs are named after."""

    timeout = 60.0

    def __init__(self) -> None:
        super().__init__(concurrency=1)
        self.go_on = threading.Event()

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # in a thread, and not in the loop
        self.started.append((args["name"], ctx.attempt))
        if args["name"] == "slow" and not self.go_on.wait(30):
            raise AssertionError("nobody let it go on")
        return args["name"]


async def test_a_plain_function_cannot_be_stopped_and_keeps_its_slot_key_and_partition_until_it_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    worker = ThreadedWorker()
    async with leases.engine(bench, worker):
        await eventually(lambda: bool(bench.claims()), "the claim")
        job_id = bench.enqueue("slow", key="k", attemptTimeout=0.1)
        behind, other = bench.enqueue("behind", key="k"), bench.enqueue("other")
        await eventually(lambda: "attempt 1 of job job-1-slow of gated takes longer than 0.1 s" in caplog.text, "the report")
        await eventually(lambda: bool(worker.started), "its thread")
        assert (worker.started, bench.statuses(job_id)) == ([("slow", 1)], ["running"])
        worker.go_on.set()
        await eventually(lambda: bench.has_completed(behind, other), "the ends of the others")
        job = ended(bench, job_id)
        assert job.status == "failed" and job.error is not None and job.error.type.endswith("JobTimeout")


@in_virtual_time
async def test_an_attempt_that_goes_on_long_after_its_time_ends_its_engine_when_all_others_have_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stuck_seconds=60.0)
    worker = FlakyWorker(timeout=500)
    worker.close_gate("stubborn", "beside")
    worker.stubborn = {"stubborn"}
    with pytest.raises(EngineStuck, match=r"Attempt 1 of job job-1-stubborn of gated .* goes on 60 s later"):
        async with leases.engine(bench, worker) as engine:
            stubborn, beside = bench.enqueue("stubborn", attemptTimeout=5.0), bench.enqueue("beside")
            await eventually(lambda: len(worker.running) == 2, "the starts")
            broken = asyncio.create_task(engine.ended())
            await passing(64)
            assert not broken.done()
            await passing(2)
            assert broken.done()
            stopping = asyncio.create_task(engine.stop(grace_seconds=20))
            await passing(1)
            bench.enqueue("behind")
            await passing(10)
            worker.open_gate("beside")
            assert await stopping is False, "one attempt runs on"
            assert bench.has_completed(beside)
            assert worker.names_started() == ["stubborn", "beside"], "nothing more starts"
            job = ended(bench, stubborn)
            assert (job.status, job.failures, job.attempt) == ("failed", 1, 1)
            assert job.error is not None and job.error.type.endswith("JobTimeout")
            assert "could not be stopped, and ended with the process of its engine" in (job.error.traceback or "")
            assert leases.kinds(bench) == ["claim"], "what runs on keeps its partition"
            worker.open_gate("stubborn")
            await passing(10)
            assert bench.statuses(stubborn) == ["running", "failed"], "whatever becomes of it, nothing more is said of it"
            await engine._raise_crash()


@in_virtual_time
async def test_the_retry_of_an_attempt_that_cannot_be_stopped_begins_when_its_engine_is_gone(tmp_path: Path) -> None:
    bench = leases.lease_bench(tmp_path, stuck_seconds=60.0)
    worker, other = (FlakyWorker(RetryPolicy(max_attempts=2, initial=1, jitter=0), timeout=5) for _ in range(2))
    worker.close_gate("stubborn")
    worker.stubborn = {"stubborn"}
    async with leases.engine(bench, worker) as engine:
        job_id, behind = bench.enqueue("stubborn", key="k"), bench.enqueue("behind", key="k")
        await eventually(lambda: worker.running == ["stubborn"], "the start")
        async with asyncio.timeout(70):
            await engine.ended()
        async with leases.engine(bench, other):
            assert not await engine.stop(grace_seconds=0)
            written = bench.state_of(job_id)
            assert written is not None
            assert (written["status"], written["failures"], written["attempts"][-1]["status"]) == ("queued", 1, "failed")
            await passing(20)
            assert (leases.kinds(bench), other.started) == (["claim"], []), "nobody says that the process is gone"
            dead = leases.Instance(bench, engine.instance_id)
            dead.epoch = bench.claims()[0].offset
            dead.release()
            await eventually(lambda: bench.has_completed(job_id, behind), "the ends")
            worker.open_gate("stubborn")
    assert other.started == [("stubborn", 2), ("behind", 1)]
    assert (ended(bench, job_id).failures, ended(bench, job_id).crashes) == (1, 0)


@in_virtual_time
async def test_a_rebalance_does_not_release_what_runs_on_though_its_end_is_written(tmp_path: Path) -> None:
    bench = leases.lease_bench(tmp_path)
    worker = stubborn_worker()
    async with leases.engine(bench, worker) as engine:
        job_id = bench.enqueue("stubborn")
        await eventually(lambda: worker.running == ["stubborn"], "the start")
        await passing(10)
        [group] = engine.groups
        assert not await group.drain(0)
        assert ended(bench, job_id).status == "failed"
        group._holdings.give_back()
        await passing(5)
        assert leases.kinds(bench) == ["claim"]
        worker.open_gate("stubborn")
        await eventually(lambda: leases.kinds(bench) == ["claim", "stopped"], "the release")


@in_virtual_time
async def test_under_a_lease_that_is_lost_nothing_is_said_of_an_attempt_that_cannot_be_stopped(tmp_path: Path) -> None:
    bench, clocks = leases.lease_bench(tmp_path), leases.Clocks()
    worker = stubborn_worker()
    async with leases.engine(bench, worker, clock=clocks) as engine:
        job_id = bench.enqueue("stubborn")
        await eventually(lambda: worker.running == ["stubborn"], "the start")
        await passing(10)
        clocks.suspend(100)
        await passing(5)
        assert not await engine.stop(grace_seconds=0)
        assert bench.statuses(job_id) == ["running"]
        worker.open_gate("stubborn")


async def test_a_thread_that_goes_on_long_after_its_time_ends_its_engine(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stuck_seconds=0.3)
    worker = ThreadedWorker()
    async with leases.engine(bench, worker) as engine:
        bench.enqueue("slow", attemptTimeout=0.1)
        async with asyncio.timeout(30):
            crash = await engine.ended()
        assert "EngineStuck" in str(crash)
        assert not await engine.stop(grace_seconds=0)
        worker.go_on.set()


@in_virtual_time
async def test_an_attempt_that_ends_late_but_in_time_for_its_engine_ends_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stuck_seconds=60.0)
    worker = stubborn_worker()
    async with leases.engine(bench, worker) as engine:
        job_id = bench.enqueue("stubborn")
        await passing(50)
        worker.open_gate("stubborn")
        ended_by_itself = asyncio.create_task(engine.ended())
        await passing(100)
        assert not ended_by_itself.done()
        ended_by_itself.cancel()
        assert ended(bench, job_id).status == "failed"


@in_virtual_time
async def test_what_runs_on_when_the_lease_is_over_ends_the_process_also_if_its_end_is_written(tmp_path: Path) -> None:
    bench, clocks = leases.lease_bench(tmp_path), leases.Clocks()
    worker = stubborn_worker()
    async with leases.engine(bench, worker, clock=clocks) as engine:
        job_id = bench.enqueue("stubborn")
        await eventually(lambda: worker.running == ["stubborn"], "the start")
        await passing(10)
        assert not await engine.groups[0].drain(0)
        assert ended(bench, job_id).status == "failed"
        clocks.suspend(100)
        async with asyncio.timeout(30):
            why = await engine.ended()
        assert "1 jobs of gated cannot be stopped, and their lease is over" in str(why)
        worker.open_gate("stubborn")
