"""Whose a tool call is that comes as a record: nobody can have a call of another one passed over, or take its id."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import ReceivedCall
from headrace.tool_models import LastingRefusal, ToolError, ToolRefusal, ToolSuccess
from support.tool_calls import RESULTS, Caller, Known, answering, consumer, until
from support.virtual_time import in_virtual_time


@in_virtual_time
async def test_what_nobody_knows_the_sender_of_takes_no_id_from_anybody() -> None:
    answers = Known()
    good = [("authorization", b"Bearer good")]
    value = orjson.dumps({"callId": "a", "name": "echo", "arguments": {"say": "mine"}})
    async with answering(answers) as caller:
        await caller.write(b"a", b"no call")
        await caller.results_are(1)
        await caller.write(b"a", value)
        await caller.results_are(2)
        answers.hold.clear()
        await caller.write(b"a", value)
        for _ in range(3):
            await caller.write(b"a", value, headers=good)
        await until(lambda: bool(answers.done))
        answers.hold.set()
        await caller.results_are(3)
        await caller.write(b"a", b"no call")
        await caller.write(b"a", value)
        await caller.committed(0, 8)
        results = caller.results()
    # Whoever waits for the answer to a call of this id, or has it, is not told of others that were nobody's.
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == ["call_invalid", "unauthenticated", None]
    assert answers.ids == ["a"]
    headers = [list(record.headers) for record in caller.cluster.topic_records(RESULTS)]
    assert headers == [[], [], [("headrace-tenant", b"default")]]


@in_virtual_time
async def test_calls_of_one_id_are_one_where_they_are_of_one_caller() -> None:
    """A tenant cannot have a call of another one passed over, nor can a user one of another user."""
    answers = Known()
    caller = Caller(InMemoryCluster())
    await caller.start()
    whose = ("acme", "rival", "ann", "bob")

    async def call(credential: str, said: str) -> None:
        value = orjson.dumps({"callId": "a", "name": "echo", "arguments": {"say": said}})
        await caller.write(b"a", value, headers=[("authorization", f"Bearer {credential}".encode())])

    answers.hold.clear()
    async with consumer(InMemoryLog(caller.cluster), answers):
        for credential in whose:
            await call(credential, credential)
            await call(credential, "again")  # while the first is under way
        await until(lambda: len(answers.done) == 4)
        answers.hold.set()
        await caller.committed(0, 8)
    # The next owner of the partition knows it from the answers.
    async with consumer(InMemoryLog(caller.cluster), answers):
        for credential in whose:
            await call(credential, "once more")
        await call("good", "default")
        await caller.committed(0, 13)
    told = {
        tuple(value.decode() for _, value in record.headers): orjson.loads(record.value or b"")["data"]["said"]
        for record in caller.cluster.topic_records(RESULTS)
    }
    assert told == {
        ("acme",): "acme",
        ("rival",): "rival",
        ("acme", "ann"): "ann",
        ("acme", "bob"): "bob",
        ("default",): "default",
    }
    assert len(caller.results()) == len(answers.done) == 5
    assert {record.key for record in caller.cluster.topic_records(RESULTS)} == {b"a"}


@pytest.mark.parametrize(
    "code",
    ["unauthenticated", "rate_limited", "too_many_in_flight", "broker_unavailable", "enqueue_timeout", "configuration_error"],
)
@in_virtual_time
async def test_a_call_that_is_refused_for_now_uses_up_no_id(code: str) -> None:
    passing = True
    done: list[str] = []

    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        if passing:
            return ToolRefusal(error=ToolError(code=code, message="Not now."))
        done.append(received.call_id)
        return ToolSuccess(data={})

    async with answering(answer) as caller:
        await caller.call("a")
        await caller.results_are(1)
        passing = False
        await caller.call("a")
        await caller.results_are(2)
        await caller.call("a")
        await caller.committed(0, 3)
        assert [result["ok"] for result in caller.results()] == [False, True]
        owner = ("headrace-tenant", b"default")
        headers = [list(record.headers) for record in caller.cluster.topic_records(RESULTS)]
        assert headers == [[owner, ("headrace-refused-for-now", b"true")], [owner]]
    assert done == ["a"]


@in_virtual_time
async def test_a_call_of_which_something_was_accepted_is_not_done_again_for_whatever_reason_it_is_refused() -> None:
    done: list[str] = []

    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        done.append(received.call_id)
        return LastingRefusal(error=ToolError(code="broker_unavailable", message="Half of it."))

    async with answering(answer) as caller:
        await caller.call("a")
        await caller.call("a")
        await caller.committed(0, 2)
        assert [result["error"]["code"] for result in caller.results()] == ["broker_unavailable"]
        [record] = caller.cluster.topic_records(RESULTS)
        assert list(record.headers) == [("headrace-tenant", b"default"), ("headrace-may-be-done", b"true")]
        assert "Half of it. What was asked for may have been done" in caller.results()[0]["error"]["message"]
    assert done == ["a"]


@in_virtual_time
async def test_a_refusal_for_now_is_told_to_nobody_else_who_has_called_by_the_same_id() -> None:
    going_on = asyncio.Event()

    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        if received.credential == "acme":
            await going_on.wait()
            return ToolSuccess(data={})
        return ToolRefusal(error=ToolError(code="configuration_error", message="Not now."))

    caller = Caller(InMemoryCluster())
    await caller.start()
    value = orjson.dumps({"callId": "a", "name": "echo"})
    async with consumer(InMemoryLog(caller.cluster), answer):
        for credential in (b"acme", b"rival"):
            await caller.write(b"a", value, headers=[("authorization", b"Bearer " + credential)])
        await caller.results_are(1)
        going_on.set()
        await caller.results_are(2)
        await caller.write(b"a", value, headers=[("authorization", b"Bearer rival")])
        await caller.results_are(3)
    told = [(dict(record.headers)["headrace-tenant"], len(record.headers)) for record in caller.cluster.topic_records(RESULTS)]
    assert told == [(b"rival", 2), (b"acme", 1), (b"rival", 2)]
    # The next owner of the partition does what was refused for now, and that alone.
    done: list[str | None] = []

    async def later(received: ReceivedCall) -> ToolSuccess:
        done.append(received.credential)
        return ToolSuccess(data={})

    async with consumer(InMemoryLog(caller.cluster), later):
        for credential in (b"acme", b"rival"):
            await caller.write(b"a", value, headers=[("authorization", b"Bearer " + credential)])
        await caller.committed(0, 5)
    assert done == ["rival"]


@in_virtual_time
async def test_the_next_owner_does_what_was_refused_to_nobody() -> None:
    answers = Known()
    caller = Caller(InMemoryCluster())
    await caller.start()
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.call("a")
        await caller.results_are(1)
    value = orjson.dumps({"callId": "a", "name": "echo"})
    await caller.write(b"a", value, headers=[("authorization", b"Bearer good")])
    async with consumer(InMemoryLog(caller.cluster), answers):
        assert [result["ok"] for result in await caller.results_are(2)] == [False, True]
    await caller.write(b"a", value, headers=[("authorization", b"Bearer good")])
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.committed(0, 3)
    assert answers.ids == ["a"]


@in_virtual_time
async def test_a_call_that_comes_twice_is_done_by_the_second_where_the_first_is_refused_for_now() -> None:
    begun: list[str] = []
    going_on = asyncio.Event()

    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        begun.append(received.call_id)
        if len(begun) > 1:
            return ToolSuccess(data={})
        await going_on.wait()
        return ToolRefusal(error=ToolError(code="unauthenticated", message="Not by this one."))

    async with answering(answer) as caller:
        await caller.call("a")
        await caller.call("a")
        await until(lambda: bool(begun))
        await asyncio.sleep(5)
        assert begun == ["a"]
        going_on.set()
        assert [result["ok"] for result in await caller.results_are(2)] == [False, True]
        await caller.committed(0, 2)
