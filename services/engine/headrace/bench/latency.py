"""How long a job waits for its start when nothing else does, beside the bare client's round trip."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from headrace.bench.workload import ARGUMENT_BYTES, NoOp, Workload, job_record, new_workload
from headrace.client import Client
from headrace.engine.engine import WorkerEngine
from headrace.errors import HeadraceError
from headrace.job_context import JobContext
from headrace.kafka.bare import BareClient
from headrace.settings import Settings

_WARM_UP = 50
_PATIENCE_SECONDS = 30.0


class Stopwatch(NoOp):
    """Notes when each job starts."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        """Notes the time."""
        self.started[args["payload"]] = time.perf_counter()


async def measure_latency(
    settings: Settings, *, jobs: int = 1_000, per_second: float = 50.0, say: Callable[[str], None]
) -> dict[str, Any]:
    """Enqueues jobs at a steady pace, and measures from each call of `enqueue` to the first line of the worker.

    Returns milliseconds, as median and 99th percentile, of headrace and of the bare client's send and receive; `ratio` is that of
    the medians. Between a job's fetch and its start stands one more acknowledged write, that of its `running` snapshot.
    """
    workload = new_workload(settings)
    try:
        await workload.create()
        payload = job_record().value or b""
        bare = await BareClient(workload.settings).round_trips(workload.queue, jobs + _WARM_UP, 1 / per_second, payload)
        bare = bare[_WARM_UP:]
        say(f"bare round trip: p50 {_p50(bare):.2f} ms, p99 {_p99(bare):.2f} ms")
    finally:
        await workload.remove()
    workload = new_workload(settings)
    try:
        await workload.create()
        waits = (await _waits(workload, jobs + _WARM_UP, 1 / per_second))[_WARM_UP:]
        say(f"enqueue to start: p50 {_p50(waits):.2f} ms, p99 {_p99(waits):.2f} ms")
    finally:
        await workload.remove()
    return {
        "jobs": jobs,
        "start_ms_p50": round(_p50(waits), 3),
        "start_ms_p99": round(_p99(waits), 3),
        "bare_ms_p50": round(_p50(bare), 3),
        "bare_ms_p99": round(_p99(bare), 3),
        "ratio": round(_p50(waits) / _p50(bare), 3),
        "ratio_p99": round(_p99(waits) / _p99(bare), 3),
    }


def _p50(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1000


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[-1] * 1000


async def _waits(workload: Workload, jobs: int, interval: float) -> list[float]:
    worker = Stopwatch()
    engine = WorkerEngine(workload.settings, log=workload.log)
    engine.register_worker(worker)
    await engine.start()
    try:
        async with Client(workload.settings, log=workload.log) as client:
            called = await _enqueue_steadily(client, worker, jobs, interval)
        return [worker.started[name] - at for name, at in called.items()]
    finally:
        await engine.stop(grace_seconds=1)


async def _enqueue_steadily(client: Client, worker: Stopwatch, jobs: int, interval: float) -> dict[str, float]:
    called: dict[str, float] = {}
    await client.enqueue(worker, {"payload": "first"})
    start = time.perf_counter()
    for number in range(jobs):
        await asyncio.sleep(max(0.0, start + number * interval - time.perf_counter()))
        name = f"{number:0{ARGUMENT_BYTES - 20}d}"
        called[name] = time.perf_counter()
        await client.enqueue(worker, {"payload": name})
    deadline = time.perf_counter() + _PATIENCE_SECONDS
    while len(worker.started) <= jobs:
        if time.perf_counter() > deadline:
            raise HeadraceError(f"Only {len(worker.started)} of {jobs} jobs started.")
        await asyncio.sleep(0.01)
    return called
