"""A replay in a sandbox: it ends when what was recorded cannot be read, and runs no more jobs at a time than it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext
from headrace.errors import BrokerUnreachable
from headrace.ports import RecordingKey
from headrace.replay import Pacing, RecordedJob, Rerunner, Span, StreamReplay, Wanted
from headrace.replay.sandboxed import SandboxRun
from headrace.replay.stream import Rerun
from headrace.testing import InMemoryLog
from support.histories import InMemoryHistory, recorded_job
from support.log import eventually
from support.memory_engines import Bench
from support.recorded import ListedHistory, Today, everything
from support.recorded import recorded_job as of_number
from support.reruns import Does


class Away(InMemoryHistory):
    async def recordings(self, job_id: str, attempt: int) -> Mapping[RecordingKey, bytes]:
        raise BrokerUnreachable("no broker")


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


async def test_a_job_that_was_accepted_twice_does_not_run_beside_as_many_as_may_run(tmp_path: Path) -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    bench, gate = Bench(tmp_path), asyncio.Event()
    batches = [jobs := [of_number(1), of_number(2)], [of_number(1)]]
    today = Today(lambda args: args["number"], gate=gate)
    history = SecondLater(batches, today)
    replay = StreamReplay(history, today, everything(batches), Pacing(concurrency=1))
    run = Asked(InMemoryLog(bench.cluster), bench.settings, {"count": Does(returns, name="count")}, replay)
    async with asyncio.timeout(20):
        task = asyncio.create_task(run.run())
        await eventually(lambda: replay.found == 3, "all jobs are read")
        await eventually(lambda: run.asked == [jobs[0].id, jobs[0].id], "the engine and the duplicate have asked for a place")
        gate.set()
        summary = await task
    assert (summary.jobs, today.most_together) == (3, 1)
