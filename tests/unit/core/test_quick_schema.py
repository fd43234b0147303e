"""A quick answer to whether a value fits a schema: it says yes only where a validator of the whole standard does."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from headrace.core.quick_schema import quick_check

names = st.sampled_from(["a", "b", "c"])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.5, -2.0, math.nan, math.inf]), st.text("ab", max_size=3)
)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)), max_leaves=8
)
numbers = st.integers(-2, 3)
plain_schemas = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null", ["string", "null"]]),
        "enum": st.lists(scalars, min_size=1, max_size=3),
        "const": scalars,
        "minLength": numbers.map(abs),
        "maxLength": numbers.map(abs),
        "pattern": st.sampled_from(["^a", "b$", "^[ab]+$"]),
        "minimum": numbers,
        "maximum": numbers,
        "exclusiveMinimum": numbers,
        "exclusiveMaximum": numbers,
        "minItems": numbers.map(abs),
        "maxItems": numbers.map(abs),
        "required": st.lists(names, unique=True, max_size=2),
        "title": st.just("a title"),
        "uniqueItems": st.booleans(),  # not known to the quick one
        "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b", "#/$defs/missing", "#"]),
    },
)


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda plain, more: plain | more,
        plain_schemas,
        st.fixed_dictionaries(
            {},
            optional={
                "items": inner,
                "properties": st.dictionaries(names, inner, max_size=3),
                "additionalProperties": inner | st.booleans(),
                "anyOf": st.lists(inner, min_size=1, max_size=3),
            },
        ),
    )


schemas = st.builds(
    lambda schema, definitions: {**schema, "$defs": definitions},
    st.recursive(plain_schemas, _wider, max_leaves=6),
    st.fixed_dictionaries({"a": plain_schemas, "b": plain_schemas}),
)


@given(schemas, values)
def test_what_it_lets_through_a_validator_lets_through(schema: dict[str, Any], value: Any) -> None:
    check = quick_check(schema)
    if check is None or not check(value):
        return
    # As the worker reads it.
    assert Draft202012Validator(schema).is_valid(orjson.loads(orjson.dumps(value)))


PERSON = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"anyOf": [{"type": "integer", "minimum": 0, "exclusiveMaximum": 200}, {"type": "null"}], "default": None},
        "kind": {"enum": ["one", "two"]},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "maxItems": 2},
    },
    "$defs": {"friend": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}}}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "ann"},
        {"name": "ann", "age": None},
        {"name": "ann", "age": 199, "kind": "two"},
        {"name": "ann", "friends": [{"name": "bob"}, {"other": object()}]},
    ],
)
def test_what_workers_publish_is_known(value: Any) -> None:
    check = quick_check(PERSON)
    assert check is not None and check(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"name": ""},
        {"name": "annabel"},
        {"name": 5},
        {"name": "ann", "age": 200},
        {"name": "ann", "age": True},
        {"name": "ann", "kind": "three"},
        {"name": "ann", "friends": [{"name": "Bob"}]},
        {"name": "ann", "friends": [{}, {}, {}]},
        {"name": "ann", "friends": ({},)},
        {"name": "ann", "unknown": 1},
        [],
        None,
    ],
)
def test_of_what_may_not_fit_nothing_is_said(value: Any) -> None:
    check = quick_check(PERSON)
    assert check is not None and not check(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "string"}]},
        {"properties": {"deep": {"items": {"uniqueItems": True}}}},
        {"type": "person"},
        {"pattern": "("},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}},
        {"properties": False},
        {"items": False},
    ],
)
def test_a_schema_with_more_in_it_is_left_to_the_validator(schema: dict[str, Any]) -> None:
    assert quick_check(schema) is None


def test_definitions_that_lead_to_each_other_are_compiled_once() -> None:
    """Each names the next one twice: followed anew each time, these would be a billion."""
    definitions: dict[str, Any] = {
        f"d{number}": {"anyOf": [{"$ref": f"#/$defs/d{number + 1}"}, {"$ref": f"#/$defs/d{number + 1}"}]} for number in range(30)
    }
    check = quick_check({"$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"type": "string"}}})
    assert check is not None and check("text")
