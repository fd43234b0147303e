"""Yesterday's traffic through today's code, on the real broker: what is the same, what a change has changed, and what is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import AbstractWorker, Client, JobContext, Settings
from headrace.replay import Pacing, Span, StreamRequest, Summary, replay_stream
from headrace.replay.pacing import Order
from headrace.replay.summary import SLOWER
from support.clusters import state_of
from support.engines import ended, engine_with, with_engine
from support.traffic import WORKERS, Fetch, NumberArgs, Render, Tally, TallyArgs, Traffic, record_traffic

EVER = Span(0, 2**42)


def verdicts_of(summary: Summary) -> dict[str, set[str]]:
    """The ids of the jobs that are not the same, by category."""
    found: dict[str, set[str]] = {}
    for each in summary.listed:
        for category in each.categories:
            if category not in ("same", SLOWER):  # to be slower is a matter of the machine
                found.setdefault(category, set()).add(each.job_id)
    return found


class BetterTally(Tally):
    """Takes empty orders, and adds up one in seven otherwise."""

    async def run(self, args: TallyArgs, ctx: JobContext) -> dict[str, Any]:
        if args.number % 50 == 0:
            return {"total": 0}
        if args.number % 7 == 0:
            return {"total": sum(args.prices) + 1}
        return await super().run(args, ctx)


class WorseRender(Render):
    """Fails for one in eleven."""

    def run(self, args: NumberArgs, ctx: JobContext) -> str:
        if args.number % 11 == 0:
            raise RuntimeError(f"no font for {args.number}")
        return super().run(args, ctx)


class StricterArgs(NumberArgs):
    quality: int


class StricterFetch(AbstractWorker[StricterArgs]):
    """Wants an argument that nobody gave."""

    name = "fetch"

    async def run(self, args: StricterArgs, ctx: JobContext) -> None:
        raise AssertionError("it got arguments that do not fit")


def request_of(*workers: Any, **changes: Any) -> StreamRequest:
    return StreamRequest(code=[worker() for worker in workers], span=EVER, **changes)


async def check_replays(settings: Settings, traffic: Traffic) -> None:
    """The same code, a change in one worker, arguments that are refused; and nothing of it reaches the live system."""
    before = await state_of(settings)

    same = await replay_stream(request_of(*WORKERS), settings)
    assert verdicts_of(same) == {"not-comparable": traffic.cancelled}
    assert (same.jobs, same.counts["same"]) == (traffic.count, traffic.count - len(traffic.cancelled))
    assert await state_of(settings) == before

    changed = verdicts_of(await replay_stream(request_of(BetterTally, Fetch, WorseRender), settings))
    fixed, empty = traffic.ids("tally", every=50), traffic.ids("render", every=40)
    assert changed["newly-fixed"] == fixed
    assert changed["newly-failing"] == traffic.ids("render", every=11) - empty
    # Of those that had failed before, one that fails otherwise is different.
    assert changed["different"] == (traffic.ids("tally", every=7) - fixed) | (traffic.ids("render", every=11) & empty)
    assert changed["not-comparable"] == traffic.cancelled
    assert await state_of(settings) == before

    refused = await replay_stream(request_of(StricterFetch, workers=("fetch",)), settings)
    assert refused.counts == {"arguments-refused": len(traffic.jobs["fetch"])}
    assert (
        refused.worst("arguments-refused")[0].what == "arguments_invalid: Arguments of fetch are wrong: quality: Field required."
    )
    assert await state_of(settings) == before


async def test_a_thousand_jobs(settings: Settings) -> None:
    await check_replays(settings, await record_traffic(settings, 1_000, cancelled=20))


@pytest.mark.long
async def test_twenty_thousand_jobs(settings: Settings) -> None:
    traffic = await record_traffic(settings, 20_000, cancelled=200)
    await check_replays(settings, traffic)
    in_sandbox = await replay_stream(request_of(*WORKERS, sandbox=True), settings)
    assert verdicts_of(in_sandbox) == {"not-comparable": traffic.cancelled}
    assert in_sandbox.jobs == traffic.count


@pytest.mark.parametrize("order", Order)
async def test_of_some_jobs_in_an_order_and_at_a_speed(settings: Settings, order: Order) -> None:
    traffic = await record_traffic(settings, 300, cancelled=3)
    pacing = Pacing(order=order, speed=1_000.0)
    failed = request_of(*WORKERS, fields={"status": "failed", "userId": "ada"}, workers=("tally",), pacing=pacing)
    summary = await replay_stream(failed, settings)
    assert summary.counts == {"same": len(traffic.ids("tally", every=50))}


async def test_a_sandbox_gives_the_same_and_nothing_is_left_of_it(settings: Settings) -> None:
    traffic = await record_traffic(settings, 300, cancelled=6)
    before = await state_of(settings)
    summary = await replay_stream(request_of(*WORKERS, sandbox=True), settings)
    assert verdicts_of(summary) == {"not-comparable": traffic.cancelled}
    assert summary.jobs == traffic.count
    assert await state_of(settings) == before


class OneAtATime(AbstractWorker[dict[str, Any]]):
    """Fails when another of its jobs runs."""

    name = "one_at_a_time"
    description = "Holds what only one may have."
    concurrency = 1
    taken = False

    async def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        if self.taken:
            raise RuntimeError("two at a time")
        self.taken = True
        for _ in range(10):
            await asyncio.sleep(0)
        self.taken = False
        return int(args["number"])


@pytest.mark.parametrize("sandbox", [False, True])
async def test_a_worker_keeps_its_own_concurrency(settings: Settings, sandbox: bool) -> None:
    async with engine_with(with_engine(settings, janitor=False), OneAtATime), Client(settings) as client:
        for job in await client.enqueue_many("one_at_a_time", [{"number": number} for number in range(20)]):
            await ended(client, job)
    summary = await replay_stream(request_of(OneAtATime, sandbox=sandbox), settings)
    assert {name: count for name, count in summary.counts.items() if name != SLOWER} == {"same": 20}
