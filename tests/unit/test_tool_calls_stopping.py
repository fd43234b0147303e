"""What becomes of tool calls that are under way when their consumer stops, or loses their partition."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from headrace.ports import TopicPartition
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.testing.consumer import InMemoryGroupConsumer
from headrace.tool_calls import ReceivedCall, ToolCallConsumer
from headrace.tool_calls.finishing import CUT_OFF_SECONDS
from headrace.tool_calls.recovery import Recoveries
from headrace.tool_models import ToolRefusal, ToolSuccess
from support.tool_calls import CALLS, TOPICS, Answers, Caller, consumer, until
from support.virtual_time import in_virtual_time


async def with_a_call_under_way() -> tuple[Caller, Answers, ToolCallConsumer]:
    """A consumer that was started, and that has a call which is not done until `answers.hold` is set."""
    answers, caller = Answers(), Caller(InMemoryCluster())
    await caller.start()
    answers.hold.clear()
    started = consumer(InMemoryLog(caller.cluster), answers)
    await started.start()
    await caller.call("a")
    await until(lambda: bool(answers.done))
    return caller, answers, started


@in_virtual_time
async def test_a_stop_answers_what_was_taken_in() -> None:
    caller, answers, stopped = await with_a_call_under_way()
    stopping = asyncio.create_task(stopped.stop(grace_seconds=20))
    await asyncio.sleep(5)
    assert not stopping.done()
    answers.hold.set()
    await stopping
    assert [each["callId"] for each in caller.results()] == ["a"]
    await caller.committed(0, 1)


@in_virtual_time
async def test_a_stop_does_not_wait_for_longer_than_its_grace() -> None:
    caller, answers, stopped = await with_a_call_under_way()
    async with asyncio.timeout(10):
        await stopped.stop(grace_seconds=5)
    answers.hold.set()
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.results_are(1)
    assert answers.ids == ["a", "a"]


@in_virtual_time
async def test_a_stop_takes_in_nothing_more_while_calls_go_on_to_come() -> None:
    answers, caller = Answers(), Caller(InMemoryCluster())
    await caller.start()

    async def do(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        answer = await answers(received)
        await asyncio.sleep(0.3)
        return answer

    async def write() -> None:
        for number in itertools.count():
            await caller.call(f"call-{number}", partition=number % 2)
            await asyncio.sleep(0.05)

    stopped = consumer(InMemoryLog(caller.cluster), do, concurrency=10)
    await stopped.start()
    writing = asyncio.create_task(write())
    await until(lambda: len(answers.done) >= 20)
    begun = list(answers.ids)
    async with asyncio.timeout(3):
        await stopped.stop(grace_seconds=20)
    assert answers.ids == begun
    assert sorted(result["callId"] for result in caller.results()) == sorted(map(str, begun))
    writing.cancel()
    # Nothing is lost or done twice by that.
    async with consumer(InMemoryLog(caller.cluster), answers):
        written = len(caller.cluster.topic_records(CALLS))
        await caller.results_are(written)
    assert len(answers.ids) == len(set(answers.ids)) == written


async def with_a_call_that_takes_long_to_end() -> tuple[Caller, ToolCallConsumer]:
    """A consumer that has a call under way, which when it is cut off goes on for five minutes, and then answers."""
    begun, caller = asyncio.Event(), Caller(InMemoryCluster())
    await caller.start()

    async def answer(received: ReceivedCall) -> ToolSuccess:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(300)
        return ToolSuccess(data={})

    started = consumer(InMemoryLog(caller.cluster), answer)
    await started.start()
    await caller.call("a")
    await begun.wait()
    return caller, started


@in_virtual_time
async def test_a_call_that_takes_long_to_end_holds_up_no_revocation_and_writes_nothing_after_it() -> None:
    caller, made = await with_a_call_that_takes_long_to_end()
    async with asyncio.timeout(6):
        await made._revoked(list(made._partitions))
    assert caller.results() == []
    await asyncio.sleep(400)
    assert caller.results() == [], "somebody else answers it"
    await made.stop()


@in_virtual_time
async def test_a_call_that_takes_long_to_end_holds_up_no_stop() -> None:
    caller, made = await with_a_call_that_takes_long_to_end()
    async with asyncio.timeout(10 + CUT_OFF_SECONDS + 1):
        await made.stop(grace_seconds=10)
    await asyncio.sleep(400)
    assert caller.results() == []


@in_virtual_time
async def test_what_is_under_way_at_a_revocation_has_a_moment_and_what_it_did_is_committed() -> None:
    caller, answers, made = await with_a_call_under_way()
    revoking = asyncio.create_task(made._revoked(list(made._partitions)))
    await asyncio.sleep(2)
    assert not revoking.done()
    answers.hold.set()
    await revoking
    assert [each["callId"] for each in caller.results()] == ["a"]
    source = TopicPartition(CALLS, 0)
    assert caller.cluster.committed_offsets(TOPICS.tool_call_group())[source] == 1
    await made.stop()


@in_virtual_time
async def test_a_stop_leaves_what_was_read_just_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, held = InMemoryGroupConsumer.fetch, asyncio.Event()
    fetched: list[Any] = []

    async def late(self: InMemoryGroupConsumer, **values: Any) -> Any:
        if found := await fetch(self, **values):
            fetched.append(found)
            await held.wait()
        return found

    caller, answers, stopped = await with_a_call_under_way()
    monkeypatch.setattr(InMemoryGroupConsumer, "fetch", late)
    await asyncio.sleep(2)  # so that the fetch under way is a late one
    await caller.call("b")
    await until(lambda: bool(fetched))
    stopping = asyncio.create_task(stopped.stop(grace_seconds=20))
    await asyncio.sleep(1)
    held.set()
    await asyncio.sleep(1)
    answers.hold.set()
    await stopping
    assert answers.ids == ["a"]
    await caller.committed(0, 1)


@in_virtual_time
async def test_a_call_that_ends_too_late_to_be_answered_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end while the stop goes on, and what was done is committed last."""
    caller, answers = Caller(InMemoryCluster()), Answers()
    await caller.start()
    late = asyncio.Event()

    async def answer(received: ReceivedCall) -> ToolSuccess:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await late.wait()
        return ToolSuccess(data={})

    stop = Recoveries.stop

    async def end(self: Recoveries) -> None:
        late.set()
        await asyncio.sleep(1)
        await stop(self)

    monkeypatch.setattr(Recoveries, "stop", end)
    stopped = consumer(InMemoryLog(caller.cluster), answer)
    await stopped.start()
    await caller.call("a")
    await until(lambda: any(partition.under_way for partition in stopped._partitions.values()))
    await stopped.stop(grace_seconds=1)
    assert caller.results() == []
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.results_are(1)
    assert answers.ids == ["a"]
