"""Tools of one's own, the envelope around every answer, and the one place where errors become refusals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from pydantic import BaseModel

from headrace import (
    BrokerUnreachable,
    CallContext,
    ClosedModel,
    ConfigurationError,
    EnqueueTimeout,
    MemoryConflict,
    ToolCall,
    ToolRefusal,
    ToolSuccess,
    WireModel,
)
from headrace_gateway import Caller, Scope, ToolAnnotations, ToolDefinition, ToolRefused, ToolRegistry, built_in_tools
from headrace_gateway.access import ALL_SCOPES
from headrace_gateway.tools.registry import DEEPEST_ARGUMENTS, is_deeper_than
from support.jobs import InMemoryJobs, operations_of


class EchoArguments(ClosedModel):
    """What to say."""

    text: str
    anything: Any = None


class Echo(WireModel):
    """What was said."""

    said: str
    tenant: str


async def echo(arguments: EchoArguments, caller: Caller) -> Echo:
    return Echo(said=arguments.text, tenant=caller.tenant)


def a_tool(handler: Callable[[EchoArguments, Caller], Awaitable[WireModel]] = echo, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "name": "echo",
        "description": "Says it again.",
        "arguments": EchoArguments,
        "answers": (Echo,),
        "annotations": ToolAnnotations(read_only=True),
        "handler": handler,
    }
    return ToolDefinition(**{**given, **changes})


def a_failing_tool(error: BaseException) -> Any:
    async def fail(arguments: EchoArguments, caller: Caller) -> Echo:
        raise error

    return a_tool(fail)


async def call(tool: Any, arguments: dict[str, Any] | None = None, name: str = "echo") -> ToolSuccess | ToolRefusal:
    made = ToolCall(name=name, arguments={"text": "hello"} if arguments is None else arguments, context=CallContext())
    return await ToolRegistry([tool]).dispatch(made, operations_of(InMemoryJobs(), tenant="acme"))


async def refused(tool: Any, **given: Any) -> tuple[str, str]:
    answer = await call(tool, **given)
    assert isinstance(answer, ToolRefusal)
    return answer.error.code, answer.error.message


async def test_a_tool_of_ones_own_is_called() -> None:
    assert await call(a_tool()) == ToolSuccess(data={"said": "hello", "tenant": "acme"})


async def test_an_unknown_tool_is_refused_with_the_known_ones() -> None:
    code, message = await refused(a_tool(), name="eccho")
    assert code == "tool_unknown"
    assert "'eccho'" in message
    assert "The tools are: echo." in message


def test_two_tools_cannot_have_one_name() -> None:
    tools = built_in_tools()
    with pytest.raises(ConfigurationError, match="a tool named scheduler already"):
        tools.register(a_tool(name="scheduler"))


@pytest.mark.parametrize("name", ["", "Echo", "echo me", "1echo", "e" * 65, "écho"])
def test_names_that_some_client_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be named"):
        a_tool(name=name)


def test_arguments_must_be_closed_also_inside() -> None:
    class Open(WireModel):
        text: str

    class Holder(ClosedModel):
        inner: list[Open]

    with pytest.raises(ConfigurationError, match=r"in #\)"):
        a_tool(arguments=Open)
    with pytest.raises(ConfigurationError, match=r"#/\$defs/Open"):
        a_tool(arguments=Holder)


def test_a_tool_needs_a_model_of_its_answer() -> None:
    with pytest.raises(ConfigurationError, match="no model of its answer"):
        a_tool(answers=())


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ToolRefused("too_late", "The train has left."), "too_late", "The train has left."),
        (MemoryConflict("Another came first."), "memory_conflict", "Another came first."),
        (BrokerUnreachable("10.0.0.7:9092 does not answer"), "broker_unavailable", "cannot be reached right now"),
        (ConfigurationError("HEADRACE_KAFKA_X is wrong"), "configuration_error", "The gateway's log says what to mend"),
        (RuntimeError("secret detail"), "internal_error", "failed unexpectedly"),
        (ExceptionGroup("several", [ValueError("secret detail")]), "internal_error", "failed unexpectedly"),
    ],
)
async def test_errors_become_refusals(error: Exception, code: str, told: str) -> None:
    told_code, message = await refused(a_failing_tool(error))
    assert told_code == code
    assert told in message


@pytest.mark.parametrize("error", [BrokerUnreachable("10.0.0.7:9092 away"), ConfigurationError("10.0.0.7"), KeyError("10.0.0.7")])
async def test_what_is_the_operators_to_know_goes_to_the_log(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, message = await refused(a_failing_tool(error))
    assert "10.0.0.7" not in message
    assert "10.0.0.7" in caplog.text


async def test_a_handlers_own_validation_error_is_not_the_callers_fault() -> None:
    class Strict(BaseModel):
        number: int

    async def fail(arguments: EchoArguments, caller: Caller) -> Echo:
        Strict.model_validate({"number": "x"})
        raise AssertionError

    assert (await refused(a_tool(fail)))[0] == "internal_error"


async def test_a_cancelled_call_is_cancelled() -> None:
    begun = asyncio.Event()

    async def wait(*_: Any) -> Any:
        begun.set()
        await asyncio.get_running_loop().create_future()

    calling = asyncio.create_task(call(a_tool(wait)))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_messages_have_an_end_and_no_control_characters() -> None:
    _, message = await refused(a_failing_tool(ToolRefused("x", "a\x1b[31m\n" + "b" * 100_000)))
    assert len(message) == 2_000
    assert message.isprintable()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def test_arguments_may_be_nested_but_not_without_end() -> None:
    assert isinstance(await call(a_tool(), {"text": "x", "anything": nested(DEEPEST_ARGUMENTS - 1)}), ToolSuccess)
    code, message = await refused(a_tool(), arguments={"text": "x", "anything": nested(DEEPEST_ARGUMENTS)})
    assert code == "arguments_invalid"
    assert "nested more than 64 levels deep" in message


def test_depth() -> None:
    assert not is_deeper_than(1, 0)
    assert is_deeper_than([], 0)
    assert not is_deeper_than([{"a": 1}], 2)
    assert is_deeper_than([{"a": [1]}], 2)


async def test_arguments_that_are_no_json_are_refused() -> None:
    code, message = await refused(a_tool(), arguments={"text": "x", "anything": {1, 2}})
    assert code == "arguments_invalid"
    assert "no JSON" in message


class Part(ClosedModel):
    """A part of what is said."""

    first_word: str | None = None


class PartsArguments(ClosedModel):
    """What to say, in parts."""

    text: str
    parts: list[Part] | None = None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": "x", "anythin": 1}, "anythin: there is no such name (there are: text, parts)."),
        ({"text": "x", "part": []}, "part: there is no such name: did you mean parts? (there are: text, parts)."),
        (
            {"text": "x", "parts": [{}, {"first_word": "y"}]},
            "parts.1.first_word: there is no such name: did you mean firstWord? (there are: firstWord).",
        ),
    ],
    ids=["far", "near", "inside"],
)
async def test_a_name_that_is_unknown_is_told_with_those_that_there_are(given: dict[str, Any], told: str) -> None:
    async def never(arguments: PartsArguments, caller: Caller) -> Echo:
        raise AssertionError("it was called")

    tool = a_tool(handler=cast("Any", never), arguments=PartsArguments)
    code, message = await refused(tool, arguments=given)
    assert (code, message) == ("arguments_invalid", f"Arguments of echo are wrong: {told}")


@pytest.mark.parametrize("value", [1, None], ids=["values", "nulls"])
async def test_of_very_many_wrong_names_the_first_are_told_and_it_takes_no_time(value: Any) -> None:
    arguments = {"text": "x", **{f"name{number}": value for number in range(100_000)}}
    began = time.process_time()
    code, message = await refused(a_tool(), arguments=arguments)
    assert time.process_time() - began < 1.0, "it was three seconds"
    assert code == "arguments_invalid"
    assert "name4: there is no such name" in message
    assert message.endswith("; and 99,995 more.")


async def test_a_name_that_is_very_long_is_told_in_short() -> None:
    _, message = await refused(a_tool(), arguments={"text": "x", "n" * 900_000: 1})
    assert len(message) < 400
    assert "nnn: there is no such name (there are: text, anything)." in message


@pytest.mark.parametrize(
    ("name", "arguments", "scope"),
    [
        ("scheduler", {}, Scope.JOBS_WRITE),
        ("worker_manager", {"action": "cancel_job", "jobid": "a"}, Scope.JOBS_CANCEL),
        ("worker_manager", {"action": "list_jobs", "limit": 0}, Scope.JOBS_READ),
    ],
    ids=["scheduler", "cancel", "list"],
)
async def test_whoever_may_not_do_it_is_refused_before_the_arguments_are_looked_at(
    name: str, arguments: dict[str, Any], scope: Scope
) -> None:
    called = ToolCall(name=name, arguments=arguments, context=CallContext())
    with_all, without = (operations_of(InMemoryJobs(), scopes=scopes) for scopes in (ALL_SCOPES, ALL_SCOPES - {scope}))
    [told, refusal] = [await built_in_tools().dispatch(called, each) for each in (with_all, without)]
    assert isinstance(told, ToolRefusal) and told.error.code == "arguments_invalid"
    assert isinstance(refusal, ToolRefusal) and refusal.error.code == "forbidden"
    assert scope.value in refusal.error.message


@pytest.mark.parametrize(
    ("accepted", "told"),
    [(True, "if it had an idempotencyKey; else look first"), (False, "repeat the call.")],
    ids=["maybe", "not"],
)
async def test_what_to_do_after_no_acknowledgement_is_told_in_the_words_of_tools(accepted: bool, told: str) -> None:
    code, message = await refused(a_failing_tool(EnqueueTimeout("job-1", may_be_accepted=accepted, seconds=2)))
    assert code == "enqueue_timeout"
    assert "job-1" in message and told in message
    assert "idempotency_key" not in message
