"""Workers of one engine: whatever one of them does, the jobs of another do not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import AbstractWorker, JobContext, RateLimit, RetryPolicy, WorkerEngine
from headrace.core.lease import Moment
from headrace.testing import InMemoryLog
from support.log import eventually
from support.memory_engines import Bench, loop_clock, wall_clock
from support.virtual_time import in_virtual_time

MANY = 50
PROMPTLY_SECONDS = 2.0


class Neighbour(AbstractWorker[dict[str, Any]]):
    """Does not let its neighbour go on, if it can.

    Attributes:
        started: how many attempts were.
    """

    name = "neighbour"

    def __init__(self, run: Callable[[], Any], **attributes: Any) -> None:
        self._does = run
        self.started = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        self.started += 1
        await self._does()


class Quick(AbstractWorker[dict[str, Any]]):
    """Notes how many of its jobs ran."""

    name = "quick"

    def __init__(self) -> None:
        self.ran = 0

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        self.ran += 1


async def never_ends() -> None:
    await asyncio.Event().wait()


async def ends() -> None:
    await asyncio.sleep(0)


async def fails() -> None:
    raise ConnectionError("no answer")


async def takes_no_notice_of_its_time() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if asyncio.get_running_loop().time() > 1_000:
                raise


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "slow": (never_ends, {"concurrency": 2}),
    "failing again and again": (fails, {"retry": RetryPolicy(max_attempts=10_000, initial=0.1, factor=1)}),
    "failing, and waiting for long": (fails, {"retry": RetryPolicy(max_attempts=3, initial=3_600)}),
    "stubborn": (takes_no_notice_of_its_time, {"concurrency": 2, "timeout": 1.0}),
    "limited": (ends, {"rate_limit": RateLimit(2, per_seconds=60)}),
}


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_worker_does_not_slow_another(tmp_path: Path, kind: str) -> None:
    does, attributes = KINDS[kind]
    neighbour, quick = Neighbour(does, **attributes), Quick()
    bench = Bench(tmp_path, partitions=2)
    clock: Callable[[], Moment] = loop_clock
    engine = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster), clock=clock, now=wall_clock)
    for worker in (neighbour, quick):
        engine.register_worker(worker)
    await engine.start()
    try:
        for number in range(MANY):
            await engine.enqueue("neighbour", {"number": number})
        await eventually(lambda: neighbour.started > 0, "its first start")
        for number in range(MANY):
            began = asyncio.get_running_loop().time()
            await engine.enqueue("quick", {"number": number})
            await eventually(lambda: quick.ran == number + 1, "the quick job")  # noqa: B023 - awaited in this turn
            assert asyncio.get_running_loop().time() - began < PROMPTLY_SECONDS
    finally:
        await engine.stop(grace_seconds=0)
