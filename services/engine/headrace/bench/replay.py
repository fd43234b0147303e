"""Recorded jobs per second that are scanned, beside a bare consumer of the same records, and that are replayed in process."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

from headrace.bench.engine import drain
from headrace.bench.workload import NoOp, Workload, new_workload
from headrace.errors import HeadraceError
from headrace.kafka.bare import BareClient
from headrace.ports import TopicPartition
from headrace.replay import Pacing, Rerunner, Span, StreamReplay, Wanted
from headrace.replay.recorded.log_history import LogHistory
from headrace.settings import Settings

_MILLISECONDS_AROUND: Final = 60_000


async def measure_replay(
    settings: Settings, *, jobs: int = 100_000, rounds: int = 3, say: Callable[[str], None]
) -> dict[str, Any]:
    """Has an engine do `jobs` jobs of a worker that does nothing, and then reads and runs them again, in each round.

    Returns the medians of the rounds: `scanned_per_second`, the jobs that the history gives, each with the snapshot that counts,
    and nobody looks at them;
    `bare_per_second`, the same jobs by a bare consumer that reads all records of the queue and of `job-state` one partition
    after another; their `ratio`; and `replayed_per_second`, the jobs that are read, run in this process and compared.
    """
    workload = new_workload(settings)
    results: list[tuple[float, float, float]] = []
    try:
        await workload.create()
        began = time.time_ns() // 1_000_000
        await workload.fill(jobs)
        await drain(workload, jobs)
        wanted = Wanted(
            span=Span(began - _MILLISECONDS_AROUND, time.time_ns() // 1_000_000 + _MILLISECONDS_AROUND), workers=(NoOp.name,)
        )
        for number in range(rounds):
            gc.collect()
            bare = jobs / await _read_bare(workload)
            scanned = jobs / await _scan(workload, wanted, jobs)
            replayed = jobs / await _replay(workload, wanted, jobs)
            results.append((scanned, bare, replayed))
            say(
                f"round {number + 1} of {rounds}: {scanned:,.0f} jobs/s scanned; the bare consumer: {bare:,.0f}/s;"
                f" {replayed:,.0f} jobs/s replayed"
            )
    finally:
        await workload.remove()
    return {
        "jobs": jobs,
        "rounds": rounds,
        "scanned_per_second": round(statistics.median(scanned for scanned, _, _ in results), 1),
        "bare_per_second": round(statistics.median(bare for _, bare, _ in results), 1),
        "ratio": round(statistics.median(scanned / bare for scanned, bare, _ in results), 3),
        "replayed_per_second": round(statistics.median(replayed for _, _, replayed in results), 1),
    }


async def _read_bare(workload: Workload) -> float:
    """Seconds for all records of the queue and of `job-state`, without the time in which a client connects."""
    reader = workload.log.reader()
    await reader.start()
    try:
        names = (workload.queue, workload.topics.job_state.name)
        partitions = [TopicPartition(name, number) for name in names for number in range(await reader.partitions(name))]
        starts, ends = await reader.start_offsets(partitions), await reader.end_offsets(partitions)
    finally:
        await reader.stop()
    client = BareClient(workload.settings)
    return sum([await client.read(each, starts[each], ends[each]) for each in partitions if starts[each] < ends[each]])


async def _scan(workload: Workload, wanted: Wanted, jobs: int) -> float:
    history = LogHistory(workload.log, workload.topics)
    began, found = time.perf_counter(), 0
    async with aclosing(history.jobs(wanted)) as batches:
        async for batch in batches:
            found += len(batch)
    _check(found, jobs)
    return time.perf_counter() - began


async def _replay(workload: Workload, wanted: Wanted, jobs: int) -> float:
    history = LogHistory(workload.log, workload.topics)
    async with Rerunner(history, [NoOp()]) as rerunner:
        replay = StreamReplay(history, rerunner, wanted, Pacing(concurrency=100))
        began = time.perf_counter()
        summary = await replay.run()
        _check(summary.counts["same"], jobs)
        return time.perf_counter() - began


def _check(found: int, jobs: int) -> None:
    if found != jobs:
        raise HeadraceError(f"Of {jobs} jobs {found} came back as they were.")
