"""Acknowledged jobs per second of a caller, one at a time and many, beside the client's own `send`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from headrace.bench.workload import ARGUMENT_BYTES, PARTITIONS, NoOp, Workload, job_record, new_workload
from headrace.client import Client
from headrace.kafka.bare import BareClient
from headrace.ports import TopicPartition
from headrace.settings import Settings

_CHUNK = 1_000


async def measure_enqueue(
    settings: Settings, *, seconds: float = 5.0, many: int = 50_000, say: Callable[[str], None]
) -> dict[str, Any]:
    """Enqueues jobs of 200 bytes of arguments, in this process and without an engine.

    Returns `calls_per_second` of `enqueue`, each call after the acknowledgement of the one before, with `bare_per_second` and
    `ratio` beside it; and `jobs_per_second` of `enqueue_many` in calls of 1,000, with `many_bare_per_second` and `many_ratio`.
    """
    workload = new_workload(settings)
    try:
        await workload.create()
        payload = job_record().value or b""
        bare = BareClient(workload.settings)
        bare_single = await bare.append_one_by_one(TopicPartition(workload.queue, 0), payload, seconds)
        single = await _one_at_a_time(workload, seconds)
        say(f"one at a time: {single:,.0f} calls/s; the bare client: {bare_single:,.0f}/s")
        bare_many = await bare.append_many(workload.queue, PARTITIONS, payload, many)
        together = await _many(workload, many)
        say(f"many: {together:,.0f} jobs/s; the bare client: {bare_many:,.0f}/s")
    finally:
        await workload.remove()
    return {
        "calls_per_second": round(single, 1),
        "bare_per_second": round(bare_single, 1),
        "ratio": round(single / bare_single, 3),
        "jobs_per_second": round(together, 1),
        "many_bare_per_second": round(bare_many, 1),
        "many_ratio": round(together / bare_many, 3),
    }


def _arguments() -> dict[str, str]:
    return {"payload": "x" * (ARGUMENT_BYTES - len('{"payload":""}'))}


async def _one_at_a_time(workload: Workload, seconds: float) -> float:
    async with Client(workload.settings, log=workload.log) as client:
        client.define(NoOp().definition())
        await client.enqueue(NoOp.name, _arguments())
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            await client.enqueue(NoOp.name, _arguments())
            count += 1
        return count / (time.perf_counter() - started)


async def _many(workload: Workload, count: int) -> float:
    async with Client(workload.settings, log=workload.log) as client:
        client.define(NoOp().definition())
        await client.enqueue(NoOp.name, _arguments())
        started = time.perf_counter()
        for first in range(0, count, _CHUNK):
            await client.enqueue_many(NoOp.name, [_arguments() for _ in range(min(_CHUNK, count - first))])
        return count / (time.perf_counter() - started)
