"""OpenAPI of the routes beside the tools, made from the routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from headrace_gateway.http.events import MEDIA_TYPE
from headrace_gateway.http.models import LONGEST_NAME, Problem
from headrace_gateway.http.routes import ROUTES, STREAMS, Route, StreamRoute
from headrace_gateway.tools.schema import close_root, read_schema, written_schema

# What any of them may answer.
_SHARED: Final = (400, 401, 403, 429, 503)
_TEXTS: Final = {
    204: "There is nothing more to tell.",
    400: "The request is wrong; the detail says what to mend.",
    401: "There is no credential, or it is none that counts.",
    403: "The credential lacks a scope, or may not act for the user.",
    404: "There is no such job.",
    409: "The job is in no state for it.",
    410: "What has changed since the id cannot be told any more: list the jobs, and begin without it.",
    413: "The body is too large.",
    429: "Too much at a time; `Retry-After` says when to come again.",
    503: "The log cannot be reached or is not read yet, or the gateway failed; the detail says what to do.",
}


# Of each event, as its fields are once they were read.
_EVENT: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Where to go on from."},
        "event": {"type": "string", "enum": ["job", "closing"]},
        "data": {"type": "string", "description": "JSON: of `job` the job, of `closing` the `reason`."},
        "retry": {"description": "Milliseconds after which to come again."},
    },
}


def describe_routes(paths: dict[str, Any], components: dict[str, Any]) -> None:
    """Adds the operations of the routes to the paths of a description, and what they refer to to its components."""
    components["Problem"] = hoist(written_schema(Problem), "Problem", components)
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    for stream in STREAMS:
        paths.setdefault(stream.path, {})["get"] = _stream(stream, components)


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    name = route.answer.__name__
    components[name] = hoist(close_root(written_schema(route.answer)), name, components)
    success = {"description": "Done.", "content": {"application/json": {"schema": _ref(name)}}}
    described: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query, components)],
        "responses": {"200": success, **_problems(route.statuses)},
    }
    if route.body is not None:
        name = route.body.__name__
        components[name] = hoist(read_schema(route.body), name, components)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(name)}}}
    return described


def _stream(route: StreamRoute, components: dict[str, Any]) -> dict[str, Any]:
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "description": "The id of the last event that was read: the stream goes on after it.",
        "schema": {"type": "string"},
    }
    success = {"description": "Events, as they come.", "content": {MEDIA_TYPE: {"schema": _EVENT}}}
    return {
        "operationId": route.operation,
        "summary": route.summary,
        "description": route.description,
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query, components), last],
        "responses": {"200": success, **_problems(route.statuses)},
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(model: type[BaseModel], components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = hoist(read_schema(model), model.__name__, components)
    return [
        {"name": name, "in": "query", "required": False, "description": part.pop("description", ""), "schema": _given(part)}
        for name, part in schema.get("properties", {}).items()
    ]


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that is there: whoever has none leaves the parameter out."""
    alternatives = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    if len(alternatives) == 1:
        schema = {name: part for name, part in schema.items() if name not in ("anyOf", "default")} | alternatives[0]
    return schema


def _problems(statuses: tuple[int, ...]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        str(status): {"description": _TEXTS[status]} | ({} if status == HTTPStatus.NO_CONTENT else {"content": content})
        for status in sorted({*_SHARED, *statuses})
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def hoist(schema: dict[str, Any], prefix: str, components: dict[str, Any]) -> dict[str, Any]:
    """The schema with its `$defs` moved into the components, under names that no other models can take."""
    rest = {name: value for name, value in schema.items() if name != "$defs"}
    for name, definition in schema.get("$defs", {}).items():
        components[f"{prefix}.{name}"] = _point_to(definition, prefix)
    moved = _point_to(rest, prefix)
    assert isinstance(moved, dict)
    return moved


def _point_to(part: Any, prefix: str) -> Any:
    if isinstance(part, list):
        return [_point_to(item, prefix) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        name: value.replace("#/$defs/", f"#/components/schemas/{prefix}.")
        if name == "$ref" and isinstance(value, str)
        else _point_to(value, prefix)
        for name, value in part.items()
    }
