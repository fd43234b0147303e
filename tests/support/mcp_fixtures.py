"""The tools that the protocol's conformance suite wants of a server under test. What each of them does is done by a real job."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace import AbstractWorker, ClosedModel, GiveUp, Job, JobContext, JobStatus, WireModel
from headrace_gateway import Caller, TaskSupport, ToolAnnotations, ToolDefinition, ToolRefused, ToolRegistry, built_in_tools

WAIT_SECONDS = 20.0

# What the suite looks for in a list of tools: whether all of a schema's words arrive.
_FULL_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
# An argument that clients repeat in a header.
_HEADER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string", "x-mcp-header": "Label"}},
    "additionalProperties": False,
}


class FixtureArguments(ClosedModel):
    """What some fixture takes."""

    name: str = "World"
    seconds: float = 0.0
    label: str = ""
    filename: str = ""


class Said(WireModel):
    """What a fixture says, or the job that will say it."""

    text: str | None = None
    job_id: str | None = None


class FixtureJob(ClosedModel):
    """What a job of the fixtures is to do."""

    fixture: str
    name: str = ""
    seconds: float = 0.0


class FixtureWorker(AbstractWorker[FixtureJob]):
    """Does what every fixture is about."""

    name = "fixtures"
    description = "Fixtures of the conformance suite."
    max_attempts = 1

    async def run(self, args: FixtureJob, ctx: JobContext) -> dict[str, Any]:
        match args.fixture:
            case "greet":
                return {"text": f"Hello, {args.name}!"}
            case "test_simple_text":
                return {"text": "This is a simple text response for testing."}
            case "test_tool_with_progress":
                for fraction in (0.0, 0.5, 1.0):
                    ctx.progress(fraction, f"Completed step {fraction:g} of 1")
                    await asyncio.sleep(1.2)
                return {"text": "0, 50 and 100 %"}
            case "slow_compute":
                await asyncio.sleep(args.seconds)
                return {"text": f"computed for {args.seconds:g} s"}
            case "test_logging_tool" | "json_schema_2020_12_tool" | "test_x_mcp_header" | "confirm_delete":
                return {"text": "done"}
            case "protocol_error_job":
                return {"text": 7}
            case _:
                raise GiveUp("This tool intentionally returns an error for testing")


def fixture_tools() -> ToolRegistry:
    """The tools of the gateway, and the fixtures."""
    tools = built_in_tools()
    for name in ("greet", "test_simple_text", "test_error_handling", "test_tool_with_progress"):
        tools.register(_at_once(name))
    # The suite gives this one half a second to answer, as long as a job may take to be begun on a busy machine.
    tools.register(_receipt("test_logging_tool"))
    tools.register(_at_once("json_schema_2020_12_tool", _FULL_SCHEMA))
    tools.register(_at_once("test_x_mcp_header", _HEADER_SCHEMA))
    for name in ("slow_compute", "failing_job", "protocol_error_job", "confirm_delete"):
        tools.register(_as_task(name, required=name == "failing_job"))
    return tools


def _at_once(name: str, shown: dict[str, Any] | None = None) -> ToolDefinition[FixtureArguments]:
    async def handle(arguments: FixtureArguments, caller: Caller) -> Said:
        job = await _start(name, arguments, caller)
        job = await caller.operations.wait_for_job(job.id, wait=WAIT_SECONDS)
        if job.status is not JobStatus.COMPLETED:
            raise ToolRefused("fixture_failed", job.error.message if job.error else f"It is {job.status.value}.")
        return Said.model_validate(job.result)

    return _tool(name, handle, shown=shown)


def _receipt(name: str) -> ToolDefinition[FixtureArguments]:
    async def handle(arguments: FixtureArguments, caller: Caller) -> Said:
        return Said(job_id=(await _start(name, arguments, caller)).id)

    return _tool(name, handle)


def _as_task(name: str, *, required: bool) -> ToolDefinition[FixtureArguments]:
    async def handle(arguments: FixtureArguments, caller: Caller) -> Said:
        return Said(job_id=(await _start(name, arguments, caller)).id)

    support = TaskSupport(job_id=lambda data: str(data["jobId"]), answer=_said, required=required)
    return _tool(name, handle, task=support)


async def _start(name: str, arguments: FixtureArguments, caller: Caller) -> Job:
    args = FixtureJob(fixture=name, name=arguments.name, seconds=arguments.seconds)
    return await caller.operations.enqueue(FixtureWorker.name, args.to_wire(), caller.context)


def _said(job: Job) -> Said:
    return Said.model_validate(job.result, strict=True)


def _tool(
    name: str, handler: Any, *, task: TaskSupport | None = None, shown: dict[str, Any] | None = None
) -> ToolDefinition[FixtureArguments]:
    return ToolDefinition(
        name=name,
        description="A fixture of the conformance suite.",
        arguments=FixtureArguments,
        answers=(Said,),
        annotations=ToolAnnotations(read_only=True),
        handler=handler,
        task=task,
        show=None if shown is None else lambda *_: shown,
    )
