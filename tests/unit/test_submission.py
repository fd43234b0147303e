"""What is made of a call before anything is written: which arguments fit, and which key orders a job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field

from headrace import AbstractWorker, ArgumentsInvalid, ConfigurationError, JobContext, WorkerDefinition
from headrace.arguments import PublishedSchemas
from headrace.models import CallContext
from headrace.submission import check_names, ordering_key_of, plain_arguments, plain_context, shared_fields


class Folder(BaseModel):
    name: str
    depth: int = 1
    inside: Folder | None = None
    owner: str | None = Field(None, validation_alias=AliasChoices("owner", "user"))


class Tidy(AbstractWorker[Folder]):
    name = "tidy"
    order_by = ("owner", "depth")

    async def run(self, args: Folder, ctx: JobContext) -> None: ...


class Anything(AbstractWorker[dict[str, Any]]):
    name = "anything"
    order_by = ("not", "named", "anywhere")

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None: ...


def test_order_by_names_arguments_that_there_are() -> None:
    class Misspelt(Tidy):
        order_by = ("owner", "dept")

    class Letters(Tidy):
        order_by = "depth"  # type: ignore[assignment]  # as one writes who forgets the comma

    with pytest.raises(ConfigurationError, match=r"order_by names 'dept', and the arguments are 'name', 'depth'"):
        Misspelt().definition()
    with pytest.raises(ConfigurationError, match="order_by is 'depth': give it names of arguments in a tuple"):
        Letters().definition()
    assert Tidy().definition().order_by == ["owner", "depth"], "also of a model that contains itself"
    assert Anything().definition().order_by == ["not", "named", "anywhere"], "nobody knows its arguments"


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ({"name": "a", "owner": "ann"}, "ann/1"),
        ({"name": "a", "user": "ann", "depth": 2}, "ann/2"),
        ({"name": "a"}, None),
        ({"name": "a", "owner": "ann", "depth": None}, None),
    ],
)
def test_a_key_has_the_published_defaults(args: dict[str, Any], key: str | None) -> None:
    definition = Tidy().definition()
    assert ordering_key_of(definition, args, Folder) == key
    if "user" not in args:
        assert ordering_key_of(definition, args) == key


@pytest.mark.parametrize("schema", [{}, {"$ref": "#/$defs/gone"}, {"properties": 5}, {"properties": {"owner": True}}])
def test_a_schema_of_another_making_gives_no_defaults(schema: dict[str, Any]) -> None:
    definition = WorkerDefinition(name="w", description="", category="c", arguments_schema=schema, order_by=["owner"])
    assert ordering_key_of(definition, {}) is None
    assert ordering_key_of(definition, {"owner": "ann"}) == "ann"


def test_a_key_is_made_of_values_as_json_has_them() -> None:
    definition = WorkerDefinition(name="w", description="", category="c", order_by=["at"])
    moment = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
    assert ordering_key_of(definition, {"at": moment}) == ordering_key_of(definition, {"at": "2026-01-31T09:15:00+00:00"})
    assert ordering_key_of(definition, {"at": {"b": 1, "a": 2}}) == ordering_key_of(definition, {"at": {"a": 2, "b": 1}})
    with pytest.raises(ArgumentsInvalid, match="JSON"):
        ordering_key_of(definition, {"at": object()})


def test_a_model_of_another_worker_is_checked() -> None:
    class Other(BaseModel):
        depth: str

    with pytest.raises(ArgumentsInvalid, match="name: Field required"):
        plain_arguments(Other(depth="x"), Tidy())
    assert plain_arguments(Other(depth="x"), None) == {"depth": "x"}


async def test_arguments_are_checked_against_what_was_published_as_the_worker_will_read_them() -> None:
    schemas, definition = PublishedSchemas(), Tidy().definition()
    await schemas.check(definition, [{"name": "a"}, {"name": "b", "inside": {"name": "c"}}])
    with pytest.raises(ArgumentsInvalid, match=r"args\[1\].inside.name: 5 is not of type 'string'"):
        await schemas.check(definition, [{"name": "a"}, {"name": "b", "inside": {"name": 5}}])
    # A time is text in JSON, and a tuple is a list.
    schema = {"properties": {"at": {"type": "string"}, "to": {"type": "array"}}}
    published = WorkerDefinition(name="w", description="", category="c", arguments_schema=schema)
    await schemas.check(published, [{"at": datetime.now(UTC), "to": ("ann", "bob")}])
    with pytest.raises(ArgumentsInvalid, match="must be JSON"):
        await schemas.check(published, [{"at": object()}])


async def test_a_schema_is_made_ready_once() -> None:
    schemas, definition = PublishedSchemas(), Tidy().definition()
    await schemas.check(definition, [{"name": "a"}])
    first = schemas._validator_of(definition)
    assert first is not None and schemas._validator_of(Tidy().definition()) is first


async def test_many_mistakes_are_told_in_short() -> None:
    many = [{"name": f"{number:050}", "depth": "x"} for number in range(9_000)]
    with pytest.raises(ArgumentsInvalid) as raised:
        await PublishedSchemas().check(Tidy().definition(), many)
    assert str(raised.value).count("is not of type 'integer'") == 5


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("userid", "userId"),
        ("UserId", "userId"),
        ("user-id", "userId"),
        ("conversation_ID", "conversationId"),
        ("Source", "source"),
    ],
)
def test_a_misspelt_field_of_the_context_is_refused(name: str, meant: str) -> None:
    """What a caller sends besides is kept as it is; of a job whose user is spelt otherwise nobody would know whose it is."""
    for ctx in ({name: "ada"}, {name: "ada", meant: "ada"}, CallContext.model_validate({name: "ada"})):
        with pytest.raises(ArgumentsInvalid, match=rf"has '{name}': did you mean {meant}\?"):
            plain_context(ctx)


def test_what_a_context_may_have() -> None:
    given = {"userId": "ada", "conversationId": "c", "source": "web", "users": 1, "trace_id": "t", "": 0}
    assert plain_context(given) == given
    assert plain_context({"user_id": "ada", "conversation_id": "c"}) == {"userId": "ada", "conversationId": "c"}
    assert plain_context(CallContext(user_id="ada")) == {"userId": "ada"}
    assert plain_context(None) == {}


@pytest.mark.parametrize("character", ["\x00", "\n", "\x7f", "\x85", "\ud800"])
def test_names_of_a_job_have_no_control_characters(character: str) -> None:
    wrong = f"a{character}"
    with pytest.raises(ArgumentsInvalid, match="orderingKey is wrong: it has control characters"):
        shared_fields("default", None, wrong, None, None)
    with pytest.raises(ArgumentsInvalid, match="tenant is wrong"):
        shared_fields(wrong, None, None, None, None)
    for name in ("userId", "conversationId", "source"):
        with pytest.raises(ArgumentsInvalid, match=rf"{name}\b.*: "):
            shared_fields("default", {name: wrong}, None, None, None)
    with pytest.raises(ArgumentsInvalid, match="idempotencyKey is wrong"):
        check_names({"idempotencyKey": wrong})
    assert shared_fields("default", {"note": wrong}, "a b", None, None)["ctx"] == {"note": wrong}, "a field of the caller's own"
