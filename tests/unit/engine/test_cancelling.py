"""A job that somebody cancels ends as cancelled wherever it stands, and one that waits never starts."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from headrace import ConfigurationError, JobContext, JobUnknown, RetryPolicy, WorkerEngine
from headrace.models import Source
from headrace.testing import InMemoryLog
from support import leases, requests
from support.flaky import FlakyWorker
from support.jobs import a_job
from support.leases import of_status
from support.log import eventually
from support.memory_engines import STATE, Bench, GatedWorker, passing
from support.requests import CONTROL, QUEUE, cancel, standing
from support.virtual_time import in_virtual_time

BOOM = ValueError("boom")
IN_A_WHILE = RetryPolicy(max_attempts=5, initial=100, jitter=0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def attempts(bench: Bench, job_id: str) -> list[str]:
    """What became of each attempt of a job."""
    return [attempt["status"] for attempt in bench.written(job_id)[-1]["attempts"]]


@in_virtual_time
async def test_a_job_that_waits_ends_at_once_and_never_starts(bench: Bench) -> None:
    worker = GatedWorker(concurrency=1)
    worker.close_gate("first")
    async with bench.engine(worker):
        first, second, third = (bench.enqueue(name) for name in ("first", "second", "third"))
        await eventually(lambda: worker.running == ["first"], "the start")
        cancel(bench, second)
        await passing(1)
        assert bench.statuses(second) == ["cancelled"]
        snapshot = bench.written(second)[0]
        assert (snapshot["attempt"], snapshot["attempts"], snapshot["finishedAt"]) == (0, [], snapshot["updatedAt"])
        worker.open_gate("first")
        await eventually(lambda: bench.has_completed(first, third) and bench.committed() == 3, "the ends of the others")
        assert worker.names_started() == ["first", "third"]
        assert standing(bench) == []


@pytest.mark.parametrize("cancelled", ["a", "b", "c"])
@in_virtual_time
async def test_the_others_of_its_key_run_in_their_order(bench: Bench, cancelled: str) -> None:
    worker = GatedWorker(concurrency=1)
    worker.close_gate("blocker")
    async with bench.engine(worker):
        bench.enqueue("blocker")
        await eventually(lambda: worker.running == ["blocker"], "the start")
        jobs = {name: bench.enqueue(name, key="k") for name in "abcd"}
        await passing(1)
        cancel(bench, jobs[cancelled])
        await passing(1)
        assert bench.statuses(jobs[cancelled]) == ["cancelled"]
        worker.open_gate("blocker")
        await eventually(lambda: bench.committed() == 5, "the ends of all")
        assert worker.names_started() == ["blocker", *(name for name in "abcd" if name != cancelled)]


@in_virtual_time
async def test_a_job_that_waits_for_its_retry_waits_no_more_and_neither_does_its_key(bench: Bench) -> None:
    worker = FlakyWorker(IN_A_WHILE)
    worker.fail("a", BOOM, BOOM)
    async with bench.engine(worker) as engine:
        [partition] = engine._groups[0]._holdings.held.values()
        first, second, third = (bench.enqueue(name, key="k") for name in "abc")
        await eventually(lambda: bench.statuses(first) == ["running", "queued"], "the failure")
        await passing(1)
        assert partition.held_back == 3
        cancel(bench, second)
        await passing(1)
        assert partition.held_back == 2
        cancel(bench, first)
        await passing(1)
        assert partition.held_back == 0
        assert bench.statuses(first) == ["running", "queued", "cancelled"]
        assert attempts(bench, first) == ["failed"]
        assert "runAt" not in bench.written(first)[-1]
        assert bench.has_completed(third)
        await passing(200)
        assert worker.names_started() == ["a", "c"]
        assert bench.committed() == 3


@in_virtual_time
async def test_a_job_that_runs_is_stopped_within_a_second(bench: Bench) -> None:
    worker = FlakyWorker(IN_A_WHILE)
    worker.close_gate("a")
    async with bench.engine(worker):
        job = bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        cancel(bench, job)
        await passing(0.9)
        assert (worker.interrupted, worker.running) == (["a"], [])
        assert bench.statuses(job) == ["running", "cancelled"]
        assert attempts(bench, job) == ["cancelled"]
        await passing(1_000)
        assert worker.started == [("a", 1)], "it is not tried again"
        assert (standing(bench), bench.committed()) == ([], 1)


@pytest.mark.parametrize("outcome", ["returns", "raises"])
@in_virtual_time
async def test_whatever_a_stopped_attempt_does_on_its_way_out_its_job_is_cancelled(
    bench: Bench, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FlakyWorker(IN_A_WHILE, concurrency=1)
    worker.close_gate("stubborn")
    worker.stubborn = {"stubborn"}
    if outcome == "raises":
        worker.fail("stubborn", BOOM)
    async with bench.engine(worker):
        job, behind = bench.enqueue("stubborn", key="k"), bench.enqueue("behind", key="k")
        await eventually(lambda: worker.running == ["stubborn"], "the start")
        cancel(bench, job)
        await passing(20)
        assert bench.statuses(job) == ["running"]
        assert worker.names_started() == ["stubborn"], "its slot and its key are its own until it ends"
        assert "was cancelled 10 s ago, and goes on all the same" in caplog.text
        worker.open_gate("stubborn")
        await eventually(lambda: bench.has_completed(behind), "the end of the other")
        assert bench.statuses(job) == ["running", "cancelled"]
        assert "result" not in bench.written(job)[-1]
        assert "error" not in bench.written(job)[-1]


@in_virtual_time
async def test_a_job_that_starts_in_the_same_moment_does_not(bench: Bench) -> None:
    worker = GatedWorker(concurrency=1)
    async with bench.engine(worker):
        held = bench.cluster.hold_acknowledgements(STATE, matching=of_status("running"))
        job, other = bench.enqueue("a", key="k"), bench.enqueue("b", key="k")
        await held.caught()
        cancel(bench, job)
        await passing(1)
        assert bench.statuses(job) == ["running"]
        held.release()
        await eventually(lambda: bench.has_completed(other), "the end of the other")
        assert bench.statuses(job) == ["running", "cancelled"]
        assert worker.names_started() == ["b"]


@pytest.mark.parametrize("taken_back", [True, False])
@in_virtual_time
async def test_a_job_that_is_being_interrupted_ends(bench: Bench, taken_back: bool) -> None:
    """Also when its partition goes to another engine: that one does not start it."""
    worker, successor = FlakyWorker(IN_A_WHILE), GatedWorker()
    worker.fail("a", BOOM)
    async with bench.engine(worker) as engine:
        held = bench.cluster.hold_acknowledgements(STATE, matching=of_status("queued"))
        job = bench.enqueue("a")
        await held.caught()
        cancel(bench, job)
        await passing(1)
        stopping = None if taken_back else asyncio.create_task(engine.stop(grace_seconds=0))
        await passing(1)
        held.release()
        await eventually(lambda: bench.statuses(job) == ["running", "queued", "cancelled"], "the end")
        if stopping is not None:
            await stopping
    async with bench.engine(successor):
        await eventually(lambda: standing(bench) == [], "the end of the request")
    assert successor.started == []


@in_virtual_time
async def test_a_job_whose_end_is_under_way_has_ended_first(bench: Bench) -> None:
    async with bench.engine(GatedWorker()):
        held = bench.cluster.hold_acknowledgements(STATE, matching=of_status("completed"))
        job = bench.enqueue("a")
        await held.caught()
        cancel(bench, job)
        await passing(1)
        held.release()
        await eventually(lambda: standing(bench) == [], "the end of the request")
        assert bench.statuses(job) == ["running", "completed"]


@in_virtual_time
async def test_what_is_asked_before_an_engine_starts_is_known_before_it_starts_a_job(bench: Bench) -> None:
    requests.make_topics(bench)
    jobs = [bench.enqueue(name) for name in "abc"]
    for job in jobs[:2]:
        cancel(bench, job)
    worker = GatedWorker()
    async with bench.engine(worker):
        await eventually(lambda: bench.committed() == 3, "the ends of all")
        assert [bench.statuses(job)[-1] for job in jobs] == ["cancelled", "cancelled", "completed"]
        assert worker.names_started() == ["c"]
        assert standing(bench) == []


@in_virtual_time
async def test_a_new_owner_knows_what_was_asked_before_its_claim_however_late_it_hears_of_it(bench: Bench) -> None:
    requests.make_topics(bench)
    first, second = GatedWorker(concurrency=1), GatedWorker()
    first.close_gate("running")
    log = InMemoryLog(bench.cluster)
    async with bench.engine(first, log) as engine:
        running, waiting = bench.enqueue("running"), bench.enqueue("waiting")
        await eventually(lambda: first.running == ["running"], "the start")
        async with leases.engine(bench, second):
            # Neither engine hears of it, and the partition changes hands.
            bench.cluster.withhold(CONTROL)
            cancel(bench, running)
            cancel(bench, waiting)
            await engine.stop(grace_seconds=0)
            await eventually(lambda: len(bench.claims()) == 2, "the second claim")
            await passing(300)
            assert second.started == []
            bench.cluster.give_out(CONTROL)
            await eventually(lambda: bench.committed() == 2, "the ends of both")
            assert second.started == []
            assert bench.statuses(running) == ["running", "queued", "cancelled"]
            assert bench.statuses(waiting) == ["cancelled"]
            assert standing(bench) == []


@in_virtual_time
async def test_an_attempt_that_died_with_its_engine_is_cancelled_and_counts_as_interrupted(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("a")
    short = leases.lease_bench(bench.settings.data_directory)
    requests.make_topics(short)
    log = InMemoryLog(short.cluster)
    async with short.engine(first, log):
        job = short.enqueue("a")
        await eventually(lambda: first.running == ["a"], "the start")
        log.cut_off()
        cancel(short, job)
        async with leases.engine(short, second):
            await passing(120)
            assert second.started == []
            state = short.state_of(job)
            assert state is not None and state["status"] == "cancelled"
            assert [attempt["status"] for attempt in state["attempts"]] == ["interrupted"]
            assert standing(short) == []


@in_virtual_time
async def test_to_ask_again_changes_nothing_and_nothing_stands_for_a_job_that_has_ended(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("a")
    worker.stubborn = {"a"}
    async with bench.engine(worker):
        job, other = bench.enqueue("a"), bench.enqueue("b")
        await eventually(lambda: bench.has_completed(other), "the end of the other")
        for _ in range(3):
            cancel(bench, job)
            cancel(bench, other)
            await passing(1)
        assert worker.interrupted == ["a"]
        worker.stubborn = set()
        worker.open_gate("a")
        await eventually(lambda: bench.committed() == 2, "the end")
        cancel(bench, job)
        await eventually(lambda: standing(bench) == [], "the end of the requests")
        assert bench.statuses(job) == ["running", "cancelled"]
        assert bench.statuses(other) == ["running", "completed"]


@in_virtual_time
async def test_a_request_that_its_engine_left_behind_goes_with_the_next_take_over(bench: Bench) -> None:
    async with bench.engine(GatedWorker()):
        job = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job) and bench.committed() == 1, "the end")
    cancel(bench, job)
    worker = GatedWorker()
    async with bench.engine(worker):
        await eventually(lambda: standing(bench) == [], "the end of the request")
        assert (worker.started, bench.statuses(job)) == ([], ["running", "completed"])


@in_virtual_time
async def test_a_request_of_another_tenant_or_for_another_job_at_that_place_cancels_nothing(bench: Bench) -> None:
    requests.make_topics(bench)
    job = bench.enqueue("a")
    cancel(bench, job, tenant="acme")
    cancel(bench, "unknown", source=Source(topic=QUEUE, partition=0, offset=0))
    later = cancel(bench, "unknown-too", source=Source(topic=QUEUE, partition=0, offset=77))
    async with bench.engine(GatedWorker()):
        await eventually(lambda: bench.has_completed(job), "the end")
    async with bench.engine(GatedWorker()):
        await eventually(lambda: standing(bench) == [later], "the end of the requests that nothing is left of")


@in_virtual_time
async def test_a_job_of_another_tenant_than_the_default_is_cancelled_for_its_own(bench: Bench) -> None:
    requests.make_topics(bench)
    waiting, kept = bench.enqueue("waiting", tenant="acme"), bench.enqueue("kept", tenant="acme")
    cancel(bench, waiting, tenant="acme")
    cancel(bench, kept)
    worker = GatedWorker()
    worker.close_gate("kept", "running")
    async with bench.engine(worker):
        running = bench.enqueue("running", tenant="acme")
        await eventually(lambda: sorted(worker.running) == ["kept", "running"], "the starts")
        cancel(bench, running, tenant="acme")
        await passing(1)
        assert [bench.statuses(job)[-1] for job in (waiting, running, kept)] == ["cancelled", "cancelled", "running"]


@in_virtual_time
async def test_an_attempt_that_tidies_up_after_an_interruption_is_not_stopped_once_more(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("a")
    worker.stubborn = {"a"}
    async with bench.engine(worker) as engine:
        job = bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        stopping = asyncio.create_task(engine.stop(grace_seconds=0))
        await passing(0.5)
        assert worker.interrupted == ["a"]
        cancel(bench, job)
        await passing(0.3)
        assert worker.interrupted == ["a"]
        worker.open_gate("a")
        await stopping
        assert bench.statuses(job) == ["running", "cancelled"]


class CooperativeWorker(GatedWorker):
    """A plain function that looks whether it is to end, and takes its time then."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__(concurrency=1)
        self.raises = raises
        self.told = threading.Event()
        self.go_on = threading.Event()

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # in a thread, and not in the loop
        self.started.append((args["name"], ctx.attempt))
        if args["name"] != "slow":
            return None
        deadline = time.monotonic() + 30
        while not ctx.cancelled:
            assert time.monotonic() < deadline, "nobody cancelled it"
            time.sleep(0.01)
        self.told.set()
        assert self.go_on.wait(30), "nobody let it go on"
        if self.raises:
            ctx.raise_if_cancelled()
        return "half of it"


@pytest.mark.parametrize("raises", [True, False])
async def test_a_plain_function_is_told_and_keeps_its_slot_until_it_ends(bench: Bench, raises: bool) -> None:
    worker = CooperativeWorker(raises=raises)
    async with leases.engine(bench, worker):
        await eventually(lambda: bool(bench.claims()), "the claim")
        job, behind = bench.enqueue("slow"), bench.enqueue("behind")
        await eventually(lambda: worker.started == [("slow", 1)], "the start")
        cancel(bench, job)
        await eventually(worker.told.is_set, "the cancellation")
        assert (worker.started, bench.statuses(job)) == ([("slow", 1)], ["running"])
        worker.go_on.set()
        await eventually(lambda: bench.has_completed(behind), "the end of the other")
        assert bench.statuses(job) == ["running", "cancelled"]


def test_outside_of_an_engine_nothing_is_cancelled() -> None:
    context = JobContext(a_job("a"))
    assert not context.cancelled
    context.raise_if_cancelled()


async def test_an_engine_cancels_as_a_client_does(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("long")
    async with leases.engine(bench, worker) as engine:
        job = await engine.enqueue(GatedWorker.name, {"name": "long"})
        await eventually(lambda: worker.running == ["long"], "the start")
        assert (await engine.cancel_job(job.id, wait=30)).status == "cancelled"
        with pytest.raises(JobUnknown, match="nothing"):
            await engine.cancel_job("nothing")
    assert attempts(bench, job.id) == ["cancelled"]
    with pytest.raises(ConfigurationError, match="has ended"):
        await engine.cancel_job(job.id)
    with pytest.raises(ConfigurationError, match="has not started"):
        await WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster)).cancel_job(job.id)
