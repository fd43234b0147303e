"""What agents read of the tools."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from headrace import ToolCall, ToolSuccess
from headrace_gateway import ToolDefinition, built_in_tools
from headrace_gateway.tools.schema import open_objects
from support.jobs import InMemoryJobs, operations_of

TOOLS = {tool.name: tool for tool in built_in_tools()}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_schemas_are_valid_and_plain_closed_objects(tool: ToolDefinition[Any]) -> None:
    for schema in (tool.input_schema, tool.output_schema):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
    assert open_objects(tool.input_schema) == []
    assert not {"anyOf", "oneOf", "allOf", "enum", "not"} & set(tool.input_schema)


def test_annotations_tell_what_a_tool_may_do() -> None:
    assert TOOLS["worker_manager"].to_wire()["annotations"] == {"readOnlyHint": False, "destructiveHint": True}
    assert TOOLS["scheduler"].to_wire()["annotations"] == {"readOnlyHint": False, "destructiveHint": False}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_descriptions_say_how_an_agent_behaves(tool: ToolDefinition[Any]) -> None:
    text = tool.description
    assert "never" in text
    assert "a worker directly" in text
    assert "How and where a job is executed is none of your concern." in text
    assert "worker_manager" in text or tool.name == "worker_manager"
    assert "scheduler" in text or tool.name == "scheduler"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("scheduler", {"kind": "digest", "args": {"to": ["x"]}}),
        ("worker_manager", {"action": "list_workers"}),
        ("worker_manager", {"action": "list_jobs"}),
        ("worker_manager", {"action": "get_job", "jobId": "job-of-default"}),
        ("worker_manager", {"action": "retry_job", "jobId": "job-of-default"}),
    ],
)
async def test_answers_fit_their_schema_whose_root_is_closed(tool: str, arguments: dict[str, Any]) -> None:
    answer = await built_in_tools().dispatch(ToolCall(name=tool, arguments=arguments), operations_of(InMemoryJobs()))
    assert isinstance(answer, ToolSuccess)
    Draft202012Validator(TOOLS[tool].output_schema).validate(answer.data)
    assert not Draft202012Validator(TOOLS[tool].output_schema).is_valid({**answer.data, "surprise": 1})


def test_an_answer_has_what_its_schema_requires() -> None:
    [jobs] = [part for name, part in TOOLS["worker_manager"].output_schema["$defs"].items() if name == "JobList"]
    assert jobs["required"] == ["jobs"]
    assert set(TOOLS["scheduler"].output_schema["required"]) == {"scheduled", "jobId", "workerName"}
