"""Replayed attempts that take too long, are cancelled, or wait for what was recorded."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from headrace import JobContext
from headrace.core.comparison import Verdict
from headrace.errors import BrokerUnreachable
from headrace.models import WorkerDefinition
from headrace.ports import ConversationRef, MemorySnapshot
from headrace.replay.history import Began, RecordedJob, RecordingKey
from headrace.replay.rerunning.rerun import Rerun, Rerunner, RerunOptions
from headrace.replay_errors import ThreadsExhausted
from support.histories import InMemoryHistory, recorded_job
from support.log import eventually
from support.reruns import Does, DoesInThread, rerun
from support.virtual_time import in_virtual_time

RERUNNING = "headrace.replay.rerunning"
TIMED_OUT = ("headrace.errors.JobTimeout", "The attempt took longer than 0.05 s.")


class LoopTime:
    """Takes the place of `time`: what an attempt takes is told by the clock of its event loop, which a test may set."""

    @staticmethod
    def perf_counter() -> float:
        return asyncio.get_running_loop().time()


@pytest.fixture
def by_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rerun", "running", "waiting"):
        monkeypatch.setattr(f"{RERUNNING}.{module}.time", LoopTime)


async def test_time_limits_apply() -> None:
    ended = threading.Event()

    async def sleeps(args: dict[str, Any], ctx: JobContext) -> Any:
        await asyncio.sleep(60)

    async def goes_on(args: dict[str, Any], ctx: JobContext) -> Any:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "all the same"

    def looks(args: dict[str, Any], ctx: JobContext) -> Any:
        while not ctx.cancelled:
            ended.wait(0.01)

    for late in (Does(sleeps, timeout=0.05), Does(goes_on, timeout=0.05), DoesInThread(looks, timeout=0.05)):
        told = await rerun(late, recorded_job("does", error=TIMED_OUT))
        assert told.comparison.verdict is Verdict.SAME, told
    told = await rerun(Does(sleeps), recorded_job("does", attemptTimeout=0.05))
    assert told.replayed.error_type == "headrace.errors.JobTimeout"


async def test_a_job_without_a_thread_ends_the_replay_and_is_no_failure_of_its_code() -> None:
    def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    before = threading.stack_size(1 << 46)  # no system has so much for a thread
    try:
        with pytest.raises(ThreadsExhausted, match=r"\(can't start new thread\): 0 of earlier jobs go on"):
            await rerun(DoesInThread(returns), recorded_job("does", result=1))
    finally:
        threading.stack_size(before)
    assert (await rerun(DoesInThread(returns), recorded_job("does", result=1))).comparison.verdict is Verdict.SAME


@pytest.mark.usefixtures("by_the_loop")
@in_virtual_time
async def test_what_is_read_of_the_history_does_not_count() -> None:
    class Slow(InMemoryHistory):
        async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
            await asyncio.sleep(1.5)
            return await super().recordings(job, attempt)

    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        found = await asyncio.gather(*(ctx.recorded("model", lambda: 1) for _ in range(2)))
        await asyncio.sleep(args["sleeps"])
        return found

    history = Slow()
    history.record("a-job", 1, "model", 3, 4)
    told = await rerun(Does(asks, timeout=1.0), recorded_job("does", {"sleeps": 0.01}), history)
    assert told.replayed.result == [3, 4]
    assert told.replayed.seconds is not None and told.replayed.seconds < 1.5
    late = await rerun(Does(asks, timeout=1.0), recorded_job("does", {"sleeps": 60}), history)
    assert late.replayed.error_type == "headrace.errors.JobTimeout"


async def test_what_was_recorded_is_there_before_the_attempt_begins() -> None:
    asked, gate, begun = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Held(InMemoryHistory):
        async def worker_definitions(self) -> Mapping[str, WorkerDefinition]:
            await self.hold()
            return await super().worker_definitions()

        async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
            await self.hold()
            return await super().recordings(job, attempt)

        async def hold(self) -> None:
            asked.set()
            await gate.wait()
            gate.clear()

    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        begun.set()
        async with asyncio.timeout(20):
            await ctx.enqueue("does", {})
            return await ctx.recorded("model", lambda: 1)

    history = Held()
    history.record("a-job", 1, "model", 3)
    task = asyncio.create_task(rerun(Does(asks), recorded_job("does"), history))
    for _ in ("definitions", "recordings"):
        await asked.wait()
        assert not begun.is_set()
        asked.clear()
        gate.set()
    assert (await task).replayed.result == 3


async def test_brokers_that_are_away_are_no_failure_of_the_job() -> None:
    class Away(InMemoryHistory):
        async def memory_at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
            raise BrokerUnreachable("no broker")

    async def remembers(args: dict[str, Any], ctx: JobContext) -> Any:
        with contextlib.suppress(BrokerUnreachable):
            await ctx.memory.read("ann", "trip")

    with pytest.raises(BrokerUnreachable):
        await rerun(Does(remembers), recorded_job("does"), Away())


async def test_an_error_of_the_workers_own_brokers_is_the_jobs() -> None:
    async def reaches(args: dict[str, Any], ctx: JobContext) -> Any:
        raise BrokerUnreachable("another cluster")

    assert (await rerun(Does(reaches), recorded_job("does"))).replayed.error_type == "headrace.errors.BrokerUnreachable"


async def test_a_thread_that_does_not_end_is_left_behind() -> None:
    ended = threading.Event()

    def blocks(args: dict[str, Any], ctx: JobContext) -> Any:
        ended.wait(60)

    async with Rerunner(InMemoryHistory(), [DoesInThread(blocks, timeout=0.05)]) as rerunner:
        told = await rerunner.rerun(recorded_job("does"))
        assert told.replayed.error_type == "headrace.errors.JobTimeout"
        assert rerunner.left_behind == 1
        ended.set()
        await eventually(lambda: rerunner.left_behind == 0, "its end")


@pytest.mark.usefixtures("by_the_loop")
def test_to_wait_for_a_thread_is_no_time_of_the_job() -> None:
    begun, gate = threading.Event(), threading.Event()

    def waits(args: dict[str, Any], ctx: JobContext) -> Any:
        begun.set()
        gate.wait(60 if args else 0)

    async def wait() -> Rerun:
        loop = asyncio.get_running_loop()
        clock = loop.time
        async with Rerunner(InMemoryHistory(), [DoesInThread(waits)], RerunOptions(threads=1)) as rerunner:
            first = asyncio.create_task(rerunner.rerun(recorded_job("does", {"waits": True})))
            await eventually(begun.is_set, "its begin")
            second = asyncio.create_task(rerunner.rerun(recorded_job("does", attemptTimeout=60.0)))
            await asyncio.wait({second}, timeout=0.5)
            # It waits, and meanwhile more time passes than it may take.
            loop.time = lambda: clock() + 100  # type: ignore[method-assign]
            await asyncio.wait({second}, timeout=0.1)
            gate.set()
            assert (await first).replayed.status == "completed"
            return await second

    with asyncio.Runner() as runner:  # whose loop goes with its clock
        told = runner.run(wait()).replayed
    assert told.status == "completed" and told.seconds is not None and told.seconds < 60.0, told


async def test_a_thread_that_was_left_behind_is_replaced() -> None:
    ended = threading.Event()

    def blocks(args: dict[str, Any], ctx: JobContext) -> Any:
        ended.wait(60 if args else 0)

    async with Rerunner(InMemoryHistory(), [DoesInThread(blocks)], RerunOptions(threads=1)) as rerunner:
        try:
            for _ in range(2):
                late = await rerunner.rerun(recorded_job("does", {"blocks": True}, attemptTimeout=0.05))
                assert late.replayed.error_type == "headrace.errors.JobTimeout"
            told = await rerunner.rerun(recorded_job("does", attemptTimeout=20.0))
            assert told.replayed.status == "completed" and rerunner.left_behind == 2
        finally:
            ended.set()


async def test_who_cancels_a_replay_is_cancelled() -> None:
    begun = asyncio.Event()

    async def sleeps(args: dict[str, Any], ctx: JobContext) -> Any:
        begun.set()
        await asyncio.sleep(60)

    for timeout in (None, 50):
        begun.clear()
        task = asyncio.create_task(rerun(Does(sleeps, timeout=timeout), recorded_job("does")))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_attempt_that_cancels_itself_has_failed() -> None:
    async def cancels(args: dict[str, Any], ctx: JobContext) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    told = await rerun(Does(cancels), recorded_job("does"))
    assert told.replayed.error_type == "headrace.errors.JobFailed"
