"""The kinds of work that can be scheduled, as a definition of `scheduler` shows them to a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from headrace import WorkerDefinition

MEMORY_COMPACTION = "memory_compaction"
_DEFINITIONS = "$defs"
_DEEPEST = 20


def are_contested(definitions: Mapping[str, WorkerDefinition]) -> bool:
    """Whether several workers claim the same kind."""
    kinds = [definition.kind for definition in definitions.values() if definition.kind is not None]
    return len(kinds) != len(set(kinds))


def that_count(definitions: Mapping[str, WorkerDefinition], live: Collection[str]) -> dict[str, WorkerDefinition]:
    """The workers without those that nobody runs whose kind another one claims that somebody does run: definitions outlive
    engines, and a worker that was renamed has left one behind.

    Args:
        live: the names of workers that somebody runs.
    """
    done = {definition.kind for name, definition in definitions.items() if name in live}
    return {
        name: definition
        for name, definition in definitions.items()
        if definition.kind is None or name in live or definition.kind not in done
    }


def schedulable(definitions: Mapping[str, WorkerDefinition]) -> dict[str, WorkerDefinition]:
    """The workers that `scheduler` offers, by their kind; of two that count and claim one kind, the first by name."""
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
        # A kind may be any text. A worker's name has no point in it and needs no escaping in a reference.
        prefix = f"{definition.name}."
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
    """Arguments without the nulls that stand for what was left out, however deep they are.

    A strict definition has its model give every argument, and null for what it would leave out. Where the worker takes null, it
    stays; where an argument must not be null and need not be given, it was left out.
    """
    if b"null" not in orjson.dumps(args):
        return args
    cleaned = _cleaned(args, schema, schema)
    return cleaned if isinstance(cleaned, dict) else args


def _cleaned(value: Any, part: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    if depth > _DEEPEST or not isinstance(value, dict | list):
        return value
    described = _only_described(part, root, list if isinstance(value, list) else dict)
    if isinstance(value, list):
        return [_cleaned(item, described.get("items"), root, depth + 1) for item in value]
    properties, required = described.get("properties"), described.get("required", ())
    if not isinstance(properties, dict):
        return value
    return {
        name: _cleaned(inner, properties.get(name), root, depth + 1)
        for name, inner in value.items()
        if inner is not None or name not in properties or name in required or _takes_null(properties[name], root)
    }


def _only_described(part: Any, root: Mapping[str, Any], kind: type) -> Mapping[str, Any]:
    """What a schema says of objects, or of lists; nothing where it has several ways to say it."""
    for _ in range(_DEEPEST):
        if not isinstance(part, dict):
            return {}
        if isinstance(reference := part.get("$ref"), str):
            part = _resolved(reference, root)
        elif isinstance(alternatives := part.get("anyOf", part.get("oneOf")), list):
            fitting = [each for each in alternatives if _describes(each, kind)]
            part = fitting[0] if len(fitting) == 1 else None
        else:
            return part
    return {}


def _describes(part: Any, kind: type) -> bool:
    """Whether a schema may be one of an object, or of a list; a reference may lead to either."""
    return isinstance(part, dict) and (part.get("type") in (None, "object" if kind is dict else "array"))


def _takes_null(part: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    if not isinstance(part, dict) or depth > _DEEPEST:
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
