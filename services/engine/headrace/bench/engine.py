"""Jobs per second of one engine that drains a full queue, beside a bare loop of the client over the same records."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from headrace.bench.workload import NoOp, Workload, new_workload
from headrace.core import snapshots
from headrace.core.ownership import Version
from headrace.core.records import source_header, status_header, version_header
from headrace.engine.engine import WorkerEngine
from headrace.errors import HeadraceError
from headrace.kafka.bare import BareClient
from headrace.settings import Settings

_STALLED_SECONDS = 60.0


async def measure_engine(
    settings: Settings, *, jobs: int = 300_000, rounds: int = 3, say: Callable[[str], None]
) -> dict[str, Any]:
    """Drains `jobs` jobs in each round, first with the bare client, then with an engine in this process.

    Both write two snapshots for each job, acknowledged by all in-sync replicas, to partitions of a compacted topic.

    Returns the median of the rounds: `jobs_per_second` from the first fetch to the last acknowledgement, `bare_per_second` of the
    bare loop, and the median of the rounds' `ratio`.
    """
    results: list[tuple[float, float]] = []
    for number in range(rounds):
        workload = new_workload(settings)
        try:
            await workload.create()
            await workload.fill(jobs)
            bare = await _drain_bare(workload, jobs)
            rate = await drain(workload, jobs)
        finally:
            await workload.remove()
        results.append((rate, bare))
        say(f"round {number + 1} of {rounds}: {rate:,.0f} jobs/s; the bare loop: {bare:,.0f}/s; ratio {rate / bare:.2f}")
    return {
        "jobs": jobs,
        "rounds": rounds,
        "jobs_per_second": round(statistics.median(rate for rate, _ in results), 1),
        "bare_per_second": round(statistics.median(bare for _, bare in results), 1),
        "ratio": round(statistics.median(rate / bare for rate, bare in results), 3),
    }


async def _drain_bare(workload: Workload, jobs: int) -> float:
    """The bare loop writes snapshots of the same bytes as the engine does."""
    raw = {
        "schemaVersion": 1,
        "id": "01a20366-35d0-7564-93e5-2271408faefa",
        "workerName": NoOp.name,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "args": {"payload": "x" * 186},
        "tenant": "default",
        "ctx": {"userId": "bench"},
    }
    queued = snapshots.queued(raw, {"topic": workload.queue, "partition": 0, "offset": 100_000})
    now = "2026-01-01T00:00:01.000Z"
    running = snapshots.running(queued, snapshots.Writer("01a20366-35d0-7564-93e5-2271408faefb", 10_000), now)
    completed = snapshots.completed(running, None, now)
    headers = [source_header(NoOp.name, 0, 100_000), version_header(Version(10_000, 1, 1)), status_header("running")]
    # A topic like `job-state`, and not that itself: the engine's take-over would have to read it all.
    target = replace(workload.topics.job_state, name=f"{workload.settings.namespace}.bare")
    await workload.log.create_topics([target])
    return await BareClient(workload.settings).drain(
        workload.queue, jobs, target.name, [orjson.dumps(running), orjson.dumps(completed)], headers
    )


async def drain(workload: Workload, jobs: int) -> float:
    """Has an engine do all jobs of the workload's queue; returns how many it did in a second.

    Raises:
        HeadraceError: none ended for a minute.
    """
    engine = WorkerEngine(workload.settings, log=workload.log)
    engine.register_worker(NoOp)
    gc.collect()
    await engine.start()
    try:
        counts = engine.statistics[NoOp.name]
        ended, changed_at = 0, time.perf_counter()
        while counts.ended < jobs:
            await asyncio.sleep(0.01)
            if counts.ended != ended:
                ended, changed_at = counts.ended, time.perf_counter()
            elif time.perf_counter() - changed_at > _STALLED_SECONDS:
                raise HeadraceError(f"The engine stands still after {ended} of {jobs} jobs.")
        return jobs / (counts.last_ended_at - counts.first_fetched_at)
    finally:
        await engine.stop(grace_seconds=1)
