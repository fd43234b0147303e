"""What a running job says of its progress is written at most once a second, the newest of it, and lost never at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, JobContext, RetryPolicy
from headrace.core.ownership import Version
from headrace.core.records import parse_snapshot_headers
from headrace.core.timestamps import parse_timestamp
from headrace.testing import InMemoryLog
from support import leases
from support.leases import of_status
from support.log import eventually
from support.memory_engines import STATE, Bench, GatedWorker, ended, passing
from support.virtual_time import in_virtual_time


class TalkativeWorker(GatedWorker):
    """Its jobs do what a test says, with their context."""

    def __init__(self, *, retry: RetryPolicy | None = None) -> None:
        super().__init__()
        self.retry = retry
        self.work: Callable[[JobContext], Any]
        self.contexts: list[JobContext] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        self.contexts.append(ctx)
        await super().run(args, ctx)
        return await self.work(ctx)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def told(bench: Bench, job_id: str) -> list[float]:
    """The progress in each snapshot of a running job that has some."""
    return [
        snapshot["progress"]["fraction"]
        for snapshot in bench.written(job_id)
        if snapshot["status"] == "running" and "progress" in snapshot
    ]


@in_virtual_time
async def test_of_what_is_said_the_newest_is_written_once_a_second(bench: Bench) -> None:
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        for number in range(50):
            ctx.progress(number / 100, f"step {number}")
            await asyncio.sleep(0.1)

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "the end")
        assert told(bench, job_id) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.01)
        times = [record.timestamp for record in bench.cluster.topic_records(STATE) if record.key == job_id.encode()][1:-1]
        assert all(later - earlier >= 1_000 for earlier, later in pairwise(times))
        last = ended(bench, job_id).progress
        assert last is not None and (last.fraction, last.text) == (1.0, "step 49"), "it is done, whatever was said"
        versions = [
            headers.version
            for record in bench.cluster.topic_records(STATE)
            if record.key == job_id.encode() and (headers := parse_snapshot_headers(record.headers)) is not None
        ]
        assert versions == [Version(versions[0].epoch, 1, number) for number in range(1, 8)]


@in_virtual_time
async def test_what_is_said_is_written_at_once_if_nothing_was_for_a_second(bench: Bench) -> None:
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        ctx.progress(0.25, "quarter")
        await asyncio.sleep(60)
        ctx.progress(0.5)
        await asyncio.sleep(60)

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(0.5)
        state = bench.state_of(job_id)
        assert state is not None
        assert (state["status"], state["progress"]["fraction"], state["progress"]["text"]) == ("running", 0.25, "quarter")
        assert parse_timestamp(state["progress"]["at"]) == pytest.approx(bench.cluster.now(), abs=600)
        await passing(60)
        state = bench.state_of(job_id)
        assert state is not None and "text" not in state["progress"] and state["progress"]["fraction"] == 0.5


@in_virtual_time
async def test_what_is_said_just_before_the_end_stands_in_the_end_whatever_that_is(bench: Bench) -> None:
    worker = TalkativeWorker(retry=RetryPolicy(max_attempts=2, initial=100, jitter=0))

    async def talk(ctx: JobContext) -> str:
        ctx.progress(0.1)
        await asyncio.sleep(0.5)
        ctx.progress(0.9 if ctx.attempt == 1 else 1.0)
        if ctx.attempt == 1:
            raise ValueError("boom")
        return "done"

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(10)
        waiting = bench.state_of(job_id)
        assert waiting is not None and (waiting["status"], waiting["progress"]["fraction"]) == ("queued", 0.9)
        await passing(100)
        job = ended(bench, job_id)
        assert (job.status, job.progress and job.progress.fraction) == ("completed", 1.0)
        again = [snapshot for snapshot in bench.written(job_id) if snapshot["attempt"] == 2]
        assert "progress" not in again[0], "an attempt begins without the progress of the one before"


@in_virtual_time
async def test_what_is_said_in_the_turn_of_the_end_stands_before_it(bench: Bench) -> None:
    """Compaction keeps the last record of a job, so that must be its end."""
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        ctx.progress(0.5)
        await asyncio.sleep(0)

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "the end")
        written = [(snapshot["status"], snapshot["sequence"]) for snapshot in bench.written(job_id)]
        assert written == [("running", 1), ("running", 2), ("completed", 3)]


@in_virtual_time
async def test_attempts_that_follow_each_other_fast_share_the_one_record_a_second(bench: Bench) -> None:
    worker = TalkativeWorker(retry=RetryPolicy(max_attempts=40, initial=0.1, factor=1, jitter=0))

    async def talk(ctx: JobContext) -> None:
        ctx.progress(ctx.attempt / 100)
        await asyncio.sleep(0.1)
        raise ValueError("boom")

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await passing(30)
        assert ended(bench, job_id).attempt == 40
        assert len(told(bench, job_id)) == 1


@in_virtual_time
async def test_nothing_is_said_of_an_attempt_that_is_over(bench: Bench) -> None:
    worker = TalkativeWorker(retry=RetryPolicy(max_attempts=2, initial=1, jitter=0))

    async def fail_once(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            raise ValueError("boom")
        worker.contexts[0].progress(0.1, "of the first attempt, in the second")
        await asyncio.sleep(5)
        ctx.progress(0.2)
        worker.contexts[0].progress(0.3, "of the first attempt, after the second")
        await asyncio.sleep(5)

    worker.work = fail_once
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "the end")
        worker.contexts[1].progress(0.9, "after the end")
        await passing(5)
        assert told(bench, job_id) == [0.2]
        job = ended(bench, job_id)
        assert job.progress is not None and (job.progress.fraction, job.progress.text) == (1.0, None)


@in_virtual_time
async def test_one_record_of_progress_is_under_way_at_a_time(bench: Bench) -> None:
    """However long the brokers are away: what waits for them is the newest alone."""
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        for number in range(100):
            ctx.progress(number / 100)
            await asyncio.sleep(1)

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: len(told(bench, job_id)) == 3, "some progress")
        held = bench.cluster.hold_acknowledgements(STATE, matching=of_status("running"))
        await held.caught()
        await passing(20)
        assert len(told(bench, job_id)) == 4
        held.release()
        await passing(1)
        assert len(told(bench, job_id)) in (5, 6)
        await eventually(lambda: len(told(bench, job_id)) == 8, "more progress")
        assert told(bench, job_id)[4] - told(bench, job_id)[3] > 0.15, "the newest"


@in_virtual_time
async def test_progress_that_is_not_acknowledged_ends_the_claim(bench: Bench) -> None:
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            bench.cluster.refuse_appends(STATE, matching=of_status("running"))
            ctx.progress(0.5)
            await asyncio.sleep(1_000)

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "the end")
        assert len(bench.claims()) == 2
        assert worker.started == [("a", 1), ("a", 2)]


@in_virtual_time
async def test_a_text_is_kept_as_far_as_there_is_room_for_it(bench: Bench) -> None:
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        ctx.progress(1, "x" * 5_000 + "\ud800")

    worker.work = talk
    async with bench.engine(worker):
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "the end")
        job = ended(bench, job_id)
        assert job.progress is not None and job.progress.text is not None
        assert len(job.progress.text.encode()) <= 1_000 and "shortened" in job.progress.text


class ThreadedWorker(GatedWorker):
    """A plain function that says thousands of times how far it is, until a test has seen enough."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # in a thread, and not in the loop
        for number in range(20_000):
            ctx.progress(number / 20_000)
        if not self.seen.wait(30):
            raise AssertionError("nobody saw it")
        ctx.progress(1)


async def test_a_plain_function_says_it_from_its_thread(bench: Bench) -> None:
    loop, worker = asyncio.get_running_loop(), ThreadedWorker()
    # asyncio then refuses calls that are not meant for other threads, and else work by chance.
    loop.set_debug(True)
    try:
        await see_it(bench, worker)
    finally:
        loop.set_debug(False)


async def see_it(bench: Bench, worker: ThreadedWorker) -> None:
    async with leases.engine(bench, worker):
        await eventually(lambda: bool(bench.claims()), "the claim")
        job_id = bench.enqueue("a")
        await eventually(lambda: told(bench, job_id)[-1:] == [19_999 / 20_000], "its progress")
        worker.seen.set()
        await eventually(lambda: bench.has_completed(job_id), "the end")
        assert len(told(bench, job_id)) <= 10
        job = ended(bench, job_id)
        assert job.progress is not None and job.progress.fraction == 1


async def test_progress_is_in_the_list_of_jobs(bench: Bench) -> None:
    worker = TalkativeWorker()

    async def talk(ctx: JobContext) -> None:
        ctx.progress(0.5, "half")

    worker.work = talk
    async with leases.engine(bench, worker), Client(bench.settings, log=InMemoryLog(bench.cluster)) as client:
        await eventually(lambda: bool(bench.claims()), "the claim")
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "the end")
        [job] = (await client.list_jobs()).jobs
        assert job.progress is not None and (job.progress.fraction, job.progress.text) == (1.0, "half")
