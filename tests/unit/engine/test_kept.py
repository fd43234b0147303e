"""An attempt that was stopped and does not end: it ends its engine after its time, or it is told for as long as it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace import WorkerEngine
from headrace.errors import EngineStuck
from headrace.testing import InMemoryLog
from support import leases
from support.log import eventually
from support.memory_engines import Bench, GatedWorker, passing
from support.requests import cancel
from support.virtual_time import in_virtual_time

STUCK_SECONDS = 100.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return leases.lease_bench(tmp_path, partitions=2, stuck_seconds=STUCK_SECONDS)


class Stubborn(GatedWorker):
    def __init__(self, timeout: float | None) -> None:
        super().__init__()
        self.timeout = timeout
        self.close_gate("a", "b")
        self.stubborn = {"a", "b"}


@asynccontextmanager
async def half_handed_over(bench: Bench, timeout: float | None) -> AsyncIterator[tuple[WorkerEngine, Stubborn]]:
    """An engine that runs an attempt in each of its partitions, neither of which stops; one partition is to go to another."""
    worker = Stubborn(timeout)
    async with leases.engine(bench, worker) as engine:
        await passing(5)
        bench.enqueue("a", 0)
        bench.enqueue("b", 1)
        await eventually(lambda: len(worker.started) == 2, "the starts")
        other = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster))
        other.register_worker(GatedWorker())
        await other.start()
        try:
            await eventually(lambda: bool(worker.interrupted), "the hand-over of one")
            [moved] = set(worker.interrupted)
            worker.open_gate(*{"a", "b"} - {moved})
            yield engine, worker
        finally:
            worker.open_gate("a", "b")
            await other.stop(grace_seconds=0)


@in_virtual_time
async def test_one_that_is_handed_over_before_its_time_and_goes_on_after_it_ends_its_engine(bench: Bench) -> None:
    with pytest.raises(EngineStuck, match=r"should have taken 60 s at most"):
        async with half_handed_over(bench, timeout=60.0) as (engine, worker):
            broken = asyncio.create_task(engine.ended())
            await passing(60 + STUCK_SECONDS - 30)
            assert not broken.done()
            await passing(60)
            assert broken.done()
            worker.open_gate("a", "b")
            await engine._raise_crash()


@in_virtual_time
async def test_one_that_ends_before_that_ends_nothing_else(bench: Bench) -> None:
    async with half_handed_over(bench, timeout=60.0) as (engine, worker):
        await passing(60 + STUCK_SECONDS / 2)
        worker.open_gate("a", "b")
        await passing(STUCK_SECONDS)
        assert not engine._broken.is_set()


@in_virtual_time
async def test_one_that_was_cancelled_and_goes_on_after_its_time_ends_its_engine(bench: Bench) -> None:
    worker = Stubborn(timeout=60.0)
    with pytest.raises(EngineStuck):
        async with leases.engine(bench, worker) as engine:
            await passing(5)
            job_id = bench.enqueue("a")
            await eventually(lambda: worker.running == ["a"], "the start")
            cancel(bench, job_id)
            await eventually(lambda: worker.interrupted == ["a"], "the cancellation")
            async with asyncio.timeout(60 + STUCK_SECONDS + 10):
                await engine.ended()
            worker.open_gate("a")
            await engine._raise_crash()


@in_virtual_time
async def test_one_without_a_time_is_told_each_minute_and_is_a_trouble_after_five(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "should have gone to another engine" in record.getMessage()]

    async with half_handed_over(bench, timeout=None) as (engine, worker):
        [group] = engine.groups
        [moved] = set(worker.interrupted)
        await passing(190)
        assert len(told()) == 3 and all(f"-{moved}, which began at " in message for message in told())
        assert group.health().troubles() == []
        await passing(130)
        [trouble] = group.health().troubles()
        assert trouble.startswith("a partition is kept from another engine for 3")
        worker.open_gate("a", "b")
        await passing(100)
        assert group.health().troubles() == [] and group.health().since_hand_over == 0.0
        assert len(told()) == 5


def test_what_is_not_handed_over_is_no_news(caplog: pytest.LogCaptureFixture, bench: Bench) -> None:
    @in_virtual_time
    async def scenario(**_: Any) -> None:
        worker = Stubborn(None)
        async with leases.engine(bench, worker) as engine:
            await passing(5)
            bench.enqueue("a")
            await passing(400)
            assert engine.groups[0].health().since_hand_over == 0.0
            worker.open_gate("a")

    scenario()
    assert "should have gone" not in caplog.text
