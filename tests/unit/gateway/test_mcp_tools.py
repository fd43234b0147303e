"""The tools over the Model Context Protocol, in both of its eras, with the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from headrace import ClosedModel, WireModel
from headrace_gateway import Caller, ToolAnnotations, ToolDefinition, built_in_tools
from support.log import eventually
from support.mcp_bench import LEGACY, MODERN, McpBench, mcp_bench, texts

ERAS = pytest.mark.parametrize("version", [LEGACY, MODERN])


class NoArguments(ClosedModel):
    """Nothing."""


class HugeNumber(WireModel):
    """A number that JSON libraries disagree about."""

    number: int


async def answer_hugely(arguments: NoArguments, caller: Caller) -> HugeNumber:
    return HugeNumber(number=1 << 80)


async def fail(arguments: NoArguments, caller: Caller) -> HugeNumber:
    raise RuntimeError("a secret")


def tool(name: str, handler: Any) -> ToolDefinition[NoArguments]:
    return ToolDefinition(
        name=name,
        description="For tests.",
        arguments=NoArguments,
        answers=(HugeNumber,),
        annotations=ToolAnnotations(read_only=True),
        handler=handler,
    )


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[McpBench]:
    tools = built_in_tools()
    tools.register(tool("answer_hugely", answer_hugely))
    tools.register(tool("fail", fail))
    async with mcp_bench(tmp_path_factory.mktemp("bench"), tools=tools) as bench:
        bench.worker.may_end.set()
        yield bench


@ERAS
async def test_tools_are_listed_as_they_are_defined(bench: McpBench, version: str) -> None:
    async with bench.client(version) as client:
        listed = {each.name: each for each in (await client.list_tools()).tools}
    assert listed.keys() == {"scheduler", "worker_manager", "answer_hugely", "fail"}
    for definition in built_in_tools():
        found = listed[definition.name]
        assert found.description == definition.description
        assert found.output_schema == definition.output_schema
        assert found.input_schema["type"] == "object"
        assert found.input_schema["additionalProperties"] is False
    annotations = {name: each.annotations for name, each in listed.items()}
    assert annotations["scheduler"] is not None and annotations["scheduler"].destructive_hint is False
    assert annotations["worker_manager"] is not None and annotations["worker_manager"].destructive_hint is True


@ERAS
async def test_an_answer_is_structured_as_the_schema_says_and_the_same_as_text(bench: McpBench, version: str) -> None:
    async with bench.client(version) as client:
        result = await client.call_tool("scheduler", {"kind": "steps", "args": {"name": version}})
        [schema] = [each.output_schema for each in (await client.list_tools()).tools if each.name == "scheduler"]
    assert not result.is_error
    assert schema is not None
    Draft202012Validator(schema).validate(result.structured_content)
    [text] = texts(result.content)
    assert json.loads(text) == result.structured_content
    job = await bench.jobs.get_job(json.loads(text)["jobId"])
    assert job is not None
    assert (job.worker_name, job.args) == ("steps", {"name": version})


@ERAS
async def test_a_refusal_is_an_error_of_the_tool_with_code_and_advice(bench: McpBench, version: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"kind": "steps", "arg": {}}, "arguments_invalid"),
        ({"kind": 7}, "arguments_invalid"),
        ({"kind": "gardening"}, "kind_unknown"),
        ({"kind": "steps", "args": {"name": 7}}, "arguments_invalid"),
        ({}, "arguments_invalid"),
    ]
    async with bench.client(version) as client:
        for arguments, code in wrong:
            result = await client.call_tool("scheduler", arguments)
            [text] = texts(result.content)
            assert result.is_error
            assert json.loads(text)["code"] == code
            assert len(json.loads(text)["message"]) > 10


@ERAS
async def test_what_goes_wrong_inside_stays_inside(bench: McpBench, version: str) -> None:
    async with bench.client(version) as client:
        result = await client.call_tool("fail", {})
    assert result.is_error
    assert "secret" not in str(result)
    assert json.loads(texts(result.content)[0])["code"] == "internal_error"


@ERAS
async def test_an_unknown_tool_is_a_wrong_parameter(bench: McpBench, version: str) -> None:
    async with bench.client(version) as client:
        with pytest.raises(MCPError, match="scheduler, worker_manager") as raised:
            await client.call_tool("shutdown", {})
    assert raised.value.code == INVALID_PARAMS


@ERAS
async def test_numbers_of_any_size_pass(bench: McpBench, version: str) -> None:
    async with bench.client(version) as client:
        result = await client.call_tool("answer_hugely", {})
    assert json.loads(texts(result.content)[0]) == {"number": 1 << 80}


@ERAS
async def test_the_context_comes_in_meta(bench: McpBench, version: str) -> None:
    meta: Any = {"headrace/userId": "ann", "headrace/conversationId": "trip", "headrace/source": "chat", "other/userId": "bob"}
    async with bench.client(version) as client:
        result = await client.call_tool("scheduler", {"kind": "steps"}, meta=meta)
    job = await bench.jobs.get_job((result.structured_content or {})["jobId"])
    assert job is not None
    assert job.ctx.to_wire() == {"userId": "ann", "conversationId": "trip", "source": "chat"}


@ERAS
@pytest.mark.parametrize("value", ["", "x" * 300, 7, ["ann"], "trip\x1b[2J", "trip\x00"])
async def test_a_wrong_context_is_a_wrong_parameter(bench: McpBench, version: str, value: Any) -> None:
    meta: Any = {"headrace/conversationId": value}
    async with bench.client(version) as client:
        with pytest.raises(MCPError, match="headrace/conversationId") as raised:
            await client.call_tool("scheduler", {"kind": "steps"}, meta=meta)
    assert raised.value.code == INVALID_PARAMS


@ERAS
@pytest.mark.parametrize(
    "key", ["headrace/user_id", "headrace/userid", "Headrace/userId", "headrace.userId", "x-headrace/userId"]
)
async def test_a_misspelt_context_is_a_wrong_parameter(bench: McpBench, version: str, key: str) -> None:
    before = await bench.jobs.list_jobs(limit=100)
    meta: Any = {key: "ann"}
    async with bench.client(version) as client:
        with pytest.raises(MCPError, match=f"no '{key}' in _meta.*headrace/userId") as raised:
            await client.call_tool("scheduler", {"kind": "steps"}, meta=meta)
    assert raised.value.code == INVALID_PARAMS
    assert await bench.jobs.list_jobs(limit=100) == before, "a call that was to be a user's is not nobody's"


@ERAS
async def test_the_server_says_how_an_agent_is_to_behave(bench: McpBench, version: str) -> None:
    async with bench.client(version) as client:
        instructions = client.instructions or ""
        [prompt] = (await client.list_prompts()).prompts
        [message] = (await client.get_prompt(prompt.name)).messages
        with pytest.raises(MCPError):
            await client.get_prompt("another")
    assert message.content.type == "text" and message.content.text == instructions
    for needed in ("ask scheduler", "never a worker directly", "worker_manager is how you look", "none of your concern"):
        assert needed in instructions


@ERAS
async def test_a_call_that_waits_reports_progress_to_whoever_asked(tmp_path: Path, version: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        if progress == 0.5:
            served.worker.may_end.set()

    async with mcp_bench(tmp_path) as served, served.client(version) as client:
        result = await client.call_tool("scheduler", {"kind": "steps", "wait": 30}, progress_callback=tell)
        served.worker.may_end.clear()
        calling = asyncio.create_task(client.call_tool("scheduler", {"kind": "steps", "args": {"name": "b"}, "wait": 30}))
        await eventually(lambda: "b" in served.worker.half_done, "the second job runs")
        served.worker.may_end.set()
        unasked = await calling
    job = (result.structured_content or {})["job"]
    assert (job["status"], job["result"]) == ("completed", {"steps": 2})
    assert (0.5, 1.0, "half of it") in told
    assert [each[0] for each in told] == sorted({each[0] for each in told})
    assert (unasked.structured_content or {})["job"]["status"] == "completed"
