"""In which order, how many at a time and how fast recorded jobs run again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.replay.history import RecordedJob
from headrace.replay.streams.pacing import Order, Pacing, lane_of, run_paced
from support.recorded import Today, recorded_job
from support.virtual_time import in_virtual_time


async def batches_of(*batches: Sequence[RecordedJob]) -> AsyncGenerator[Sequence[RecordedJob]]:
    for batch in batches:
        await asyncio.sleep(0)
        yield batch


def number_of(args: dict[str, Any]) -> Any:
    return args["number"]


Jobs = list[tuple[int, str | None]]
JOBS: st.SearchStrategy[Jobs] = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", None])), max_size=30)


@given(JOBS, st.integers(1, 5), st.sampled_from(Order), st.integers(1, 7))
def test_each_job_runs_once_and_those_of_a_key_one_after_another(drawn: Jobs, concurrency: int, order: Order, size: int) -> None:
    jobs = [recorded_job(number, partition=partition, key=key) for number, (partition, key) in enumerate(drawn)]
    batches = [jobs[first : first + size] for first in range(0, len(jobs), size)]
    today = Today(number_of)

    async def rerun(job: RecordedJob) -> None:
        await today.rerun(job)

    asyncio.run(run_paced(batches_of(*batches), rerun, Pacing(concurrency=concurrency, order=order)))

    assert sorted(today.begun) == list(range(len(jobs)))
    assert today.most_together <= concurrency
    for lane in {each for each in drawn if each[1] is not None}:
        numbers = [number for number, each in enumerate(drawn) if each == lane]
        of_lane = [step for step in today.steps if step[1] in numbers]
        assert of_lane == [(what, number) for number in numbers for what in ("begins", "ends")]
    if order is Order.LOG:
        assert today.begun == list(range(len(jobs)))


@given(JOBS, st.integers(1, 5), st.sampled_from(Order), st.integers(1, 7))
def test_of_a_worker_no_more_run_at_a_time_than_its_code_says(drawn: Jobs, concurrency: int, order: Order, size: int) -> None:
    """And its jobs hold up nobody else's for ever."""
    limits = {"worker-1": 1, "worker-2": 2}
    jobs = [recorded_job(number, worker=f"worker-{kind}", key=key) for number, (kind, key) in enumerate(drawn)]
    today = Today(number_of)
    running: Counter[str] = Counter()

    async def rerun(job: RecordedJob) -> None:
        worker = job.record["workerName"]
        running[worker] += 1
        assert running[worker] <= limits.get(worker, concurrency)
        await today.rerun(job)
        running[worker] -= 1

    batches = [jobs[first : first + size] for first in range(0, len(jobs), size)]
    asyncio.run(run_paced(batches_of(*batches), rerun, Pacing(concurrency=concurrency, order=order), limits))
    assert sorted(today.begun) == list(range(len(jobs)))


async def test_tenants_with_the_same_key_do_not_wait_for_each_other() -> None:
    ada, bob = recorded_job(0, key="k"), recorded_job(1, key="k")
    both = asyncio.Barrier(2)

    async def rerun(job: RecordedJob) -> None:
        await both.wait()

    other = dataclasses.replace(bob, record={**bob.record, "tenant": "bob"})
    async with asyncio.timeout(30):
        await run_paced(batches_of([ada, other]), rerun, Pacing(concurrency=2))
    assert lane_of(ada) == lane_of(bob) != lane_of(other)


async def test_jobs_that_wait_for_their_worker_hold_up_no_others() -> None:
    today = Today(number_of, gate=asyncio.Event())
    jobs = [*(recorded_job(number, worker="one") for number in range(10)), *(recorded_job(number) for number in range(10, 20))]

    async def rerun(job: RecordedJob) -> None:
        if len(today.begun) == 3:  # one of the first worker, and two of the other, wait at the gate
            assert today.gate is not None
            today.gate.set()
        await today.rerun(job)

    await run_paced(batches_of(jobs), rerun, Pacing(concurrency=4), {"one": 1})
    assert today.begun[:4] == [0, 10, 11, 12]
    assert [number for number in today.begun if number < 10] == list(range(10))


async def test_jobs_without_a_key_run_side_by_side() -> None:
    today = Today(number_of, gate=asyncio.Event())
    jobs = [recorded_job(number) for number in range(10)]

    async def rerun(job: RecordedJob) -> None:
        if len(today.begun) == 3:  # so many wait at the gate, and this one is the fourth
            assert today.gate is not None
            today.gate.set()
        await today.rerun(job)

    await run_paced(batches_of(jobs), rerun, Pacing(concurrency=4))
    assert today.most_together == 4


async def test_the_order_of_the_log_goes_over_all_partitions() -> None:
    today = Today(number_of)
    one = [recorded_job(number, partition=0, at=100 + number) for number in (0, 2, 4)]
    other = [recorded_job(number, partition=1, at=100 + number) for number in (1, 3, 5)]

    async def rerun(job: RecordedJob) -> None:
        await today.rerun(job)

    await run_paced(batches_of(one, other), rerun, Pacing(concurrency=1, order=Order.LOG))
    assert today.begun == [0, 1, 2, 3, 4, 5]


async def test_an_error_ends_all_of_it() -> None:
    async def rerun(job: RecordedJob) -> None:
        if job.offset == 3:
            raise LookupError("the history is gone")
        await asyncio.get_running_loop().create_future()  # for ever

    with pytest.raises(LookupError, match="the history is gone"):
        await run_paced(batches_of([recorded_job(number) for number in range(5)]), rerun, Pacing(concurrency=5))


async def test_an_error_of_the_history_ends_it_too() -> None:
    async def broken() -> AsyncGenerator[Sequence[RecordedJob]]:
        yield [recorded_job(0)]
        raise LookupError("no broker")

    async def rerun(job: RecordedJob) -> None:
        await asyncio.sleep(0)

    with pytest.raises(LookupError, match="no broker"):
        await run_paced(broken(), rerun, Pacing(concurrency=2))


@pytest.mark.parametrize(("speed", "starts"), [(1.0, [0.0, 2.0, 60.0]), (10.0, [0.0, 0.2, 6.0])])
@in_virtual_time
async def test_jobs_start_as_fast_as_they_came(speed: float, starts: list[float]) -> None:
    at: list[float] = []
    late = recorded_job(2, partition=0, at=1_000 + 60_000)
    jobs = [recorded_job(0, partition=0, at=1_000), late], [recorded_job(1, partition=1, at=1_000 + 2_000)]
    began = asyncio.get_running_loop().time()

    async def rerun(job: RecordedJob) -> None:
        at.append(asyncio.get_running_loop().time() - began)

    await run_paced(batches_of(*jobs), rerun, Pacing(concurrency=3, speed=speed))
    assert at == pytest.approx(starts, abs=0.01)


async def test_what_waits_is_bounded() -> None:
    """So that a span of any length can be replayed."""
    read = 0
    most_ahead = 0
    run = 0

    async def many() -> AsyncGenerator[Sequence[RecordedJob]]:
        nonlocal read, most_ahead
        batch = [recorded_job(number) for number in range(1_000)]
        for _ in range(30):
            read += len(batch)
            most_ahead = max(most_ahead, read - run)
            yield batch

    async def rerun(job: RecordedJob) -> None:
        nonlocal run
        run += 1

    await run_paced(many(), rerun, Pacing(concurrency=2))
    assert run == 30_000
    assert most_ahead <= 12_000
