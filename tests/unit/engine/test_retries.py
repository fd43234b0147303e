"""A job that failed waits for its next attempt in its lane, without a slot, and whoever has its partition then makes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace import GiveUp, Retry, RetryPolicy
from headrace.core.partitions import state_partition
from headrace.core.recovery import PartitionRecovery
from headrace.core.timestamps import parse_timestamp
from headrace.engine.intake import Room
from headrace.engine.partition import OwnedPartition, Work
from headrace.models import RetryRules
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog
from support.flaky import FlakyWorker
from support.leases import Clocks
from support.log import eventually
from support.memory_engines import STATE, Bench, GatedWorker, ended, passing
from support.requests import QUEUE, cancel
from support.virtual_time import in_virtual_time

STEADY = RetryPolicy(max_attempts=4, initial=10, factor=3, jitter=0)
BOOM = ValueError("boom")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@in_virtual_time
async def test_a_job_is_tried_again_when_it_is_due_until_it_completes(bench: Bench) -> None:
    worker = FlakyWorker(STEADY)
    worker.fail("a", BOOM, BOOM)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(60)
        assert bench.statuses(job_id) == ["running", "queued", "running", "queued", "running", "completed"]
        assert worker.waits("a") == [10, 30]
        first = bench.written(job_id)[1]
        assert parse_timestamp(first["runAt"]) - parse_timestamp(first["updatedAt"]) == 10_000
        job = ended(bench, job_id)
        assert [attempt.status for attempt in job.attempts] == ["failed", "failed", "completed"]
        assert [attempt.error and attempt.error.message for attempt in job.attempts] == ["boom", "boom", None]
        assert (job.failures, job.run_at, job.error) == (2, None, None)
        await eventually(lambda: bench.committed() == 1, "the commit")


@in_virtual_time
async def test_a_job_that_fails_as_often_as_its_policy_has_it_fails(bench: Bench) -> None:
    worker = FlakyWorker(STEADY)
    worker.fail("a", *[BOOM] * 9)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(1_000)
        job = ended(bench, job_id)
        assert worker.waits("a") == [10, 30, 90]
        assert (job.status, job.attempt, job.failures) == ("failed", 4, 4)
        assert job.error is not None and (job.error.type, job.error.message) == ("ValueError", "boom")


@in_virtual_time
async def test_without_a_policy_a_job_fails_at_once_and_one_of_its_own_goes_before_the_worker_s(bench: Bench) -> None:
    worker = FlakyWorker()
    own: dict[str, Any] = {
        "retry": RetryRules.of(RetryPolicy(max_attempts=2, initial=5, jitter=0, retry_on=(ValueError,))).to_wire()
    }
    once: dict[str, Any] = {"retry": RetryRules.of(RetryPolicy(max_attempts=1)).to_wire()}
    for name in ("none", "own", "other"):
        worker.fail(name, *[KeyError("k") if name == "other" else BOOM] * 5)
    async with bench.engine(worker):
        jobs = {"none": bench.enqueue("none"), "own": bench.enqueue("own", **own), "other": bench.enqueue("other", **own)}
        await passing(100)
        assert {name: ended(bench, job).attempt for name, job in jobs.items()} == {"none": 1, "own": 2, "other": 1}
        assert worker.waits("own") == [5]
    worker = FlakyWorker(STEADY)
    worker.fail("once", BOOM)
    async with bench.engine(worker):
        job_id = bench.enqueue("once", **once)
        await passing(100)
        assert (ended(bench, job_id).status, worker.names_started()) == ("failed", ["once"])


@in_virtual_time
async def test_a_worker_asks_for_another_attempt_or_for_none(bench: Bench) -> None:
    worker = FlakyWorker()
    worker.fail("asks", Retry("busy", after=7), Retry(after=0))
    worker.fail("insists", *[Retry(after=1)] * 9)
    worker.fail("gives up", GiveUp("no such user"))
    async with bench.engine(worker):
        jobs = [bench.enqueue("asks"), bench.enqueue("insists"), bench.enqueue("gives up", retry={})]
        await passing(100)
        asks, insists, gives_up = (ended(bench, job) for job in jobs)
        assert (asks.status, worker.waits("asks")) == ("completed", [7, 0])
        assert (insists.status, insists.attempt) == ("failed", 5)
        assert insists.error is not None and insists.error.type == "headrace.errors.Retry"
        assert (gives_up.status, gives_up.attempt) == ("failed", 1)
        assert gives_up.error is not None and gives_up.error.message == "no such user"


@in_virtual_time
async def test_a_job_that_waits_for_its_retry_takes_no_slot_and_holds_back_its_own_key_alone(bench: Bench) -> None:
    worker = FlakyWorker(STEADY, concurrency=1)
    worker.fail("k0", BOOM)
    async with bench.engine(worker):
        jobs = [bench.enqueue(f"k{number}", key="k") for number in range(3)]
        others = [bench.enqueue("l0", key="l"), bench.enqueue("free")]
        await passing(9)
        assert bench.has_completed(*others)
        assert worker.names_started() == ["k0", "l0", "free"]
        later = bench.enqueue("k3", key="k")
        await passing(2)
        assert bench.has_completed(*jobs, later)
        assert worker.started == [("k0", 1), ("l0", 1), ("free", 1), ("k0", 2), ("k1", 1), ("k2", 1), ("k3", 1)]


@in_virtual_time
async def test_jobs_that_are_held_back_leave_the_room_of_others_to_them(tmp_path: Path) -> None:
    """More jobs wait, for their retry and behind others that do, than a partition may otherwise have in hand."""
    bench = Bench(tmp_path, buffer_per_partition=4)
    worker = FlakyWorker(STEADY, concurrency=2)
    async with bench.engine(worker) as engine:
        for number in range(10):
            worker.fail(f"r{number}", BOOM)
            bench.enqueue(f"r{number}", key=f"k{number}")
            bench.enqueue(f"behind-{number}", key=f"k{number}")
        await passing(3)
        assert engine.statistics[worker.name].fetched == 20
        for number in range(8):
            bench.enqueue(f"later-{number}", key="k0")
        await passing(2)
        job_id = bench.enqueue("free")
        await passing(1)
        assert bench.has_completed(job_id)
        assert sorted(worker.names_started()) == sorted([*(f"r{number}" for number in range(10)), "free"])
        await passing(10)
        await eventually(lambda: bench.committed() == 29, "all ends")


@pytest.mark.parametrize("ends", ["it ends", "it is cancelled while it waits"])
@in_virtual_time
async def test_jobs_behind_one_that_runs_leave_the_room_of_others_to_them(tmp_path: Path, ends: str) -> None:
    """However long the first of a key runs, and however many stand behind it."""
    bench = Bench(tmp_path, buffer_per_partition=4)
    worker = GatedWorker(concurrency=2)
    worker.close_gate("hot")
    async with bench.engine(worker) as engine:
        bench.enqueue("hot", key="k")
        behind = [bench.enqueue(f"behind-{number}", key="k") for number in range(20)]
        other, free = bench.enqueue("other", key="l"), bench.enqueue("free")
        await passing(5)
        assert bench.has_completed(other)
        assert bench.has_completed(free)
        assert worker.started == [("hot", 1), ("other", 1), ("free", 1)]
        if ends == "it is cancelled while it waits":
            for job_id in behind[:10]:
                cancel(bench, job_id)
            await passing(5)
        worker.open_gate("hot")
        await eventually(lambda: bench.committed() == 23, "all ends")
        [group] = engine._groups
        partition = group._holdings.ready[TopicPartition(QUEUE, 0)]
        assert (partition.held_back, len(partition.works)) == (0, 0)


def test_a_partition_with_too_many_jobs_that_are_held_back_has_no_room() -> None:
    partition = OwnedPartition(TopicPartition("jobs", 0), state_partition("w", 0, 16), PartitionRecovery("w", 0, 0))
    for offset in range(14):
        partition.hold(Work(partition, offset, None, partition.unbegun))
    room = Room(5, 1_000, held_back=10)
    assert room.is_full(partition)
    partition.held_back = 9
    assert room.is_full(partition), "five are free, and have no room"
    partition.held_back = 10
    assert room.is_full(partition), "ten are held back, and no more may be"
    partition.let_go(13)
    partition.held_back = 9
    assert not room.is_full(partition) and not room.is_half_empty(partition)
    partition.let_go(12)
    partition.let_go(11)
    partition.held_back = 5
    assert not room.is_half_empty(partition)
    for offset in range(4, 11):
        partition.let_go(offset)
    partition.held_back = 2
    assert room.is_half_empty(partition)


@in_virtual_time
async def test_what_is_left_of_a_wait_is_waited_for_by_the_next_owner(bench: Bench) -> None:
    policy = RetryPolicy(initial=600, jitter=0)
    first, second = FlakyWorker(policy), FlakyWorker(policy)
    first.fail("a", BOOM)
    async with bench.engine(first):
        jobs = [bench.enqueue("a", key="k"), bench.enqueue("b", key="k")]
        await passing(100)
    async with bench.engine(second):
        await passing(300)
        assert second.started == []
        free = bench.enqueue("free")
        await passing(1)
        assert bench.has_completed(free)
        await passing(400)
        assert bench.has_completed(*jobs)
        assert second.started == [("free", 1), ("a", 2), ("b", 1)]
        wait = second.started_at["a"][0] - first.started_at["a"][0]
        assert 599.9 < wait < 601


@in_virtual_time
async def test_a_job_that_became_due_while_nobody_had_its_partition_runs_at_once(bench: Bench) -> None:
    first, second = FlakyWorker(STEADY), FlakyWorker(STEADY)
    first.fail("a", BOOM)
    async with bench.engine(first):
        job_id = bench.enqueue("a")
        await passing(1)
    await passing(3_600)
    begun = asyncio.get_running_loop().time()
    async with bench.engine(second):
        assert bench.has_completed(job_id)
        assert second.started_at["a"][0] - begun < 2


@in_virtual_time
async def test_a_job_that_waits_goes_with_its_partition_to_another_engine_that_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, partitions=2)
    first, second = FlakyWorker(STEADY), FlakyWorker(STEADY)
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    for number in range(2):
        first.fail(f"r{number}", BOOM)
    async with bench.engine(first, log):
        jobs = [bench.enqueue(f"r{number}", number, key="k") for number in range(2)]
        behind = [bench.enqueue(f"behind-{number}", number, key="k") for number in range(2)]
        await passing(1)
        async with bench.engine(second, other):
            await passing(20)
            for number in range(2):
                assert bench.has_completed(jobs[number], behind[number], partition=number)
    began = sorted(first.started + second.started)
    assert began == [("behind-0", 1), ("behind-1", 1), ("r0", 1), ("r0", 2), ("r1", 1), ("r1", 2)]
    assert len(second.started) == 2, "one partition, with the job that waited and the one behind it"
    [moved] = [name for name, attempt in second.started if attempt == 2]
    assert 9.9 < second.started_at[moved][0] - first.started_at[moved][0] < 11


@in_virtual_time
async def test_a_job_that_waits_when_its_claim_is_lost_is_due_when_it_was(bench: Bench) -> None:
    worker = FlakyWorker(RetryPolicy(initial=60, jitter=0))
    worker.fail("a", BOOM)
    async with bench.engine(worker):
        job_id = bench.enqueue("a", key="k")
        await passing(1)
        bench.cluster.refuse_appends(STATE)
        other = bench.enqueue("other")
        await passing(30)
        assert len(bench.claims()) == 2 and bench.has_completed(other)
        await passing(40)
        assert bench.has_completed(job_id)
        assert worker.waits("a") == [60]


@in_virtual_time
async def test_interruptions_are_no_failures(bench: Bench) -> None:
    policy = RetryPolicy(max_attempts=2, initial=20, jitter=0)
    worker = FlakyWorker(policy)
    worker.fail("a", BOOM)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: "queued" in bench.statuses(job_id), "the first failure")
    for _ in range(25):
        worker = FlakyWorker(policy)
        worker.close_gate("a")
        async with bench.engine(worker):
            await passing(20)
            assert worker.interrupted == []
    worker = FlakyWorker(policy)
    worker.fail("a", BOOM)
    async with bench.engine(worker):
        await passing(2)
        job = ended(bench, job_id)
        assert (job.status, job.failures, job.attempt) == ("failed", 2, 27)
        # The first failure is no more in the history, and counts all the same.
        assert [attempt.status for attempt in job.attempts] == ["interrupted"] * 19 + ["failed"]


@in_virtual_time
async def test_an_attempt_that_fails_while_its_engine_stops_is_tried_again_elsewhere(bench: Bench) -> None:
    first, second = FlakyWorker(STEADY), FlakyWorker(STEADY)
    first.close_gate("a")
    first.fail("a", BOOM)
    async with bench.engine(first) as engine:
        job_id = bench.enqueue("a", key="k")
        await eventually(lambda: first.running == ["a"], "the start")
        stopping = asyncio.create_task(engine.stop(grace_seconds=5))
        await passing(1)
        first.open_gate("a")
        assert await stopping
        assert bench.statuses(job_id) == ["running", "queued"]
        assert "runAt" in bench.written(job_id)[-1]
    async with bench.engine(second):
        await passing(20)
        assert bench.has_completed(job_id)
        assert 9.9 < second.started_at["a"][0] - first.started_at["a"][0] < 12


@in_virtual_time
async def test_the_wait_goes_on_while_the_machine_sleeps(bench: Bench) -> None:
    worker, clocks = FlakyWorker(RetryPolicy(initial=600, jitter=0)), Clocks()
    worker.fail("a", BOOM)
    async with bench.engine(worker, clock=clocks):
        job_id = bench.enqueue("a")
        await passing(60)
        clocks.suspend(600)
        await passing(6)
        assert bench.has_completed(job_id)


@in_virtual_time
async def test_what_is_left_to_chance_differs_from_job_to_job(bench: Bench) -> None:
    worker = FlakyWorker(RetryPolicy(initial=100, jitter=1), concurrency=50)
    names = [f"j{number}" for number in range(50)]
    for name in names:
        worker.fail(name, BOOM)
    async with bench.engine(worker):
        for name in names:
            bench.enqueue(name)
        await passing(110)
        waits = [worker.waits(name)[0] for name in names]
        assert 0 <= min(waits) < 25 and 75 < max(waits) <= 100
        assert len(set(waits)) > 20


@in_virtual_time
async def test_a_result_that_cannot_be_kept_is_a_failure_like_any_other(bench: Bench) -> None:
    class Unreadable(FlakyWorker):
        async def run(self, args: dict[str, Any], ctx: Any) -> Any:
            await super().run(args, ctx)
            return object() if ctx.attempt == 1 else "plain"

    worker = Unreadable(STEADY)
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(20)
        job = ended(bench, job_id)
        assert (job.status, job.result, job.failures) == ("completed", "plain", 1)
