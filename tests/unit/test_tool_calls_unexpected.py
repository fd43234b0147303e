"""Tool calls that come as records and end as nobody expected: each is answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess
from support.tool_calls import OWNER, TOPICS, Answers, Caller, answering, until
from support.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"said": "x" * 2_000_000}, "answer_too_large"),
        ({"said": 2**70}, "internal_error"),
        ({"said": "\ud800"}, "internal_error"),
    ],
)
@in_virtual_time
async def test_an_answer_that_cannot_be_written_is_a_refusal_and_holds_up_nobody(data: dict[str, Any], code: str) -> None:
    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        return ToolSuccess(data=data if received.call.id == "bad" else {})

    async with answering(answer) as caller:
        await caller.call("bad")
        await caller.call("good")
        assert {result["callId"]: result.get("error", {}).get("code") for result in await caller.results_are(2)} == {
            "bad": code,
            "good": None,
        }
        await caller.committed(0, 2)


async def meets_a_cancelled_task() -> None:
    """As a tool does that waits for something which somebody else has cancelled."""
    waited = asyncio.ensure_future(asyncio.sleep(99))
    await asyncio.sleep(0)
    waited.cancel()
    await waited


async def fails() -> None:
    raise RuntimeError("nobody expected this")


@pytest.mark.parametrize("unexpected", [meets_a_cancelled_task, fails])
@in_virtual_time
async def test_a_call_that_ends_as_nobody_expected_is_answered_and_not_done_again(
    unexpected: Callable[[], Awaitable[None]],
) -> None:
    done: list[str] = []

    async def answer(received: ReceivedCall) -> ToolSuccess:
        done.append(received.call_id)
        if received.call_id == "bad":
            await unexpected()
        return ToolSuccess(data={})

    async with answering(answer) as caller:
        await caller.call("bad")
        await caller.call("good")
        await caller.results_are(2)
        await caller.call("bad")
        await caller.committed(0, 3)
        codes = {result["callId"]: result.get("error", {}).get("code") for result in caller.results()}
    assert codes == {"bad": "internal_error", "good": None}
    assert sorted(done) == ["bad", "good"]


@pytest.mark.parametrize("unexpected", [meets_a_cancelled_task, fails])
@in_virtual_time
async def test_a_call_of_which_it_cannot_be_found_out_whose_it_is_is_refused_and_may_be_sent_again(
    unexpected: Callable[[], Awaitable[None]],
) -> None:
    seen: list[str] = []

    async def identify(received: ReceivedCall) -> OwnedCall:
        seen.append(received.call_id)
        if len(seen) == 1:
            await unexpected()
        return OwnedCall(OWNER, partial(Answers(), received))

    caller = Caller(InMemoryCluster())
    await caller.start()
    log = InMemoryLog(caller.cluster)
    async with ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="one", now=wall_clock):
        await caller.call("a")
        assert [result["error"]["code"] for result in await caller.results_are(1)] == ["internal_error"]
        await caller.call("a")
        await caller.results_are(2)
        await caller.committed(0, 2)
        assert caller.results()[1]["ok"]


@pytest.mark.parametrize("unexpected", [meets_a_cancelled_task, fails])
@in_virtual_time
async def test_a_call_that_cannot_be_answered_is_told_and_its_id_is_free(unexpected: Callable[[], Awaitable[None]]) -> None:
    """What fails is neither the tool nor who knows the callers: then nobody can say what became of the call."""
    broken = True

    async def turn() -> None:
        if broken:
            await unexpected()

    async def identify(received: ReceivedCall) -> OwnedCall:
        return OwnedCall(OWNER, partial(Answers(), received), turn=turn)

    caller = Caller(InMemoryCluster())
    await caller.start()
    log = InMemoryLog(caller.cluster)
    async with ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="one", now=wall_clock) as made:
        await until(lambda: made.trouble is None)
        await caller.call("a")
        await until(lambda: "ended by itself" in str(made.trouble))
        broken = False
        await caller.call("a")
        assert [result["ok"] for result in await caller.results_are(1)] == [True]


@in_virtual_time
async def test_a_refusal_that_cannot_be_written_is_another_one_and_holds_up_nobody() -> None:
    async def answer(received: ReceivedCall) -> ToolRefusal:
        return ToolRefusal(error=ToolError(code="caf\ud800", message="It is refused."))

    async with answering(answer) as caller:
        await caller.call("a")
        assert [result["error"]["code"] for result in await caller.results_are(1)] == ["internal_error"]
        await caller.committed(0, 1)
