"""OpenAPI, with an operation for each tool made from its definition."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from headrace import ToolRefusal, WorkerDefinition
from headrace_gateway.http.context import CONTEXT_HEADERS
from headrace_gateway.http.described import describe_routes, hoist
from headrace_gateway.http.models import Problem
from headrace_gateway.tools import ToolDefinition, ToolRegistry
from headrace_gateway.tools.schema import close_root, written_schema

DESCRIPTION = """\
`POST /tools/{name}` calls a tool: the body holds its arguments, the headers the context. It always answers with an envelope: \
`{"ok": true, "data": ...}`, or `{"ok": false, "error": {"code": ..., "message": ...}}` with a message that says what to do."""

_HEADER_TEXTS = {
    "Headrace-User-Id": "The calling user, UTF-8.",
    "Headrace-Conversation-Id": "The conversation in which the call is made, UTF-8.",
    "Headrace-Source": "What the call comes from, for example the agent's name, UTF-8.",
}
_REFUSALS = {
    "400": "The body, the context or the arguments are wrong; the message says what to mend.",
    "401": "There is no credential, or it does not count.",
    "403": "A scope is missing, or the call is for another user, or comes from a page that may not call.",
    "404": "There is no such tool, or no such job; the message says which.",
    "409": "The idempotency key belongs to a job with other arguments, or the job is in no state for it; the message names it.",
    "413": "The body, or the job that it asks for, is too large.",
    "429": "Too many calls in a time, or at once; Retry-After says when to come again.",
    "503": "The queue cannot be reached, did not acknowledge in time, or the gateway failed; the message says what to do.",
}


class ToolList(BaseModel):
    """The tools of this gateway."""

    tools: list[dict[str, Any]] = Field(
        description="Each in the form that was asked for. That of `mcp` has name, description, inputSchema, outputSchema (of"
        " `data` in an answer that is ok) and annotations."
    )


PROBLEM: Final[dict[str, Any]] = {
    "description": "The detail says what to do.",
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}


class Health(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """How far the view of jobs is."""

    ready: bool
    detail: str
    behind: int = Field(description="Records of the log that the view has not taken in yet.")


def describe(app: FastAPI, tools: ToolRegistry) -> None:
    """Makes `app.openapi` describe the tools' operations too. Tools that are registered later are described as well."""

    described: tuple[ToolDefinition[Any], ...] = ()
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        nonlocal described, made
        # Nobody is asked who they are for it, and to make it takes as long as hundreds of calls.
        if not made or described != tuple(tools):
            described, made = tuple(tools), document_of(app, tools)
        return made

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way of extending it


def document_of(app: FastAPI, tools: ToolRegistry) -> dict[str, Any]:
    """The description, made anew."""
    document = get_openapi(title=app.title, version=version("headrace"), description=DESCRIPTION, routes=app.routes)
    components: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    components["ToolRefusal"] = hoist(close_root(written_schema(ToolRefusal)), "ToolRefusal", components)
    for item in document["paths"].values():
        for described in item.values():
            # FastAPI's own status for what is wrong, which is answered with 400 here.
            described["responses"].pop("422", None)
    for tool in tools:
        document["paths"][f"/tools/{tool.name}"] = {"post": _operation(tool, components)}
    document["paths"]["/tools/{name}"] = {"post": _any_operation()}
    describe_routes(document["paths"], components)
    return document


def with_workers(document: dict[str, Any], tools: ToolRegistry, workers: Mapping[str, WorkerDefinition]) -> dict[str, Any]:
    """A description in which arguments that are one of a list, as the kinds of work, have the list that there is now.

    Nothing else is taken over of what agents are shown: schemas that workers publish may be of any dialect, and one that is
    none would make the whole description useless. `GET /tools` has them.
    """
    schemas = dict(document["components"]["schemas"])
    for tool in tools:
        name = f"{tool.name}.arguments"
        if name not in schemas:
            continue
        properties = dict(schemas[name].get("properties", {}))
        for argument, shown in tool.shown_schema(workers).get("properties", {}).items():
            if argument in properties and "$ref" not in properties[argument] and "enum" in shown:
                properties[argument] = {**properties[argument], "enum": shown["enum"]}
        schemas[name] = {**schemas[name], "properties": properties}
    return {**document, "components": {**document["components"], "schemas": schemas}}


def _operation(tool: ToolDefinition[Any], components: dict[str, Any]) -> dict[str, Any]:
    arguments, answer = f"{tool.name}.arguments", f"{tool.name}.answer"
    components[arguments] = hoist(tool.input_schema, arguments, components)
    data = hoist(tool.output_schema, f"{tool.name}.data", components)
    components[answer] = _success(data)
    return {
        "operationId": f"call_{tool.name}",
        "summary": f"Call the tool {tool.name}",
        "description": tool.description,
        "parameters": _header_parameters(),
        "requestBody": {"required": True, "content": _json({"$ref": f"#/components/schemas/{arguments}"})},
        "responses": _responses({"$ref": f"#/components/schemas/{answer}"}, _REFUSALS),
    }


def _any_operation() -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "operationId": "call_tool",
        "summary": "Call a tool by its name",
        "parameters": [name, *_header_parameters()],
        "requestBody": {"required": True, "content": _json({"type": "object"})},
        "responses": _responses(_success({"type": "object"}), _REFUSALS),
    }


def _header_parameters() -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1, "maxLength": 200}
    return [
        {"name": header, "in": "header", "required": False, "description": _HEADER_TEXTS[header], "schema": schema}
        for header in CONTEXT_HEADERS
    ]


def _responses(success: dict[str, Any], refusals: dict[str, str]) -> dict[str, Any]:
    refusal = {"$ref": "#/components/schemas/ToolRefusal"}
    return {
        "200": {"description": "Done.", "content": _json(success)},
        **{status: {"description": text, "content": _json(refusal)} for status, text in sorted(refusals.items())},
    }


def _success(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"ok": {"type": "boolean", "const": True}, "data": data},
        "required": ["ok", "data"],
        "additionalProperties": False,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
