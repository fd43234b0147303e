"""From a call to the record that accepts a job: what is checked before anything is written."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ValidationError

from headrace.codec import describe_problems
from headrace.core import snapshots
from headrace.core.identifiers import fresh_id
from headrace.core.partitions import key_partition
from headrace.core.timestamps import format_timestamp
from headrace.errors import ArgumentsInvalid, PayloadTooLarge
from headrace.models import PAYLOAD_LIMIT_BYTES, SCHEMA_VERSION, CallContext, Job, Source, WorkerDefinition
from headrace.ports import NewRecord, TopicPartition
from headrace.worker import AbstractWorker

Arguments = Mapping[str, Any] | BaseModel
WorkerReference = str | AbstractWorker[Any] | type[AbstractWorker[Any]]

_LONGEST_KEY = 200


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
) -> Prepared:
    """Makes the record of one job.

    Args:
        shared: the fields that all jobs of a call have in common.
        key: the ordering key, if the job has one.
        topic: name and number of partitions of the worker's queue.

    Raises:
        ArgumentsInvalid: something is no JSON, or not what the wire contract allows.
        PayloadTooLarge: arguments and context are over the limit.
    """
    now = time.time_ns() // 1_000_000
    job_id = fresh_id(now, os.urandom(10))
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


def ordering_key_of(order_by: Sequence[str], args: Mapping[str, Any]) -> str | None:
    """The values of the named arguments, together; None if the worker names none, or the job lacks one."""
    if not order_by or any(args.get(name) is None for name in order_by):
        return None
    key = "/".join(quote(str(args[name]), safe="") for name in order_by)
    # As long as they may be, user and conversation together are over what a key may be: equal ones must still meet.
    return key if len(key) <= _LONGEST_KEY else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def plain_arguments(args: Arguments, worker: WorkerReference) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The arguments as they go over the wire, and under the names that `order_by` uses, where the worker's model knows them."""
    if isinstance(args, BaseModel):
        plain = args.model_dump(mode="json", by_alias=True)
        return plain, plain
    if not isinstance(args, Mapping):
        raise ArgumentsInvalid(f"Arguments are a JSON object or a pydantic model, not {type(args).__name__}.")
    plain = dict(args)
    if isinstance(worker, str):
        return plain, plain
    parsed = (worker() if isinstance(worker, type) else worker).parse_arguments(plain)
    return plain, parsed.model_dump(mode="json", by_alias=True) if isinstance(parsed, BaseModel) else plain


def plain_context(ctx: CallContext | Mapping[str, Any] | None) -> dict[str, Any]:
    """The context as it goes over the wire. Raises ArgumentsInvalid when it is none."""
    try:
        context = ctx if isinstance(ctx, CallContext) else CallContext.model_validate(ctx or {})
    except ValidationError as error:
        raise ArgumentsInvalid(f"The context is wrong: {describe_problems(error)}.") from None
    return context.to_wire()
