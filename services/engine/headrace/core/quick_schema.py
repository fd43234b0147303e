"""A quick answer to whether a value fits a JSON Schema, for the schemas that workers' models publish.

A validator of the whole standard takes as long for one job's arguments as all the rest of its acceptance. Here a schema becomes
one function that says yes only where such a validator is sure to say so, and else says nothing: then that is asked, and has the
words for what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

Check = Callable[[Any], bool]
"""True: the value fits. False: nobody knows."""

# What says nothing of whether a value fits; of formats that is so unless a checker is asked for.
_REMARKS: Final = frozenset(
    {
        *("title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$defs"),
    }
)
_REFERENCE: Final = "#/$defs/"


class _Unknown(Exception):
    """The schema has something that is not known here."""


def quick_check(schema: Mapping[str, Any]) -> Check | None:
    """The function for a schema, by JSON Schema 2020-12; None for one that says more than is known here.

    It is for values as they are read from JSON or written as it: what is no plain JSON never fits where the schema says
    something of it.
    """
    try:
        return _compiled(schema, _Root(schema))
    except (_Unknown, TypeError, ValueError, LookupError, AttributeError, RecursionError, re.error):
        return None


class _Root:
    """The schema as a whole, to which references lead, and those of its definitions that were compiled so far."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._definitions = schema.get("$defs")
        self._compiled: dict[str, Check | None] = {}

    def definition(self, name: str) -> Check:
        if name not in self._compiled:
            self._compiled[name] = None
            self._compiled[name] = _compiled(self._definitions[name], self)  # type: ignore[index]  # what is none is unknown
        check = self._compiled[name]
        if check is None:
            raise _Unknown  # it leads back to itself
        return check


def _compiled(schema: Any, root: _Root) -> Check:
    if schema is True:
        return _anything
    if not isinstance(schema, Mapping):
        raise _Unknown
    checks = []
    for keyword, value in schema.items():
        if keyword in _REMARKS:
            continue
        if (make := _KEYWORDS.get(keyword)) is None:
            raise _Unknown
        if (check := make(value, schema, root)) is not None:
            checks.append(check)
    if len(checks) == 1:
        return checks[0]
    return _all_of(tuple(checks))


def _anything(_: Any) -> bool:
    return True


def _all_of(checks: tuple[Check, ...]) -> Check:
    def check(value: Any) -> bool:
        for each in checks:  # noqa: SIM110 - a generator would take as long as the checks
            if not each(value):
                return False
        return True

    return check


# --- keywords -----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    # What is not finite is null as soon as it is JSON.
    return type(value) is int or (type(value) is float and isfinite(value))


_TYPES: Final[Mapping[str, Check]] = {
    "object": lambda value: type(value) is dict,
    "array": lambda value: type(value) is list,
    "string": lambda value: type(value) is str,
    "integer": lambda value: type(value) is int,
    "number": _is_number,
    "boolean": lambda value: type(value) is bool,
    "null": lambda value: value is None,
}


def _type(value: Any, *_: Any) -> Check:
    if isinstance(value, str):
        return _TYPES[value]
    checks = [_TYPES[name] for name in value]
    return lambda given: any(check(given) for check in checks)


def _enum(values: Any, *_: Any) -> Check:
    known = frozenset(value for value in values if type(value) is str)
    takes_null = None in values
    return lambda given: (type(given) is str and given in known) or (given is None and takes_null)


def _const(value: Any, *_: Any) -> Check:
    return _enum([value])


def _minimum_length(least: int, *_: Any) -> Check:
    return lambda given: type(given) is not str or len(given) >= least


def _maximum_length(most: int, *_: Any) -> Check:
    return lambda given: type(given) is not str or len(given) <= most


def _pattern(pattern: str, *_: Any) -> Check:
    search = re.compile(pattern).search
    return lambda given: type(given) is not str or search(given) is not None


def _minimum(least: float, *_: Any) -> Check:
    return lambda given: not _is_number(given) or given >= least


def _maximum(most: float, *_: Any) -> Check:
    return lambda given: not _is_number(given) or given <= most


def _above(limit: float, *_: Any) -> Check:
    return lambda given: not _is_number(given) or given > limit


def _below(limit: float, *_: Any) -> Check:
    return lambda given: not _is_number(given) or given < limit


def _minimum_items(least: int, *_: Any) -> Check:
    return lambda given: type(given) is not list or len(given) >= least


def _maximum_items(most: int, *_: Any) -> Check:
    return lambda given: type(given) is not list or len(given) <= most


def _items(schema: Any, _: Any, root: _Root) -> Check:
    check = _compiled(schema, root)
    return lambda given: type(given) is not list or all(map(check, given))


def _required(names: Any, *_: Any) -> Check:
    needed = frozenset(names)
    return lambda given: type(given) is not dict or needed <= given.keys()


def _properties(schemas: Mapping[str, Any], schema: Mapping[str, Any], root: _Root) -> Check:
    known = {name: _compiled(each, root) for name, each in schemas.items()}
    others = _compiled_others(schema, root)

    def check(given: Any) -> bool:
        if type(given) is not dict:
            return True
        for name, value in given.items():
            one = known.get(name, others)
            if one is None or not one(value):
                return False
        return True

    return check


def _compiled_others(schema: Mapping[str, Any], root: _Root) -> Check | None:
    """What values of further names have to be; None where there must be none."""
    others = schema.get("additionalProperties", True)
    return None if others is False else _compiled(others, root)


def _additional(_: Any, schema: Mapping[str, Any], root: _Root) -> Check | None:
    # Together with the properties, where there are any.
    return None if "properties" in schema else _properties({}, schema, root)


def _any_of(schemas: Any, _: Any, root: _Root) -> Check:
    checks = [_compiled(each, root) for each in schemas]
    return lambda given: any(check(given) for check in checks)


def _reference(reference: str, _: Any, root: _Root) -> Check:
    name = reference.removeprefix(_REFERENCE)
    if not reference.startswith(_REFERENCE) or "/" in name or "~" in name or "%" in name:
        raise _Unknown
    return root.definition(name)


_KEYWORDS: Final[Mapping[str, Callable[..., Check | None]]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minLength": _minimum_length,
    "maxLength": _maximum_length,
    "pattern": _pattern,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _above,
    "exclusiveMaximum": _below,
    "minItems": _minimum_items,
    "maxItems": _maximum_items,
    "items": _items,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "anyOf": _any_of,
    "$ref": _reference,
}
