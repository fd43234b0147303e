"""JSON on the wire, by orjson, and what is said when bytes are not what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from json import JSONDecoder
from typing import Any, NotRequired, Required, TypeVar, get_args

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from headrace.core.texts import cut_in_the_middle, unknown_name
from headrace.core.timestamps import parse_timestamp
from headrace.errors import RecordUndecodable
from headrace.fields import LONGEST_IDENTITY, LONGEST_JOB_ID
from headrace.models import SCHEMA_VERSION, WireModel

ModelT = TypeVar("ModelT", bound=BaseModel)


def encode(value: WireModel) -> bytes:
    """A record's value."""
    return orjson.dumps(value.to_wire())


def encode_any(value: Any) -> bytes:
    """The JSON of whatever a user's own code gives: models, sets and names that are no text, too.

    Raises:
        Exception: it is no JSON. It may be of a class of the user's own, which can raise anything.
    """
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, set | frozenset):
        # In an order that is the same in every process, so that one result is like another.
        return sorted(value, key=encode_any)
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def encode_foreign(value: Any, *, indent: bool = False) -> bytes:
    """The JSON of what others wrote, as it was read: however deep it is nested.

    orjson reads 1,024 levels, and writes 254. Whoever writes into a topic may use them all, and must not thereby end what is done
    with the records of everybody else.

    Args:
        value: as `orjson.loads` gives it, or made of such.
        indent: whether it is to be read by people; it is not indented where orjson cannot write it.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    except orjson.JSONEncodeError:
        return _encode_nested(value)


def is_readable(encoded: bytes) -> bool:
    """Whether JSON that `encode_foreign` has made is not nested too deep to be read again."""
    if encoded.count(b"{") + encoded.count(b"[") <= _LEVELS_READ:
        return True
    try:
        orjson.loads(encoded)
    except orjson.JSONDecodeError:
        return False
    return True


_LEVELS_READ = 1024


class _Written(bytes):
    """A part of the JSON that is made."""


def _encode_nested(value: Any) -> bytes:
    """Without a call inside of a call. Raises orjson.JSONEncodeError for what is no JSON."""
    parts: list[bytes] = []
    pending: list[Any] = [value]
    while pending:
        each = pending.pop()
        if type(each) is _Written:
            parts.append(each)
        elif isinstance(each, Mapping):
            inside = [part for name, inner in each.items() for part in (_Written(b"," + orjson.dumps(name) + b":"), inner)]
            if inside:
                inside[0] = _Written(inside[0][1:])
            parts.append(b"{")
            pending += [_Written(b"}"), *reversed(inside)]
        elif isinstance(each, list | tuple):
            inside = [part for inner in each for part in (_Written(b","), inner)][1:]
            parts.append(b"[")
            pending += [_Written(b"]"), *reversed(inside)]
        else:
            parts.append(orjson.dumps(each))
    return b"".join(parts)


def decode_object(value: bytes | None) -> dict[str, Any]:
    """The JSON object in a record's value.

    Raises:
        RecordUndecodable: it is a tombstone, no JSON, or no object.
    """
    if value is None:
        raise RecordUndecodable("the record has no value")
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordUndecodable(f"the record is no JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise RecordUndecodable("the record is no JSON object")
    return decoded


def decode(model: type[ModelT], value: bytes | None) -> ModelT:
    """The record that the bytes hold.

    Raises:
        RecordUndecodable: they hold no such record; the message names each field and what is wrong with it.
    """
    return validate(model, decode_object(value))


def validate(model: type[ModelT], raw: dict[str, Any]) -> ModelT:
    """The record that a JSON object is.

    Raises:
        RecordUndecodable: it is none; the message names each field and what is wrong with it.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise RecordUndecodable(f"the record is no {model.__name__}: {describe_problems(error, model)}") from None


def plain_validator(model: type[BaseModel]) -> Callable[[dict[str, Any]], Any]:
    """A function that raises ValidationError where a JSON object is not what the model says, and makes no object of the model.

    It is made from the model's own fields, and three times as fast as `model_validate`: an engine asks it for every job.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation = field.rebuild_annotation()
        fields[field.alias or name] = Required[annotation] if field.is_required() else NotRequired[annotation]
    # Unknown names pass, as they do in the model.
    described = TypedDict(f"{model.__name__}Object", fields)  # type: ignore[misc]  # the name is of the model
    return TypeAdapter(described).validator.validate_python


# How many fields every job record has that headrace writes; the function below looks each of them up.
_COMMON_FIELDS = 7
# Fields of a job record that are rare enough to leave them to the model.
_RARE_FIELDS = frozenset({"scheduleId", "parentId", "retryOf", "retry", "attemptTimeout"})
_CONTEXT_FIELDS = frozenset({"userId", "conversationId", "source"})
# A context takes its fields under their Python names, too.
_CONTEXT_SPELT_OTHERWISE = frozenset({"user_id", "conversation_id"})


def is_common_job_record(raw: dict[str, Any], worker_name: str) -> bool:
    """Whether a JSON object is a valid job record for this worker, of the kind that nearly all are.

    True says that the validator of `JobRecord` accepts it, in a third of the time that that takes; False says nothing.

    Args:
        worker_name: a valid name.
    """
    try:
        job_id, created_at, args, ctx = raw["id"], raw["createdAt"], raw["args"], raw["ctx"]
        if not (
            raw["schemaVersion"] == SCHEMA_VERSION
            and type(job_id) is str
            and 0 < len(job_id) <= LONGEST_JOB_ID
            and "/" not in job_id
            and raw["workerName"] == worker_name
            and type(args) is dict
            and type(ctx) is dict
            and _is_identity(raw["tenant"])
        ):
            return False
        parse_timestamp(created_at)
    except (KeyError, TypeError, ValueError):
        return False
    for name, value in ctx.items():
        if name in _CONTEXT_FIELDS and value is not None and not _is_identity(value):
            return False
    return _CONTEXT_SPELT_OTHERWISE.isdisjoint(ctx) and (len(raw) == _COMMON_FIELDS or _are_optional_fields_common(raw))


def _are_optional_fields_common(raw: dict[str, Any]) -> bool:
    for name in ("orderingKey", "idempotencyKey"):
        value = raw.get(name)
        if value is not None and not _is_identity(value):
            return False
    return _RARE_FIELDS.isdisjoint(raw)


def _is_identity(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= LONGEST_IDENTITY


def describe_problems(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first fields that are wrong, what is wrong with each, and how many more there are: in one line, without the values that
    were given. However many there are, it takes no longer to say so than it took to find them.

    Args:
        model: what was validated; with it, the names are told that there are where one is given that there is not.
    """
    told = [f"{_place(problem['loc'])}: {_described(problem, model)}" for problem in _first_problems(error)]
    if more := error.error_count() - len(told):
        told.append(f"and {more:,} more")
    return "; ".join(told)


_MOST_PROBLEMS = 5
_LONGEST_PLACE = 200


def _first_problems(error: ValidationError) -> list[ErrorDetails]:
    if error.error_count() > _MOST_PROBLEMS:
        # An object for each of 100,000 problems takes as long as hundreds of calls, and their JSON does not.
        try:
            problems = error.json(include_url=False, include_context=False, include_input=False)
            return list(islice(_in_json(problems), _MOST_PROBLEMS))
        except ValueError:  # of names that are no text
            pass
    return error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_PROBLEMS]


def _in_json(problems: str) -> Iterator[ErrorDetails]:
    """The objects of a list that is written without spaces, one after another."""
    decoder, position = JSONDecoder(), 1
    while problems[position - 1] != "]":
        problem, end = decoder.raw_decode(problems, position)
        yield problem
        position = end + 1


def _place(steps: Sequence[int | str]) -> str:
    return cut_in_the_middle(".".join(str(step) for step in steps), _LONGEST_PLACE) or "value"


def _described(problem: ErrorDetails, model: type[BaseModel] | None) -> str:
    if problem["type"] != "extra_forbidden":
        return problem["msg"]
    *place, name = problem["loc"]
    if model is None:
        return "there is no such name"
    return unknown_name(str(name), _names_at(model, place))


def _names_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The names of the fields that a model has at a place, as they are on the wire."""
    models = [model]
    for step in place:
        fields = ((name, field) for each in models for name, field in each.model_fields.items())
        # What is no field's name is a place in a list, or says which of several models was meant.
        models = [
            inner for name, field in fields if step in (name, field.alias) for inner in _models_in(field.annotation)
        ] or models
    return list(dict.fromkeys(field.alias or name for each in models for name, field in each.model_fields.items()))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
