"""Yesterday's traffic through today's code, on the real broker: what is the same, what a change has changed, and what is left."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from headrace import AbstractWorker, Client, Job, JobContext, Retry, Settings
from headrace.replay import Span, StreamRequest, Summary, replay_stream
from headrace.replay.streams.summary import SLOWER
from support.clusters import state_of
from support.engines import ended, engine_with, eventually, with_engine
from support.process_workers import Dies
from support.replay_commands import PATIENCE_SECONDS
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
    before = await state_of(settings)
    in_sandbox = await replay_stream(request_of(*WORKERS, sandbox=True), settings)
    assert verdicts_of(in_sandbox) == {"not-comparable": traffic.cancelled}
    assert in_sandbox.jobs == traffic.count
    assert await state_of(settings) == before


async def test_of_some_jobs(settings: Settings) -> None:
    traffic = await record_traffic(settings, 300, cancelled=3)
    failed = request_of(*WORKERS, fields={"status": "failed", "userId": "ada"}, workers=("tally",))
    summary = await replay_stream(failed, settings)
    assert verdicts_of(summary) == {}
    assert summary.jobs == len(traffic.ids("tally", every=50))


class Holds(AbstractWorker[dict[str, Any]]):
    """Goes on until it is cancelled, and notes which of its jobs did so in a replay."""

    name = "holds"
    description = "Waits for what does not come."
    replayed: ClassVar[list[str]] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        if ctx.replaying:
            self.replayed.append(ctx.job.id)
        await asyncio.Event().wait()
        return "done"


class StricterHolds(AbstractWorker[StricterArgs]):
    """Wants an argument that nobody gave."""

    name = "holds"

    async def run(self, args: StricterArgs, ctx: JobContext) -> None:
        raise AssertionError("it got arguments that do not fit")


class ComesLater(AbstractWorker[dict[str, Any]]):
    """Wants to be tried again in an hour."""

    name = "comes_later"
    description = "Is not ready yet."

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        raise Retry("not ready", after=3_600)


@pytest.mark.parametrize("sandbox", [False, True])
async def test_what_the_code_did_not_end_is_not_compared_nor_run(settings: Settings, sandbox: bool) -> None:
    """Cancelled while it ran, cancelled while it waited for its retry, ended by the death of its process, and not ended: to run
    it here would take as long, or end this process, too.
    """
    workers = (Holds, ComesLater, Dies)
    Holds.replayed.clear()
    async with engine_with(with_engine(settings, janitor=False), *workers), Client(settings) as client:

        async def stands(job: Job, status: str, attempt: int) -> None:
            async def check() -> bool:
                found = await client.get_job(job.id)
                return found is not None and (found.status, found.attempt) == (status, attempt)

            await eventually(check)

        running, waiting, left = [await client.enqueue(name, {}) for name in ("holds", "comes_later", "comes_later")]
        await stands(running, "running", 1)
        await stands(waiting, "queued", 1)
        await stands(left, "queued", 1)
        for job in (running, waiting):
            await client.cancel_job(job.id)
            assert (await ended(client, job)).status == "cancelled"
        died = await ended(client, await client.enqueue("dies", {}))
        assert (died.status, died.error and died.error.type) == ("failed", "headrace.errors.WorkerProcessDied")
    before = await state_of(settings)
    async with asyncio.timeout(PATIENCE_SECONDS):
        summary = await replay_stream(request_of(*workers, sandbox=sandbox, live=True), settings)
    assert Holds.replayed == []
    assert verdicts_of(summary) == {"not-comparable": {running.id, waiting.id, left.id, died.id}}
    assert [each.replayed for each in summary.listed] == [None] * 4
    told = sorted((kind.worker, kind.what.partition(":")[0], kind.count) for kind in summary.worst("not-comparable"))
    assert told == [
        ("comes_later", "cancelled", 1),
        ("comes_later", "had not ended", 1),
        ("dies", "headrace.errors.WorkerProcessDied", 1),
        ("holds", "cancelled", 1),
    ]
    refused = await replay_stream(request_of(StricterHolds, sandbox=sandbox), settings)
    assert verdicts_of(refused) == {"arguments-refused": {running.id}}
    assert await state_of(settings) == before


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
