"""Records per second that the view of jobs takes in, beside a bare reader of the same records, and how long its pages take."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.core import snapshots
from headrace.core.identifiers import fresh_id
from headrace.core.ownership import NO_OFFSET, Version
from headrace.core.partitions import state_partition
from headrace.core.records import definition_key, lease_key, source_header, status_header, version_header
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp
from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.ports import Acknowledged, Log, LogWriter, NewRecord, Outcome, TopicPartition
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory

WORKERS: Final = ("memory_compaction_worker", "send_digest", "index_documents", "transcribe_call")
PARTITIONS: Final = 8
PAGE: Final = 20
_IN_FLIGHT: Final = 50_000
_SUBMITTED_AT_ONCE: Final = 500
_PATIENCE_SECONDS: Final = 1_800.0
_INSTANCE: Final = "0192f0c8-3b1e-7cc3-98c4-dc0c0c07398f"

# Of 1,000 jobs: 20 are queued, 10 run, 20 have failed, the rest is completed. A fifth of those that have ended has its `running`
# snapshot still in the log, as compaction leaves it.
_QUEUED: Final = 0.02
_RUNNING: Final = 0.03
_FAILED: Final = 0.05
_UNCOMPACTED: Final = 0.2

Written = tuple[TopicPartition, NewRecord]


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where a measurement takes place, and the epoch of each job partition."""

    log: Log
    topics: Topics
    state_partitions: int
    epochs: dict[tuple[str, int], int]


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
        stage = await _prepare(log, topics)
        began = time.perf_counter()
        records = await _fill(stage, jobs)
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


# --- what is in the log -------------------------------------------------------------------------------------------------


async def _prepare(log: Log, topics: Topics) -> _Stage:
    """Makes the topics, defines the workers, and has one instance claim every partition."""
    await log.create_topics([topics.workers, topics.job_state, *(topics.jobs(worker, PARTITIONS) for worker in WORKERS)])
    count = await log.partition_count(topics.job_state.name)
    writer = log.writer()
    await writer.start()
    epochs: dict[tuple[str, int], int] = {}
    try:
        for worker in WORKERS:
            definition = {"schemaVersion": 1, "name": worker, "description": "Is measured.", "category": "benchmark"}
            record = NewRecord(definition_key(worker), orjson.dumps(definition))
            await writer.append(TopicPartition(topics.workers.name, 0), record, timeout=30)
            for partition in range(PARTITIONS):
                claim = {
                    "schemaVersion": 1,
                    "kind": "claim",
                    "workerName": worker,
                    "partition": partition,
                    "instanceId": _INSTANCE,
                    "previous": NO_OFFSET,
                }
                target = TopicPartition(topics.job_state.name, state_partition(worker, partition, count))
                record = NewRecord(lease_key(worker, partition, _INSTANCE), orjson.dumps(claim))
                epochs[worker, partition] = (await writer.append(target, record, timeout=30)).offset
    finally:
        await writer.stop(timeout=10)
    return _Stage(log, topics, count, epochs)


def _history(stage: _Stage, jobs: int) -> Iterator[Written]:
    """What the jobs have left in the log. The same jobs every time, but for their ids."""
    chance = random.Random(20)
    first = time.time_ns() // 1_000_000 - 3 * jobs
    for number in range(jobs):
        now = first + 3 * number
        worker, partition = WORKERS[min(3, int(chance.expovariate(1)))], number % PARTITIONS
        # Some users have very many jobs, and most have a few.
        user = f"user-{int(chance.paretovariate(0.5)) % 20_000}"
        context = {"userId": user, "conversationId": f"conversation-{number // 4}", "source": "agent"}
        job_id = fresh_id(now, chance.randbytes(10))
        raw: dict[str, Any] = {
            "schemaVersion": 1,
            "id": job_id,
            "tenant": "default",
            "workerName": worker,
            "createdAt": format_timestamp(now),
            "args": {**context, "note": "x" * 60},
            "ctx": context,
        }
        luck = chance.random()
        if luck < _QUEUED:
            yield TopicPartition(stage.topics.jobs_name(worker), partition), NewRecord(job_id.encode(), orjson.dumps(raw))
            continue
        source = {"topic": stage.topics.jobs_name(worker), "partition": partition, "offset": number}
        writer = snapshots.Writer(_INSTANCE, stage.epochs[worker, partition])
        running = snapshots.running(snapshots.queued(raw, source), writer, format_timestamp(now + 40))
        if luck < _RUNNING or luck > 1 - _UNCOMPACTED:
            yield _snapshot(stage, worker, running)
        if luck >= _FAILED:
            yield _snapshot(
                stage, worker, snapshots.completed(running, {"ok": True, "number": number}, format_timestamp(now + 90))
            )
        elif luck >= _RUNNING:
            error = {"type": "ValueError", "message": "no", "traceback": "Traceback (most recent call last):\n" * 20}
            yield _snapshot(stage, worker, snapshots.failed(running, error, format_timestamp(now + 90)))


def _snapshot(stage: _Stage, worker: str, snapshot: dict[str, Any]) -> Written:
    source = snapshot["source"]
    headers = (
        source_header(worker, source["partition"], source["offset"]),
        version_header(Version(snapshot["epoch"], snapshot["attempt"], snapshot["sequence"])),
        status_header(snapshot["status"]),
    )
    target = TopicPartition(stage.topics.job_state.name, state_partition(worker, source["partition"], stage.state_partitions))
    return target, NewRecord(snapshot["id"].encode(), orjson.dumps(snapshot), headers)


class _Filler:
    """Hands records to a writer in pieces, and knows how many are not acknowledged yet."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._gathered: dict[TopicPartition, list[NewRecord]] = {}
        self._open = 0
        self._failure: Exception | None = None
        self._settled = asyncio.Event()

    async def add(self, target: TopicPartition, record: NewRecord) -> None:
        gathered = self._gathered.setdefault(target, [])
        gathered.append(record)
        if len(gathered) >= _SUBMITTED_AT_ONCE:
            self._submit(target)
            await self._wait(_IN_FLIGHT)

    async def finish(self) -> None:
        for target in list(self._gathered):
            self._submit(target)
        await self._wait(0)

    def _submit(self, target: TopicPartition) -> None:
        records = self._gathered.pop(target)
        self._open += len(records)
        self._writer.submit(target, records, lambda outcome: self._done(len(records), outcome))

    def _done(self, count: int, outcome: Outcome) -> None:
        self._open -= count
        if not isinstance(outcome, Acknowledged):
            self._failure = outcome.reason
        self._settled.set()

    async def _wait(self, most: int) -> None:
        await asyncio.sleep(0)
        while self._open > most and self._failure is None:
            self._settled.clear()
            await asyncio.wait_for(self._settled.wait(), 60)
        if self._failure is not None:
            raise BrokerError(f"The records to be measured could not be written: {self._failure}") from self._failure


async def _fill(stage: _Stage, jobs: int) -> int:
    """Writes the history of the jobs; returns how many records that was."""
    writer = stage.log.writer()
    await writer.start()
    try:
        filler = _Filler(writer)
        records = 0
        for target, record in _history(stage, jobs):
            await filler.add(target, record)
            records += 1
        await filler.finish()
    finally:
        await writer.stop(timeout=10)
    return records


# --- what is measured ---------------------------------------------------------------------------------------------------


async def _read_bare(stage: _Stage, records: int) -> float:
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


async def _measure(stage: _Stage, path: Path, records: int) -> tuple[float, dict[str, list[float]], int]:
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
