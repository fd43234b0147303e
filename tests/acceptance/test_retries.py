"""A job that failed is tried again on a real broker, also by an engine that was not there when it failed."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from headrace import AbstractWorker, Client, Job, JobContext, Retry, RetryPolicy, Settings, WorkerEngine
from support.engines import ended, engine_with, eventually, snapshots_of

WAIT_SECONDS = 60


class Unsteady(AbstractWorker[dict[str, Any]]):
    """Fails until its third attempt, says how far it is, and hangs if it is told to."""

    name = "unsteady"
    order_by = ("key",)
    retry = RetryPolicy(max_attempts=4, initial=WAIT_SECONDS, factor=1, jitter=0)

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.go_on = asyncio.Event()

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        self.seen.append((args["name"], ctx.attempt))
        if args.get("hangs"):
            await asyncio.Event().wait()
        if args.get("fails") and ctx.attempt < 3:
            raise Retry("not yet", after=0.1) if ctx.attempt == 2 else ConnectionError("no answer")
        if args.get("talks"):
            ctx.progress(0.5, "half of it")
            await self.go_on.wait()
            ctx.progress(1, "all of it")
        return "done"


async def test_a_job_that_failed_is_tried_again_by_the_next_engine_when_it_is_due(settings: Settings) -> None:
    first, second = Unsteady(), Unsteady()
    async with Client(settings) as client:
        async with engine_with(settings, first) as engine:
            job = await engine.enqueue("unsteady", {"name": "a", "key": "k", "fails": True})
            behind = await engine.enqueue("unsteady", {"name": "b", "key": "k"})
            other = await ended(client, await engine.enqueue("unsteady", {"name": "c", "key": "l"}))

            async def waits() -> Job | None:
                found = await client.get_job(job.id)
                return found if found is not None and found.run_at is not None else None

            waiting = await eventually(waits)
            assert (waiting.status, waiting.failures, other.status) == ("queued", 1, "completed")
            assert waiting.run_at is not None and waiting.run_at - waiting.updated_at == timedelta(seconds=WAIT_SECONDS)
        # By the clock of the second it is due within three seconds, of which some have passed.
        late = WorkerEngine(settings, now=lambda: time.time_ns() // 1_000_000 + (WAIT_SECONDS - 3) * 1_000)
        late.register_worker(second)
        async with late:
            done, after = await ended(client, job), await ended(client, behind)
    assert sorted(first.seen) == [("a", 1), ("c", 1)]
    assert second.seen == [("a", 2), ("a", 3), ("b", 1)]
    assert (done.status, done.failures, after.attempt) == ("completed", 2, 1)
    begun = [attempt.started_at for attempt in done.attempts]
    assert begun[1] >= waiting.run_at
    assert [attempt.error and attempt.error.type for attempt in done.attempts] == [
        "ConnectionError",
        "headrace.errors.Retry",
        None,
    ]


async def test_a_job_has_a_policy_and_a_timeout_of_its_own(settings: Settings) -> None:
    worker = Unsteady()
    async with engine_with(settings, worker) as engine, Client(settings) as client:
        policy = RetryPolicy(max_attempts=2, initial=0.2, retry_on=(TimeoutError,))
        late = await ended(client, await client.enqueue(worker, {"name": "a", "hangs": True}, retry=policy, attempt_timeout=0.3))
        failed = await ended(client, await engine.enqueue("unsteady", {"name": "b", "fails": True}, retry=policy))
    assert (late.status, late.failures, late.error and late.error.type) == ("failed", 2, "headrace.errors.JobTimeout")
    assert (failed.status, failed.failures, failed.error and failed.error.type) == ("failed", 1, "ConnectionError")


async def test_progress_is_in_the_list_while_the_job_runs_and_when_it_has_ended(settings: Settings) -> None:
    worker = Unsteady()
    async with engine_with(settings, worker) as engine, Client(settings) as client:
        job = await engine.enqueue("unsteady", {"name": "a", "talks": True})

        async def listed(text: str) -> bool:
            jobs = (await client.list_jobs(worker_name="unsteady")).jobs
            return bool(jobs) and jobs[0].progress is not None and jobs[0].progress.text == text

        await eventually(lambda: listed("half of it"))
        worker.go_on.set()
        await eventually(lambda: listed("all of it"))
        assert (await ended(client, job)).status == "completed"
    written = [(each["status"], each["sequence"]) for each in await snapshots_of(settings, job.id)]
    assert written == [("running", 1), ("running", 2), ("completed", 3)]
