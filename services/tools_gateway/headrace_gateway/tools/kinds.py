"""The kinds of work that can be scheduled, as a definition of `scheduler` shows them to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace import WorkerDefinition

MEMORY_COMPACTION = "memory_compaction"
_DEFINITIONS = "$defs"


def schedulable(definitions: Mapping[str, WorkerDefinition]) -> dict[str, WorkerDefinition]:
    """The workers that `scheduler` offers, by their kind; of two that claim one kind, the first by name."""
    offered: dict[str, WorkerDefinition] = {}
    for _, definition in sorted(definitions.items()):
        if definition.kind is not None:
            offered.setdefault(definition.kind, definition)
    return offered


def with_kinds(schema: Mapping[str, Any], offered: Mapping[str, WorkerDefinition]) -> dict[str, Any]:
    """The arguments' schema of `scheduler` with the kinds that there are now, and the arguments that each of them takes.

    The root stays a plain object: a combinator stands only inside `args`, as models' providers ask for.
    """
    properties = dict(schema["properties"])
    properties["kind"] = {**properties["kind"], "enum": sorted({MEMORY_COMPACTION, *offered})}
    definitions = dict(schema.get(_DEFINITIONS, {}))
    alternatives = []
    for kind, definition in sorted(offered.items()):
        if kind == MEMORY_COMPACTION:
            continue
        prefix = f"{kind}."
        own = _renamed(definition.arguments_schema or {"type": "object"}, prefix)
        inner = own.pop(_DEFINITIONS, {})
        definitions |= {f"{prefix}{name}": part for name, part in inner.items()}
        alternatives.append({**own, "description": f"Of the kind {kind!r}. {definition.description}"})
    if alternatives:
        properties["args"] = {
            "anyOf": [*alternatives, {"type": "null"}],
            "default": None,
            "description": properties["args"].get("description", ""),
        }
    shown = {**schema, "properties": properties}
    return {**shown, _DEFINITIONS: definitions} if definitions else shown


def _renamed(part: Any, prefix: str) -> Any:
    """A schema whose references lead to its own definitions under other names."""
    if isinstance(part, list):
        return [_renamed(item, prefix) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        name: f"#/{_DEFINITIONS}/{prefix}{value.removeprefix(f'#/{_DEFINITIONS}/')}"
        if name == "$ref" and isinstance(value, str) and value.startswith(f"#/{_DEFINITIONS}/")
        else _renamed(value, prefix)
        for name, value in part.items()
    }


def without_needless_nulls(args: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without the nulls that stand for what was left out.

    A strict definition has its model give every argument, and null for what it would leave out. Where the worker takes null, it
    stays; where an argument must not be null and need not be given, it was left out.
    """
    properties, required = schema.get("properties"), schema.get("required", ())
    if not isinstance(properties, dict):
        return args
    return {
        name: value
        for name, value in args.items()
        if value is not None or name not in properties or name in required or _takes_null(properties[name], schema)
    }


def _takes_null(part: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    if not isinstance(part, dict) or depth > 20:
        return True
    if isinstance(reference := part.get("$ref"), str):
        return _takes_null(_resolved(reference, root), root, depth + 1)
    for combinator in ("anyOf", "oneOf"):
        if isinstance(alternatives := part.get(combinator), list):
            return any(_takes_null(each, root, depth + 1) for each in alternatives)
    if "const" in part:
        return part["const"] is None
    if isinstance(part.get("enum"), list):
        return None in part["enum"]
    kinds = part.get("type")
    return kinds is None or kinds == "null" or (isinstance(kinds, list) and "null" in kinds)


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        if not isinstance(found, dict) or step not in found:
            return None
        found = found[step]
    return found
