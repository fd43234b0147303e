"""A part of the engine that ends by an error that nobody expected ends all of it, and whoever runs it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headrace import HeadraceError, JobContext, WorkerEngine, worker
from headrace.settings import Settings, load_settings
from headrace.testing import InMemoryCluster, InMemoryLog


@worker(name="idle")
async def idle(args: dict[str, Any], ctx: JobContext) -> None: ...


class Unexpected(Exception):
    """What no part of the engine knows how to deal with."""


class BrokenLog(InMemoryLog):
    """A log whose groups end by an error of its own making, when it is told to."""

    def __init__(self) -> None:
        super().__init__(InMemoryCluster())
        self.breaks = asyncio.Event()

    def group_consumer(self, *arguments: Any) -> Any:
        consumer, breaks = super().group_consumer(*arguments), self.breaks
        fetch = consumer.fetch

        async def break_or_fetch(*given: Any, **options: Any) -> Any:
            if breaks.is_set():
                raise Unexpected("a fault in the client of the brokers")
            return await fetch(*given, **options)

        consumer.fetch = break_or_fetch  # type: ignore[method-assign]
        return consumer


@pytest.fixture
def memory(tmp_path: Path) -> Settings:
    return load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)


def engine_on(log: InMemoryLog, settings: Settings) -> WorkerEngine:
    engine = WorkerEngine(settings, log=log)
    engine.register_worker(idle)
    return engine


async def test_a_crash_is_raised_where_the_body_ended_well(memory: Settings) -> None:
    log = BrokenLog()
    with pytest.raises(HeadraceError, match="ended by an error of its own: Unexpected") as raised:
        async with asyncio.timeout(30), engine_on(log, memory) as engine:
            log.breaks.set()
            await engine.ended()
    assert isinstance(raised.value.__cause__, Unexpected)


async def test_an_error_of_the_body_goes_before_a_crash(memory: Settings) -> None:
    log = BrokenLog()
    with pytest.raises(LookupError, match="the body's own"):
        async with asyncio.timeout(30), engine_on(log, memory) as engine:
            log.breaks.set()
            await engine.ended()
            raise LookupError("the body's own")


async def test_an_engine_that_did_not_crash_ends_without_an_error(memory: Settings) -> None:
    async with asyncio.timeout(30), engine_on(BrokenLog(), memory) as engine:
        assert [each.name for each in await engine.list_workers()] == ["idle"]
        assert (await engine.list_jobs(worker_name="idle", limit=5)).jobs == []
        with pytest.raises(TypeError, match="worker"):
            await engine.list_jobs(worker="idle")  # type: ignore[call-arg]  # as one misspells it
