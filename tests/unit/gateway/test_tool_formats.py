"""The tools in the forms that providers of models take, held against the rules that these have written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field

from headrace import ArgumentsInvalid, ClosedModel, WireModel, WorkerDefinition
from headrace.models import JobRecord
from headrace_gateway import Caller, ToolAnnotations, ToolDefinition, built_in_tools
from headrace_gateway.tools.formats import ToolFormat, formatted
from headrace_gateway.tools.kinds import are_contested, schedulable, that_count, with_kinds, without_needless_nulls
from headrace_gateway.tools.registry import parse_arguments
from headrace_gateway.tools.schema import arguments_schema
from headrace_gateway.tools.strict import NotStrict, strict_schema
from support.jobs import DIGEST_WORKER, HIDDEN_WORKER, MEMORY_WORKER

COMBINATORS = {"anyOf", "oneOf", "allOf", "not", "if", "then", "else", "enum", "$ref"}
# What OpenAI's guide to structured outputs lists as supported, beside descriptions and definitions.
STRICT_KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs"),
    "description",
}


class Attachment(ClosedModel):
    """What goes along."""

    name: str
    size: int = 0


class Reminder(ClosedModel):
    """What to remind of."""

    text: str
    attachments: list[Attachment] = Field(default_factory=list)
    again: Attachment | None = None


def worker(name: str, kind: str | None, schema: dict[str, Any]) -> WorkerDefinition:
    return WorkerDefinition(name=name, description=f"Does {name}.", category="x", kind=kind, arguments_schema=schema)


REMINDER = worker("remind", "reminder", arguments_schema(Reminder))
FREE = worker("free", "free", {"type": "object", "additionalProperties": True})
TREE = worker(
    "tree",
    "tree",
    {
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/Node"}},
        "required": ["root"],
        "$defs": {"Node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}},
    },
)
WORKERS = {each.name: each for each in (MEMORY_WORKER, DIGEST_WORKER, HIDDEN_WORKER, REMINDER, FREE, TREE)}
SCHEDULER, MANAGER = list(built_in_tools())


def arguments_of(definition: dict[str, Any]) -> dict[str, Any]:
    """The schema of the arguments, wherever a form has it."""
    holder = definition.get("function", definition)
    schema = holder.get("parameters") or holder.get("input_schema") or holder["inputSchema"]
    assert isinstance(schema, dict)
    return schema


def schemas_in(part: Any, *, named: bool = False) -> Iterator[dict[str, Any]]:
    """Every schema within a schema."""
    if isinstance(part, list):
        for each in part:
            yield from schemas_in(each)
    elif isinstance(part, dict):
        if not named:
            yield part
        for name, value in part.items():
            if name in ("properties", "$defs"):
                for each in value.values():
                    yield from schemas_in(each)
            elif name in ("items", "anyOf"):
                yield from schemas_in(value)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("form", list(ToolFormat))
@pytest.mark.parametrize("tool", [SCHEDULER, MANAGER], ids=lambda tool: tool.name)
def test_the_root_is_a_plain_object_in_every_form(tool: ToolDefinition[Any], form: ToolFormat, strict: bool) -> None:
    schema = arguments_of(formatted(tool, WORKERS, form, strict=strict))
    assert schema["type"] == "object"
    assert not COMBINATORS & schema.keys()
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("form", [ToolFormat.OPENAI, ToolFormat.OPENAI_RESPONSES, ToolFormat.ANTHROPIC])
@pytest.mark.parametrize("tool", [SCHEDULER, MANAGER], ids=lambda tool: tool.name)
def test_a_strict_definition_keeps_the_written_rules(tool: ToolDefinition[Any], form: ToolFormat) -> None:
    definition = formatted(tool, WORKERS, form, strict=True)
    assert definition.get("function", definition)["strict"] is True
    schema = arguments_of(definition)
    for part in schemas_in(schema):
        assert part.keys() <= STRICT_KEYWORDS
        if part.get("type") == "object" or "properties" in part:
            assert part["additionalProperties"] is False
            assert sorted(part["required"]) == sorted(part["properties"])
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def test_the_forms_are_those_that_providers_take() -> None:
    def shape(form: ToolFormat, strict: bool = False) -> dict[str, Any]:
        return {name: type(value).__name__ for name, value in formatted(SCHEDULER, WORKERS, form, strict=strict).items()}

    assert shape(ToolFormat.OPENAI) == {"type": "str", "function": "dict"}
    text = {"name": "str", "description": "str"}
    assert shape(ToolFormat.OPENAI_RESPONSES) == {"type": "str", **text, "parameters": "dict", "strict": "bool"}
    assert shape(ToolFormat.ANTHROPIC) == {**text, "input_schema": "dict"}
    assert shape(ToolFormat.ANTHROPIC, strict=True) == {**text, "input_schema": "dict", "strict": "bool"}
    assert shape(ToolFormat.MCP) == {**text, "inputSchema": "dict", "outputSchema": "dict", "annotations": "dict"}


def test_the_kinds_are_those_that_there_are() -> None:
    schema = SCHEDULER.shown_schema(WORKERS)
    assert schema["properties"]["kind"]["enum"] == ["digest", "free", "memory_compaction", "reminder", "tree"]
    assert SCHEDULER.shown_schema({})["properties"]["kind"]["enum"] == ["memory_compaction"]
    assert "enum" not in SCHEDULER.input_schema["properties"]["kind"]


CALLS: list[tuple[dict[str, Any], bool]] = [
    ({"kind": "digest", "args": {"to": ["x"]}}, True),
    ({"kind": "reminder", "args": {"text": "a", "attachments": [{"name": "n"}]}}, True),
    ({"kind": "tree", "args": {"root": {"children": [{"children": []}]}}}, True),
    ({"kind": "memory_compaction"}, True),
    ({"kind": "janitor"}, False),
    ({"kind": "digest", "args": 5}, False),
]


@pytest.mark.parametrize(("arguments", "fits"), CALLS)
def test_what_agents_are_shown_takes_what_the_kinds_take(arguments: dict[str, Any], fits: bool) -> None:
    assert Draft202012Validator(SCHEDULER.shown_schema(WORKERS)).is_valid(arguments) is fits


STRICT_CALLS: list[tuple[str, dict[str, Any] | None, bool]] = [
    ("reminder", {"text": "a", "attachments": [{"name": "n", "size": None}], "again": None}, True),
    ("reminder", {"text": "a", "attachments": [{"name": "n"}], "again": None}, False),
    ("digest", {"to": ["x"], "when": None}, True),
    ("free", {"anything": 1}, False),
    ("memory_compaction", None, True),
]


@pytest.mark.parametrize(("kind", "args", "fits"), STRICT_CALLS)
def test_a_strict_definition_takes_whole_arguments_alone(kind: str, args: dict[str, Any] | None, fits: bool) -> None:
    """What is named can be said; names of the caller's choosing, as those of `free`, cannot."""
    schema = arguments_of(formatted(SCHEDULER, WORKERS, ToolFormat.OPENAI, strict=True))
    given = dict.fromkeys(schema["required"]) | {"kind": kind, "args": args}
    assert Draft202012Validator(schema).is_valid(given) is fits


def test_what_is_left_out_of_a_strict_call_does_not_reach_a_worker_that_takes_no_null() -> None:
    args = {"text": "a", "attachments": None, "again": None, "more": None}
    assert without_needless_nulls(args, REMINDER.arguments_schema) == {"text": "a", "again": None, "more": None}
    assert without_needless_nulls({"text": None}, REMINDER.arguments_schema) == {"text": None}, "it is missing, and refused"
    assert without_needless_nulls(args, FREE.arguments_schema) == args


def test_a_tool_that_cannot_be_strict_says_so() -> None:
    class Anything(ClosedModel):
        """Whatever."""

        values: dict[str, Any]

    async def handle(arguments: Anything, caller: Caller) -> WireModel:
        return arguments

    tool = ToolDefinition(
        name="anything",
        description="x",
        arguments=Anything,
        answers=(Anything,),
        annotations=ToolAnnotations(read_only=True),
        handler=handle,
    )
    with pytest.raises(NotStrict):
        formatted(tool, {}, ToolFormat.OPENAI, strict=True)
    assert formatted(tool, {}, ToolFormat.OPENAI)["function"]["strict"] is False


def test_two_workers_of_one_kind_are_offered_once() -> None:
    twice = {
        "b": worker("b", "same", {}),
        "a": worker("a", "same", {}),
        "c": worker("c", "other", {}),
        "d": worker("d", None, {}),
    }
    assert {kind: definition.name for kind, definition in schedulable(twice).items()} == {"same": "a", "other": "c"}
    # As `scheduler` takes the one that somebody runs, that one is shown.
    assert set(that_count(twice, {"b"})) == {"b", "c", "d"}
    assert schedulable(that_count(twice, {"b"}))["same"].name == "b"
    assert that_count(twice, {"a", "b"}) == that_count(twice, set()) == twice
    assert are_contested(twice) and not are_contested(that_count(twice, {"b"}))
    twice = {name: twice[name] for name in ("a", "b")}
    assert with_kinds(SCHEDULER.input_schema, schedulable(twice))["properties"]["kind"]["enum"] == ["memory_compaction", "same"]


def nested(schemas: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from("abc")
    objects = st.dictionaries(names, schemas, max_size=3).flatmap(
        lambda properties: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(properties),
                "required": st.lists(st.sampled_from(sorted(properties)), unique=True) if properties else st.just([]),
                "additionalProperties": st.just(False),
            }
        )
    )
    arrays = schemas.map(lambda items: {"type": "array", "items": items})
    return objects | arrays | st.lists(schemas, min_size=1, max_size=3).map(lambda each: {"anyOf": each})


LEAVES = st.sampled_from(
    [{"type": "string", "maxLength": 5}, {"type": "integer", "default": 3}, {"type": "null"}, {"enum": ["x", 1]}, {"const": None}]
)


@given(st.recursive(LEAVES, nested, max_leaves=8))
def test_every_strict_schema_keeps_the_rules(inner: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"inner": inner}, "additionalProperties": False}
    strict = strict_schema(schema)
    Draft202012Validator.check_schema(strict)
    for part in schemas_in(strict):
        assert part.keys() <= STRICT_KEYWORDS
        if "properties" in part:
            assert (part["additionalProperties"], list(part["required"])) == (False, list(part["properties"]))
    assert Draft202012Validator(strict).is_valid({"inner": None}), "what may be left out may be null"


def test_a_model_of_the_wire_is_no_strict_schema() -> None:
    with pytest.raises(NotStrict):
        strict_schema(arguments_schema(JobRecord))


class Line(ClosedModel):
    """A line of an order."""

    what: str
    count: int = 1
    note: str | None = None


class Order(ClosedModel):
    """An order."""

    lines: list[Line]
    urgent: bool = False
    first: Line | None = None


def nulled(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """What a model gives by a strict schema that would leave out whatever it may."""
    if "$ref" in schema:
        return nulled(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    kinds = [each.get("type") for each in schema.get("anyOf", ())] or schema["type"]
    if "null" in kinds:
        return None
    if kinds == "object":
        return {name: nulled(part, root) for name, part in schema["properties"].items()}
    return [nulled(schema["items"], root)] if kinds == "array" else "x"


def test_what_a_model_gives_by_a_strict_definition_of_a_tool_of_ones_own_is_taken() -> None:
    async def handle(arguments: Order, caller: Caller) -> Line:
        return arguments.lines[0]

    tool = ToolDefinition(
        name="order",
        description="Orders.",
        arguments=Order,
        answers=(Line,),
        annotations=ToolAnnotations(read_only=False),
        handler=handle,
    )
    strict = formatted(tool, {}, ToolFormat.OPENAI, strict=True)["function"]["parameters"]
    args = nulled(strict, strict)
    assert args == {"lines": [{"what": "x", "count": None, "note": None}], "urgent": None, "first": None}
    assert parse_arguments(tool, args) == Order(lines=[Line(what="x")])
    assert parse_arguments(tool, {**args, "first": {"what": "y", "count": None}}) == Order(
        lines=[Line(what="x")], first=Line(what="y")
    )
    with pytest.raises(ArgumentsInvalid, match=r"lines\.0\.what"):
        parse_arguments(tool, {"lines": [{"what": None, "count": None}]})


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kinds", [("reports/weekly", "reports"), ("a~1b", "a"), ("a", "a.b"), ("100 %", "#")])
def test_a_kind_may_be_any_text_and_its_definitions_are_its_own(kinds: tuple[str, str], strict: bool) -> None:
    def worker(name: str, kind: str, of: str, takes: str) -> WorkerDefinition:
        schema = {
            "type": "object",
            "properties": {"x": {"$ref": f"#/$defs/{of}"}},
            "required": ["x"],
            "additionalProperties": False,
            "$defs": {of: {"type": takes}},
        }
        return WorkerDefinition(name=name, description=name, category="test", kind=kind, arguments_schema=schema)

    workers = {"one": worker("one", kinds[0], "b.C", "string"), "two": worker("two", kinds[1], "C", "integer")}
    [scheduler] = [tool for tool in built_in_tools() if tool.name == "scheduler"]
    schema = formatted(scheduler, workers, ToolFormat.OPENAI, strict=strict)["function"]["parameters"]
    nothing = dict.fromkeys(schema["properties"]) if strict else {}
    for kind, x in zip(kinds, ("text", 1), strict=True):
        Draft202012Validator(schema).validate({**nothing, "kind": kind, "args": {"x": x}})
    assert not Draft202012Validator(schema).is_valid({**nothing, "kind": kinds[0], "args": {"x": None}})
