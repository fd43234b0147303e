"""Arguments that plainly fit what their worker published are let through at once, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.arguments import PublishedSchemas
from headrace.errors import ArgumentsInvalid
from headrace.models import WorkerDefinition

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
        "enum": st.lists(scalars.filter(lambda each: each == each), min_size=1, max_size=3),
        "const": scalars.filter(lambda each: each == each),
        "minLength": numbers.map(abs),
        "maxLength": numbers.map(abs),
        "pattern": st.sampled_from(["^a", "b$", "^[ab]+$"]),
        "format": st.sampled_from(["date-time", "email"]),
        "minimum": numbers,
        "maximum": numbers,
        "exclusiveMinimum": numbers,
        "exclusiveMaximum": numbers,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minItems": numbers.map(abs),
        "maxItems": numbers.map(abs),
        "uniqueItems": st.booleans(),
        "required": st.lists(names, unique=True, max_size=2),
        "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b", "#/$defs/missing", "https://schemas.example/one"]),
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
                "oneOf": st.lists(inner, min_size=1, max_size=3),
                "not": inner,
            },
        ),
    )


schemas = st.builds(
    lambda schema, definitions: {**schema, "$defs": definitions},
    st.recursive(plain_schemas, _wider, max_leaves=6),
    st.fixed_dictionaries({"a": plain_schemas, "b": plain_schemas}),
)


def published(schema: dict[str, Any]) -> WorkerDefinition:
    return WorkerDefinition(name="one", description="", category="test", arguments_schema=schema)


@given(schemas, st.dictionaries(names, values, max_size=3))
def test_what_is_let_through_at_once_would_be_let_through(schema: dict[str, Any], args: dict[str, Any]) -> None:
    """The validator of the whole standard has the last word, and is asked by itself here."""
    definition, quick = published(schema), PublishedSchemas()
    if not quick.certainly_fit(definition, [args]):
        return
    thorough = PublishedSchemas()
    thorough.certainly_fit = lambda *_: False  # type: ignore[method-assign]
    asyncio.run(thorough.check(definition, [args]))


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
    "$defs": {"friend": {"type": "object", "properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/friend"}}}},
}


@pytest.mark.parametrize(
    "args",
    [
        {"name": "ann"},
        {"name": "ann", "age": None},
        {"name": "ann", "age": 199, "kind": "two"},
        {"name": "ann", "friends": [{"name": "bob"}, {"friend": {"friend": {}}}]},
    ],
)
def test_what_workers_publish_is_known(args: dict[str, Any]) -> None:
    assert PublishedSchemas().certainly_fit(published(PERSON), [args])


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"name": ""},
        {"name": "annabel"},
        {"name": 5},
        {"name": "ann", "age": 200},
        {"name": "ann", "age": True},
        {"name": "ann", "kind": "three"},
        {"name": "ann", "friends": [{"name": 1}]},
        {"name": "ann", "friends": [{}, {}, {}]},
        {"name": "ann", "unknown": 1},
    ],
)
async def test_what_does_not_fit_is_told_with_its_place(args: dict[str, Any]) -> None:
    schemas = PublishedSchemas()
    assert not schemas.certainly_fit(published(PERSON), [{"name": "ann"}, args])
    with pytest.raises(ArgumentsInvalid, match="args"):
        await schemas.check(published(PERSON), [args])


@pytest.mark.parametrize("args", [{"name": object()}, {"name": "\ud800"}, {"name": "ann", 5: "x"}])
def test_of_what_is_no_json_nothing_is_said(args: Any) -> None:
    assert not PublishedSchemas().certainly_fit(published({"properties": {"name": {}}}), [args])


def test_what_is_too_deep_or_too_large_is_left_to_the_other_validator() -> None:
    schemas, anything = PublishedSchemas(), published({"properties": {"other": {"type": "string"}}})
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert not schemas.certainly_fit(anything, [{"deep": deep}])
    assert not schemas.certainly_fit(anything, [{"large": "x" * 20_000}])
    # Or its own end would be too deep for Python.
    while isinstance(deep, list):
        deep = deep.pop()


async def test_a_schema_that_is_none_or_leads_elsewhere_takes_anything() -> None:
    for schema in ({"type": "person"}, {"$ref": "https://schemas.example/one"}, {"$ref": "#/$defs/missing"}):
        schemas = PublishedSchemas()
        with contextlib.suppress(ArgumentsInvalid):
            assert not schemas.certainly_fit(published(schema), [{"name": 5}])
        await schemas.check(published(schema), [{"name": 5}])


CLOSED = {
    "type": "object",
    "properties": {
        "colour": {"type": "string"},
        "size": {"type": "object", "properties": {"width": {}}, "additionalProperties": False},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"color": "red"}, "args: 'color': there is no such name: did you mean colour? (there are: colour, size)."),
        ({"size": {"depth": 1}}, "args.size: 'depth': there is no such name (there are: width)."),
        ({"taste": 1}, "args: 'taste': there is no such name (there are: colour, size)."),
    ],
    ids=["near", "inside", "far"],
)
async def test_a_name_that_is_unknown_is_told_with_those_that_there_are(args: dict[str, Any], told: str) -> None:
    definition = WorkerDefinition(name="paint", description="Paints.", category="tool", arguments_schema=CLOSED)
    with pytest.raises(ArgumentsInvalid) as refused:
        await PublishedSchemas().check(definition, [args])
    assert str(refused.value) == f"Arguments of paint are wrong: {told}"


async def test_of_very_many_unknown_names_the_first_are_told() -> None:
    definition = published({"type": "object", "properties": {"to": {}}, "additionalProperties": False})
    with pytest.raises(ArgumentsInvalid) as refused:
        await PublishedSchemas().check(definition, [{"too": 1, **{f"name{number}": 1 for number in range(20_000)}}])
    assert "'too': there is no such name: did you mean to? (there are: to)" in str(refused.value)
    assert "'name3': there is no such name" in str(refused.value)
    assert str(refused.value).endswith(", and 19,996 more.")
