"""An engine while its broker is away: its leases end when they must, it carries on by itself, and it always stops in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import AbstractWorker, Client, JobContext, Settings, WorkerEngine
from headrace.broker import LocalBroker
from support.engines import ended, engine_with, eventually, with_engine
from support.outages import Away, frozen, killed

GRACE_SECONDS = 2.0
# What an engine may take beyond a grace as short as this, to write what it can and cut off its clients; what a busy machine adds.
BEYOND_SECONDS = 8.0
SLACK_SECONDS = 20.0
LEASE_SECONDS = 4.0


class Waiting(AbstractWorker[dict[str, Any]]):
    """Runs until its gate is open."""

    name = "waiting"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running: list[int] = []
        self.attempts: list[int] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        self.attempts.append(ctx.attempt)
        self.running.append(ctx.attempt)
        try:
            await self.gate.wait()
        finally:
            self.running.remove(ctx.attempt)
        return ctx.attempt

    async def runs(self) -> None:
        async def look() -> bool:
            return len(self.running) == 1

        await eventually(look)


@pytest.mark.parametrize("away", [killed, frozen])
async def test_an_engine_stops_within_its_grace_while_the_broker_is_away(
    fragile_broker: LocalBroker,
    fragile_settings: Settings,
    away: Away,
) -> None:
    worker = Waiting()
    engine = WorkerEngine(fragile_settings)
    engine.register_worker(worker)
    await engine.start()
    loop = asyncio.get_running_loop()
    try:
        await engine.enqueue("waiting", {})
        await worker.runs()
        async with away(fragile_broker):
            begun = loop.time()
            assert await engine.stop(grace_seconds=GRACE_SECONDS)
            took = loop.time() - begun
            assert worker.running == []
    finally:
        await engine.stop(grace_seconds=0)
    assert GRACE_SECONDS <= took < GRACE_SECONDS + BEYOND_SECONDS + SLACK_SECONDS


async def test_a_broker_that_is_away_for_longer_than_a_lease_ends_the_attempts_and_they_are_made_again(
    fragile_broker: LocalBroker, fragile_settings: Settings
) -> None:
    worker, settings = Waiting(), with_engine(fragile_settings, lease_seconds=LEASE_SECONDS)
    async with engine_with(settings, worker, grace=0) as engine, Client(settings) as client:
        job = await engine.enqueue("waiting", {})
        await worker.runs()
        async with frozen(fragile_broker):

            async def none_runs() -> bool:
                return worker.running == []

            # Nobody told it to stop: its lease could not be renewed.
            await eventually(none_runs, within=LEASE_SECONDS + SLACK_SECONDS)
        await worker.runs()
        worker.gate.set()
        done = await ended(client, job)
    # A machine that stands still for some seconds costs an attempt more.
    assert done.attempt >= 2
    assert (done.status, done.result) == ("completed", done.attempt)
    assert [attempt.status for attempt in done.attempts] == ["interrupted"] * (done.attempt - 1) + ["completed"]
    assert worker.attempts == list(range(1, done.attempt + 1))
