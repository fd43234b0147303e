"""JSON Schema as the strict modes of models' providers take it.

The rules are OpenAI's for structured outputs, of which Anthropic's are a part: every object is closed and lists all of its
properties as required; what may be left out may be null instead; of the combinators there is `anyOf` alone, and not at the root;
a few keywords are not known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

_DEFINITIONS: Final = "$defs"
# What neither provider knows in a strict schema, and what is no loss for a model: it is checked when the call comes.
_UNKNOWN: Final = frozenset(
    {"default", "title", "examples", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minimum", "maximum"}
    | {"exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format", "minProperties", "maxProperties"}
    | {"contentEncoding", "contentMediaType", "deprecated", "readOnly", "writeOnly", "$schema", "$id", "$comment"}
)
_INEXPRESSIBLE: Final = frozenset(
    {"allOf", "not", "if", "then", "else", "patternProperties", "dependentRequired", "dependentSchemas", "prefixItems"}
    | {"propertyNames", "unevaluatedProperties", "unevaluatedItems", "contains", "$dynamicRef"}
)
_DEEPEST: Final = 10


class NotStrict(ValueError):
    """A schema takes what no strict one can describe, such as an object with names of its sender's choosing."""


def strict_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as a strict one; it takes nothing that the schema does not take, null for what may be left out apart.

    Alternatives that cannot be described strictly are left out: a kind of work whose arguments have names of the caller's
    choosing, for example. The names of such kinds stay in `kind`, with null for their arguments.

    Raises:
        NotStrict: something that is no alternative cannot be described.
    """
    definitions, root = _describable(schema.get(_DEFINITIONS, {})), {**schema}
    root.pop(_DEFINITIONS, None)
    shown = _strict(root, definitions.keys())
    used = _reachable(shown, definitions)
    return {**shown, _DEFINITIONS: {name: definitions[name] for name in definitions if name in used}} if used else shown


def _describable(definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those definitions that can be described, as they are then. One that leads to another that cannot, cannot either."""
    left = dict(definitions)
    while True:
        strict: dict[str, dict[str, Any]] = {}
        for name, part in left.items():
            with suppress(NotStrict):
                strict[name] = _strict(part, left.keys())
        if len(strict) == len(left):
            return strict
        left = {name: left[name] for name in strict}


def _strict(part: Any, definitions: Collection[str], depth: int = 0) -> dict[str, Any]:
    if not isinstance(part, dict) or depth > _DEEPEST:
        raise NotStrict("it takes anything, or is nested too deep")
    if "oneOf" in part:
        part = {**{name: value for name, value in part.items() if name != "oneOf"}, "anyOf": part["oneOf"]}
    if found := _INEXPRESSIBLE & part.keys():
        raise NotStrict(f"{', '.join(sorted(found))} cannot be said")
    kept = {name: value for name, value in part.items() if name not in _UNKNOWN}
    if "$ref" in kept:
        if str(kept["$ref"]).removeprefix(f"#/{_DEFINITIONS}/") not in definitions:
            raise NotStrict(f"what {kept['$ref']} leads to cannot be described")
        return {"$ref": kept["$ref"]}
    if "anyOf" in kept:
        return {**kept, "anyOf": _alternatives(kept["anyOf"], definitions, depth)}
    if "properties" in kept or kept.get("type") == "object":
        return _object(kept, definitions, depth)
    if kept.get("type") == "array" or "items" in kept:
        return {**kept, "items": _strict(kept.get("items"), definitions, depth + 1)}
    if "type" not in kept and "enum" not in kept and "const" not in kept:
        raise NotStrict("it takes anything")
    return kept


def _alternatives(parts: list[Any], definitions: Collection[str], depth: int) -> list[dict[str, Any]]:
    described = []
    for each in parts:
        try:
            described.append(_strict(each, definitions, depth + 1))
        except NotStrict:
            continue
    if not described:
        raise NotStrict("none of its alternatives can be described")
    return described


def _object(part: dict[str, Any], definitions: Collection[str], depth: int) -> dict[str, Any]:
    properties = part.get("properties")
    if not isinstance(properties, dict) or part.get("additionalProperties") not in (None, False):
        raise NotStrict("an object has names of its sender's choosing")
    required = set(part.get("required", ()))
    strict = {}
    for name, inner in properties.items():
        described = _strict(inner, definitions, depth + 1)
        strict[name] = described if name in required else _nullable(described)
    return {**part, "type": "object", "properties": strict, "required": list(strict), "additionalProperties": False}


def _nullable(part: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in part:
        there = any(each.get("type") == "null" for each in part["anyOf"])
        return part if there else {**part, "anyOf": [*part["anyOf"], {"type": "null"}]}
    kinds = part.get("type")
    if kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return part
    if isinstance(kinds, str) and "enum" not in part and "const" not in part and kinds not in ("object", "array"):
        return {**part, "type": [kinds, "null"]}
    description = {"description": part["description"]} if "description" in part else {}
    return {"anyOf": [{name: value for name, value in part.items() if name != "description"}, {"type": "null"}], **description}


def _reachable(part: Any, definitions: Mapping[str, Any]) -> set[str]:
    """The names of the definitions to which a schema leads."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            name = str(each.get("$ref", "")).removeprefix(f"#/{_DEFINITIONS}/")
            if name in definitions and name not in found:
                found.add(name)
                waiting.append(definitions[name])
            waiting += [value for value in each.values() if isinstance(value, dict | list)]
    return found
