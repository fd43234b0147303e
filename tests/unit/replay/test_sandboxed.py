"""A replay in a sandbox: it ends whatever comes between, and runs no more jobs at a time than it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, JobContext
from headrace.errors import BrokerUnreachable
from headrace.ports import RecordingKey
from headrace.replay import Pacing, RecordedJob, Rerunner, Span, StreamReplay, Wanted
from headrace.replay.sandboxes.sandboxed import SandboxRun
from headrace.replay.streams.stream import Rerun
from headrace.replay.streams.summary import Summary
from headrace.testing import InMemoryLog
from support.histories import InMemoryHistory, recorded_job
from support.log import eventually
from support.memory_engines import Bench
from support.recorded import ListedHistory, Today, everything
from support.recorded import recorded_job as of_number
from support.reruns import Does


class Away(InMemoryHistory):
    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        raise BrokerUnreachable("no broker")


class Sandbox:
    """A replay of jobs of `count`, in a cluster in memory; they go on when the gate is opened.

    Attributes:
        told: what is said of each job that did not run to its end, by number.
    """

    def __init__(self, folder: Path, jobs: Sequence[RecordedJob], *, concurrency: int = 10) -> None:
        async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
            return 1

        bench, self.gate = Bench(folder), asyncio.Event()
        self.settings, self.log = bench.settings, InMemoryLog(bench.cluster)
        self.today = Today(lambda args: args["number"], gate=self.gate)
        self.replay = StreamReplay(ListedHistory([jobs]), self.today, everything([jobs]), Pacing(concurrency=concurrency))
        self.run = SandboxRun(self.log, self.settings, {"count": Does(returns, name="count")}, self.replay)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[Summary]]:
        """Goes on while the block runs, and must be over soon after it."""
        task = asyncio.create_task(self.run.run())
        try:
            await eventually(lambda: bool(self.today.begun), "a job has begun")
            async with asyncio.timeout(30):
                yield task
                await task
        finally:
            task.cancel()

    @property
    def told(self) -> dict[int, tuple[str, str]]:
        return {
            int(each.job_id[-12:]): (str(each.comparison.verdict), each.comparison.reason) for each in self.replay.summary.listed
        }


async def test_jobs_that_are_cancelled_in_it_are_not_comparable(tmp_path: Path) -> None:
    """One that runs, and one that waits for its start behind it."""
    sandbox = Sandbox(tmp_path, [of_number(number) for number in range(3)], concurrency=1)
    async with sandbox.running(), Client(sandbox.settings, log=sandbox.log) as client:
        [running] = sandbox.today.begun
        waiting = next(number for number in range(3) if number != running)
        for number in (running, waiting):
            await client.cancel_job(of_number(number).id)
        sandbox.gate.set()
    reason = ("not-comparable", "cancelled in the sandbox")
    assert sandbox.told == {running: reason, waiting: reason}
    assert dict(sandbox.replay.summary.counts) == {"same": 1, "not-comparable": 2}
    assert {each.replayed and each.replayed.status for each in sandbox.replay.summary.listed} == {"cancelled"}


async def test_jobs_whose_worker_is_paused_in_it_are_not_comparable(tmp_path: Path) -> None:
    """Those that run go on to their ends."""
    sandbox = Sandbox(tmp_path, [of_number(number) for number in range(4)], concurrency=2)
    async with sandbox.running(), Client(sandbox.settings, log=sandbox.log) as client:
        await eventually(lambda: len(sandbox.today.begun) == 2, "two run")
        await client.pause_worker("count")
        await eventually(lambda: len(sandbox.told) == 2, "two are given up")
        sandbox.gate.set()
    assert set(sandbox.told.values()) == {("not-comparable", "its worker is paused in the sandbox")}
    assert sandbox.told.keys() == set(range(4)) - set(sandbox.today.begun)
    assert dict(sandbox.replay.summary.counts) == {"same": 2, "not-comparable": 2}


async def test_a_record_that_grows_too_large_when_it_is_written_again_costs_itself(tmp_path: Path) -> None:
    """`1e9` of a foreign writer's is `1000000000.0` then."""
    large = of_number(0)
    jobs = [replace(large, record={**large.record, "args": {"number": 0, "prices": [1e9] * 100_000}}), of_number(1)]
    sandbox = Sandbox(tmp_path, jobs)
    sandbox.gate.set()
    async with sandbox.running():
        pass
    told = ("not-comparable", "its record takes more than 1048576 bytes when it is written again")
    assert (sandbox.told, sandbox.replay.summary.counts["same"]) == ({0: told}, 1)


async def test_a_job_that_ends_otherwise_is_not_comparable(tmp_path: Path) -> None:
    """The sandbox's engine takes it for none: as it is with any that an older headrace took."""
    strange = of_number(0)
    jobs = [replace(strange, record={**strange.record, "createdAt": "yesterday"}), of_number(1)]
    sandbox = Sandbox(tmp_path, jobs)
    sandbox.gate.set()
    async with sandbox.running():
        pass
    [(verdict, reason)] = sandbox.told.values()
    assert verdict == "not-comparable"
    assert reason.startswith("failed in the sandbox: undecodable: the record is no job: createdAt")


async def test_brokers_that_are_away_end_it(tmp_path: Path) -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    bench, history, worker = Bench(tmp_path), Away([recorded_job("does")]), Does(returns)
    wanted = Wanted(span=Span(0, 1 << 50))
    async with Rerunner(history, [worker]) as rerunner:
        replay = StreamReplay(history, rerunner, wanted, Pacing(concurrency=1))
        run = SandboxRun(InMemoryLog(bench.cluster), bench.settings, {"does": worker}, replay)
        with pytest.raises(BrokerUnreachable, match="no broker"):
            async with asyncio.timeout(20):
                await run.run()


class SecondLater(ListedHistory):
    """Its second batch comes when a job of the first has begun."""

    def __init__(self, batches: Sequence[Sequence[RecordedJob]], today: Today) -> None:
        super().__init__(batches)
        self.today = today

    async def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        async for batch in super().jobs(wanted):
            if batch is self.batches[1]:
                await eventually(lambda: bool(self.today.begun), "a job has begun")
            yield batch


class Asked(SandboxRun):
    """Keeps who has asked for a place, in their order; whoever gets one at once has begun by then."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []

    async def _rerun(self, job: RecordedJob) -> Rerun:
        self.asked.append(job.id)
        return await super()._rerun(job)


async def returns_one(args: dict[str, Any], ctx: JobContext) -> Any:
    return 1


async def test_a_job_that_was_accepted_twice_does_not_run_beside_as_many_as_may_run(tmp_path: Path) -> None:
    """The first of its id was left out, so that nothing of its key is waited for."""
    bench, gate, second, other = Bench(tmp_path), asyncio.Event(), of_number(1), of_number(2)
    large = replace(second, record={**second.record, "args": {"number": 1, "prices": [1e9] * 100_000}})
    batches = [[large, other], [second]]
    today = Today(lambda args: args["number"], gate=gate)
    history = SecondLater(batches, today)
    replay = StreamReplay(history, today, everything(batches), Pacing(concurrency=1))
    run = Asked(InMemoryLog(bench.cluster), bench.settings, {"count": Does(returns_one, name="count")}, replay)
    async with asyncio.timeout(20):
        task = asyncio.create_task(run.run())
        await eventually(lambda: replay.found == 3, "all jobs are read")
        await eventually(lambda: run.asked == [other.id, second.id], "the engine and the duplicate have asked for a place")
        gate.set()
        summary = await task
    assert (summary.jobs, today.most_together) == (3, 1)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in batches of their own"])
async def test_a_job_that_was_accepted_twice_keeps_the_order_of_its_key(tmp_path: Path, together: bool) -> None:
    """Those of its key that came before it still wait in the queue when its turn has come."""
    first, between, after = (of_number(number, key="k") for number in range(1, 4))
    jobs = [first, between, first, after]
    batches = [jobs] if together else [[job] for job in jobs]
    today, bench = Today(lambda args: args["number"]), Bench(tmp_path)
    replay = StreamReplay(ListedHistory(batches), today, everything(batches), Pacing(concurrency=10))
    async with asyncio.timeout(20):
        run = SandboxRun(InMemoryLog(bench.cluster), bench.settings, {"count": Does(returns_one, name="count")}, replay)
        summary = await run.run()
    assert today.steps == [(step, number) for number in (1, 2, 1, 3) for step in ("begins", "ends")]
    assert summary.counts["same"] == 4
