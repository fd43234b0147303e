"""Records per second that the view of jobs takes in, beside a bare reader of the same records, and how long its pages take."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from headrace.bench.history import WORKERS, Stage, fill, prepare
from headrace.core.status import JobStatus
from headrace.core.topics import Topics
from headrace.ports import Log, TopicPartition
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory

PAGE: Final = 20
_PATIENCE_SECONDS: Final = 1_800.0


async def measure_view(
    log: Log, *, jobs: int = 1_000_000, say: Callable[[str], None], directory: Path | None = None
) -> dict[str, Any]:
    """Fills a namespace of its own with what `jobs` jobs leave in the log, reads it bare, and then into a new view.

    Args:
        log: the cluster; the topics are deleted in the end.
        jobs: how many; a million takes some minutes.
        say: is told what is going on.
        directory: where the file of the view is made; a temporary folder when left out.

    Returns `records_per_second` of the view from its start until it has caught up, `bare_per_second` of a bare reader of the same
    topics, their `ratio`, the time of a page of 20 jobs (`page_ms_p50`, `page_ms_p99`, and `pages` by filter), and `jobs`.
    """
    topics = Topics(f"bench-{uuid.uuid4().hex[:8]}")
    try:
        stage = await prepare(log, topics)
        began = time.perf_counter()
        records = await fill(stage, jobs)
        say(f"{records:,} records of {jobs:,} jobs written in {time.perf_counter() - began:.1f} s")
        bare = records / await _read_bare(stage, records)
        say(f"the bare reader takes {bare:,.0f} records/s")
        with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=directory) as folder:
            rate, pages, size = await _measure(stage, Path(folder) / "jobs.sqlite", records)
    finally:
        await log.delete_topics([name for name in await log.topic_names() if name.startswith(f"{topics.namespace}.")])
    say(f"the view takes {rate:,.0f} records/s, and {size / 1e6:,.0f} MB; ratio {rate / bare:.2f}")
    every = [milliseconds for times in pages.values() for milliseconds in times]
    return {
        "jobs": jobs,
        "records": records,
        "records_per_second": round(rate, 1),
        "bare_per_second": round(bare, 1),
        "ratio": round(rate / bare, 3),
        "page_ms_p50": _percentile(every, 50),
        "page_ms_p99": _percentile(every, 99),
        "pages": {name: {"p50": _percentile(times, 50), "p99": _percentile(times, 99)} for name, times in pages.items()},
        "bytes": size,
    }


def _percentile(values: list[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


# --- what is measured ---------------------------------------------------------------------------------------------------


async def _read_bare(stage: Stage, records: int) -> float:
    """Reads every record with nothing done about it; returns the seconds from the start of the reader to the last record."""
    began = time.perf_counter()
    reader = stage.log.reader()
    await reader.start()
    try:
        names = [stage.topics.job_state.name, *(stage.topics.jobs_name(worker) for worker in WORKERS)]
        counts = {name: await reader.partitions(name) for name in names}
        await reader.assign({TopicPartition(name, number): 0 for name, count in counts.items() for number in range(count)})
        missing = records + len(stage.epochs)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while missing > 0:
                fetched = await reader.fetch(timeout=1.0, maximum=10_000)
                missing -= sum(len(some) for some in fetched.values())
        return time.perf_counter() - began
    finally:
        await reader.stop()


async def _measure(stage: Stage, path: Path, records: int) -> tuple[float, dict[str, list[float]], int]:
    """Fills a new view and pages through it; returns records per second, milliseconds a page by filter, and the bytes of it."""
    workers = WorkerDirectory(stage.log, stage.topics)
    view = JobView(stage.log, stage.topics, workers, path)
    await workers.start()
    try:
        began = time.perf_counter()
        await view.start()
        try:
            await view.wait_caught_up(_PATIENCE_SECONDS)
            seconds = time.perf_counter() - began
            pages = {name: await _page_times(view, wanted) for name, wanted in _FILTERS.items()}
            size = await asyncio.to_thread(_bytes_of, path)
        finally:
            await view.stop()
    finally:
        await workers.stop()
    return records / seconds, pages, size


def _bytes_of(path: Path) -> int:
    """The size of a view that is open: of its file, and of what is still beside it in the write-ahead log."""
    return sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())


_USERS: Final = [f"user-{number}" for number in (1, 2, 3, 7, 40, 1_000)]
_FILTERS: Final[dict[str, list[JobFilter]]] = {
    "all": [JobFilter()],
    "status": [JobFilter(status=status) for status in JobStatus],
    "user": [JobFilter(user_id=user) for user in _USERS],
    "status and user": [JobFilter(user_id=user, status=JobStatus.FAILED) for user in _USERS],
    "worker": [JobFilter(worker_name=worker) for worker in WORKERS],
    "status and worker": [JobFilter(worker_name=worker, status=JobStatus.FAILED) for worker in WORKERS],
    "conversation": [JobFilter(conversation_id=f"conversation-{number * 97}") for number in range(50)],
}


async def _page_times(view: JobView, filters: list[JobFilter]) -> list[float]:
    """Milliseconds of each page of the first ten of each filter, as a caller waits for it."""
    times: list[float] = []
    for wanted in filters:
        cursor: str | None = None
        for _ in range(10):
            began = time.perf_counter()
            page = await view.list_jobs(wanted, limit=PAGE, cursor=cursor)
            times.append((time.perf_counter() - began) * 1000)
            cursor = page.next_cursor
            if cursor is None:
                break
    return times
