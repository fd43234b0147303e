"""Ten thousand jobs at once in one engine, each waiting as for a model's answer: what they take of memory, and of time."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.bench.workload import NoOp, new_workload
from headrace.engine.engine import WorkerEngine
from headrace.errors import HeadraceError
from headrace.job_context import JobContext
from headrace.settings import Settings

_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.25


class Waiter(AbstractWorker[dict[str, Any]]):
    """Waits, as a job does that has asked a model something."""

    name = NoOp.name
    description = "Waits."
    category = NoOp.category

    def __init__(self, jobs: int, seconds: float) -> None:
        self.concurrency = jobs
        self._seconds = seconds
        self.running = 0
        self.most = 0

    async def run(self, args: dict[str, Any], ctx: JobContext) -> dict[str, str]:
        """Gives an answer after a while."""
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self._seconds)
        self.running -= 1
        return {"answer": "It depends."}


async def measure_waiting(
    settings: Settings, *, jobs: int = 10_000, seconds: float = 30.0, say: Callable[[str], None]
) -> dict[str, Any]:
    """Runs jobs that each wait for so many seconds, all of them at once, in an engine in this process.

    Returns `at_once`, how many ran at the same time; `elapsed_seconds` from the first fetch to the last acknowledged end; and
    `peak_megabytes`, the most that the whole process has ever taken of memory, which was `before_megabytes` before.
    """
    workload = new_workload(settings)
    before = _peak_bytes()
    worker = Waiter(jobs, seconds)
    try:
        await workload.create()
        await workload.fill(jobs)
        engine = WorkerEngine(workload.settings, log=workload.log)
        engine.register_worker(worker)
        await engine.start()
        try:
            counts, deadline = engine.statistics[worker.name], time.perf_counter() + seconds + _PATIENCE_SECONDS
            while counts.ended < jobs:
                await asyncio.sleep(_LOOK_SECONDS)
                if time.perf_counter() > deadline:
                    raise HeadraceError(f"Only {counts.ended} of {jobs} jobs have ended.")
            elapsed = counts.last_ended_at - counts.first_fetched_at
        finally:
            await engine.stop(grace_seconds=1)
    finally:
        await workload.remove()
    peak = _peak_bytes()
    say(f"{worker.most:,} jobs at once, each for {seconds:g} s: {elapsed:.1f} s in all, {peak / 1e6:,.0f} MB")
    return {
        "jobs": jobs,
        "seconds_each": seconds,
        "at_once": worker.most,
        "elapsed_seconds": round(elapsed, 2),
        "before_megabytes": round(before / 1e6, 1),
        "peak_megabytes": round(peak / 1e6, 1),
    }


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
