"""Streams that go on from an id: what one principal asks for, with whatever ids, holds up no other one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from headrace.views.job_rows import JobKey
from headrace.views.watching import JobWatching
from headrace_gateway.access import ALL_SCOPES, Principal, Turns
from support.access import a_principal
from support.events import PATIENCE, event_stream
from support.served import served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

TOKENS = {name: Principal(subject=name, scopes=ALL_SCOPES) for name in ("ann", "bob")}
STREAMS = 6
"""More than may read at a time what they have missed."""


async def test_many_streams_of_one_principal_hold_up_nobody_else(
    log: WrittenLog, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = asyncio.Event()
    written = JobWatching._written

    async def noted(self: JobWatching, gaps: Any) -> AsyncGenerator[Sequence[JobKey]]:
        reading.set()
        async with aclosing(written(self, gaps)) as parts:
            async for part in parts:
                yield part

    monkeypatch.setattr(JobWatching, "_written", noted)
    engines.enqueue("a")
    engines.enqueue("b", 1)
    async with served(log, tmp_path, TOKENS) as gateway, gateway.http("ann") as ann, gateway.http("bob") as bob:
        async with event_stream(ann, "/events") as stream:
            engines.enqueue("c", 2)
            assert await stream.job() == ("c", "queued")
            before = stream.last_id
            engines.run("a", engines.claim("one", -1))
            assert await stream.job() == ("a", "running")
            between = stream.last_id
            # What comes now is in another partition than what was missed before, which nobody gets to read any more.
            log.cluster.withhold(engines.state(0))
            engines.run("b", engines.claim("one", -1, 1))
            assert await stream.job() == ("b", "running")

        async def resume() -> set[tuple[str, str]]:
            async with event_stream(ann, "/events", before) as again:
                return {await again.job(), await again.job()}

        hers = [asyncio.create_task(resume()) for _ in range(STREAMS)]
        try:
            async with asyncio.timeout(PATIENCE):
                await reading.wait()
                for _ in range(20):
                    # All of them have come by then.
                    await bob.get("/healthz")
                async with event_stream(bob, "/events", between) as again:
                    assert await again.job() == ("b", "running")
            assert not any(each.done() for each in hers)
        finally:
            log.cluster.give_out(engines.state(0))
            told = await asyncio.gather(*hers, return_exceptions=True)
        assert told == [{("a", "running"), ("b", "running")}] * STREAMS


async def test_turns_are_given_to_each_principal_one_at_a_time() -> None:
    turns, order, let_go = Turns(), list[str](), asyncio.Event()

    async def take(principal: Principal, name: str) -> None:
        async with turns.turn(principal):
            order.append(name)
            await let_go.wait()

    ann, other_ann, bob = a_principal(), a_principal(tenant="acme"), a_principal("bob")
    takers = [
        asyncio.create_task(take(principal, name))
        for name, principal in (("ann", ann), ("ann again", ann), ("leaves", ann), ("other", other_ann), ("bob", bob))
    ]
    async with asyncio.timeout(PATIENCE):
        while len(order) < 3:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    assert order == ["ann", "other", "bob"]
    takers[2].cancel()
    let_go.set()
    await asyncio.gather(*takers, return_exceptions=True)
    assert order == ["ann", "other", "bob", "ann again"]
    assert len(turns) == 0
