"""From a call to the record that accepts a job: what is checked before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import AliasChoices, BaseModel, ValidationError

from headrace.abstract_worker import AbstractWorker, properties_of
from headrace.codec import describe_problems
from headrace.core import snapshots
from headrace.core.identifiers import fresh_id
from headrace.core.partitions import key_partition
from headrace.core.retry import RetryPolicy
from headrace.core.timestamps import format_timestamp
from headrace.errors import ArgumentsInvalid, PayloadTooLarge
from headrace.fields import LONGEST_IDENTITY, check_plain, is_plain
from headrace.models import PAYLOAD_LIMIT_BYTES, SCHEMA_VERSION, CallContext, Job, RetryRules, Source, WorkerDefinition
from headrace.ports import NewRecord, TopicPartition

Arguments = Mapping[str, Any] | BaseModel
WorkerReference = str | AbstractWorker[Any] | type[AbstractWorker[Any]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job on its way to the log."""

    job: Job
    target: TopicPartition
    record: NewRecord

    def accepted(self, offset: int) -> Job:
        """The job, now that its record stands at this offset."""
        self.job.source = Source(topic=self.target.topic, partition=self.target.partition, offset=offset)
        return self.job


def prepare(
    definition: WorkerDefinition,
    args: dict[str, Any],
    shared: dict[str, Any],
    key: str | None,
    topic: tuple[str, int],
    *,
    job_id: str | None = None,
    made: tuple[int, bytes],
) -> Prepared:
    """Makes the record of one job.

    Args:
        shared: the fields that all jobs of a call have in common.
        key: the ordering key, if the job has one.
        topic: name and number of partitions of the worker's queue.
        job_id: a fresh one when left out.
        made: when, in milliseconds since the Unix epoch; and 10 random bytes, for a fresh id.

    Raises:
        ArgumentsInvalid: something is no JSON, or not what the wire contract allows.
        PayloadTooLarge: arguments and context are over the limit.
    """
    now, randomness = made
    job_id = job_id or fresh_id(now, randomness)
    raw: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "id": job_id,
        "workerName": definition.name,
        "createdAt": format_timestamp(now),
        "args": args,
        **shared,
    }
    if key is not None:
        raw["orderingKey"] = key
    try:
        value = orjson.dumps(raw)
        job = Job.model_validate(snapshots.queued(raw, None))
    except TypeError as error:
        raise ArgumentsInvalid(f"Arguments and context must be JSON: {error}.") from None
    except ValidationError as error:
        raise ArgumentsInvalid(f"The job is wrong: {describe_problems(error)}.") from None
    if len(value) > PAYLOAD_LIMIT_BYTES and len(orjson.dumps([args, shared["ctx"]])) > PAYLOAD_LIMIT_BYTES:
        raise PayloadTooLarge(
            f"Arguments and context take more than {PAYLOAD_LIMIT_BYTES} bytes as JSON: store the bulk elsewhere, and pass where."
        )
    name, count = topic
    partition_key = key if key is not None else job_id
    return Prepared(job, TopicPartition(name, key_partition(partition_key, count)), NewRecord(partition_key.encode(), value))


def ordering_key_of(definition: WorkerDefinition, args: Mapping[str, Any], model: type[BaseModel] | None = None) -> str | None:
    """The values of the arguments that `order_by` names, together; None if the worker names none, or the job lacks one.

    A value that is not given is the default that the worker published, so that it makes no difference whether a job is enqueued
    by the worker's class or by its name.

    Args:
        args: as they go over the wire.
        model: the worker's, which knows other spellings of names; None where the worker is known by its name alone.
    """
    if not definition.order_by:
        return None
    published = properties_of(definition.arguments_schema)
    parts = []
    for name in definition.order_by:
        described = published.get(name)
        default = described.get("default") if isinstance(described, dict) else None
        value = next((args[spelling] for spelling in _spellings(name, model) if spelling in args), default)
        if value is None:
            return None
        parts.append(quote(_text_of(value), safe=""))
    key = "/".join(parts)
    # As long as they may be, user and conversation together are over what a key may be: equal ones must still meet.
    return key if len(key) <= LONGEST_IDENTITY else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def _spellings(name: str, model: type[BaseModel] | None) -> Iterator[str]:
    """The names under which a model takes the argument that is published as `name`."""
    yield name
    for field_name, field in model.model_fields.items() if model is not None else ():
        alias = field.validation_alias
        choices = [each for each in (alias.choices if isinstance(alias, AliasChoices) else [alias]) if isinstance(each, str)]
        if (choices or [field_name])[0] == name:
            yield from (*choices, field_name)


def _text_of(value: Any) -> str:
    """A value as it is in JSON, as text."""
    if type(value) in (str, int, float, bool):
        return str(value)
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise ArgumentsInvalid(f"Arguments must be JSON: {error}.") from None
    decoded = orjson.loads(encoded)
    return decoded if isinstance(decoded, str) else encoded.decode()


def plain_arguments(args: Arguments, worker: AbstractWorker[Any] | None) -> dict[str, Any]:
    """The arguments as they go over the wire.

    Args:
        worker: checks them by its model, unless they are that model already; None where it is known by its name alone.

    Raises:
        ArgumentsInvalid: they are no JSON object, or do not fit the worker's model.
    """
    if isinstance(args, BaseModel):
        plain = args.model_dump(mode="json", by_alias=True)
        checked = worker is not None and worker.arguments_model is not None and isinstance(args, worker.arguments_model)
    elif isinstance(args, Mapping):
        plain, checked = dict(args), False
    else:
        raise ArgumentsInvalid(f"Arguments are a JSON object or a pydantic model, not {type(args).__name__}.")
    if worker is not None and not checked:
        worker.parse_arguments(plain)
    return plain


def plain_context(ctx: CallContext | Mapping[str, Any] | None) -> dict[str, Any]:
    """The context as it goes over the wire.

    Raises:
        ArgumentsInvalid: it is none, or a field of the caller's own is named like one of headrace's: the job would be nobody's.
    """
    try:
        context = ctx if isinstance(ctx, CallContext) else CallContext.model_validate(ctx or {})
    except ValidationError as error:
        raise ArgumentsInvalid(f"The context is wrong: {describe_problems(error)}.") from None
    for name in context.model_extra or ():
        if (meant := _CONTEXT_NAMES.get(_bare(name))) is not None:
            raise ArgumentsInvalid(f"The context has {name!r}: did you mean {meant}? A field of your own needs another name.")
    return context.to_wire()


def _bare(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_CONTEXT_NAMES = {_bare(name): field.alias or name for name, field in CallContext.model_fields.items()}


def check_seconds(timeout: float) -> None:
    """Raises ArgumentsInvalid for a time within which nothing can be done."""
    if not timeout > 0:
        raise ArgumentsInvalid(f"The timeout is {timeout!r}: give a number of seconds above 0. Nothing was written.")


def retry_fields(retry: RetryPolicy | None, attempt_timeout: float | None) -> dict[str, Any]:
    """The fields by which a job has a retry policy and a timeout of its own."""
    fields: dict[str, Any] = {} if retry is None else {"retry": RetryRules.of(retry).to_wire()}
    return fields if attempt_timeout is None else {**fields, "attemptTimeout": attempt_timeout}


def shared_fields(
    tenant: str,
    ctx: CallContext | Mapping[str, Any] | None,
    ordering_key: str | None,
    retry: RetryPolicy | None,
    attempt_timeout: float | None,
) -> dict[str, Any]:
    """The fields that all jobs of a call have in common.

    Raises:
        ArgumentsInvalid: the context is none, the key is empty, or a name has control characters.
    """
    if ordering_key == "":
        raise ArgumentsInvalid("The ordering key is empty: name one, or leave it out, and the worker's order_by decides.")
    context = plain_context(ctx)
    check_names({"tenant": tenant, "orderingKey": ordering_key, **{name: context.get(name) for name in _CONTEXT_NAMES.values()}})
    return {"tenant": tenant, "ctx": context, **retry_fields(retry, attempt_timeout)}


def check_names(given: Mapping[str, str | None]) -> None:
    """Checks what callers give as names, by the names of the fields. Raises ArgumentsInvalid for one with control characters."""
    if is_plain("".join([value for value in given.values() if value])):
        return  # as a rule, and by one look
    for name, value in given.items():
        try:
            check_plain(value or "")
        except ValueError as error:
            raise ArgumentsInvalid(f"{name} is wrong: {error}. Nothing was written.") from None
