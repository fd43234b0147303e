"""Doing a job anew, as another job: its id follows from the record that the first one was, so that it is made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from headrace.codec import decode_object
from headrace.core.identifiers import derived_id
from headrace.core.status import JobStatus
from headrace.errors import JobNotRetriable, RecordUndecodable
from headrace.fields import AttemptSeconds
from headrace.job_parts import RetryRules
from headrace.models import Job, Source
from headrace.ports import Log, TopicPartition
from headrace.reading import record_at

_OWN_LIMITS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "retry": TypeAdapter(RetryRules),
    "attemptTimeout": TypeAdapter(AttemptSeconds),
}
# The reason of a dead letter, and the type of the error of its job, when nothing but the id could be read of the record.
UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resubmission:
    """A new job for work that was not done.

    Attributes:
        job_id: of the new job; the same whenever the same record is submitted anew.
        retry_of: id of the job that it does anew, where there was one.
        ordering_key: the worker's `order_by` decides when None.
        own: the fields by which the job has a retry policy and a time limit of its own.
    """

    job_id: str
    worker_name: str
    args: dict[str, Any]
    ctx: dict[str, Any]
    tenant: str
    ordering_key: str | None = None
    retry_of: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    def identify(self, *_: object) -> str:
        """Its id, whatever else it has."""
        return self.job_id


def own_limits(record: Mapping[str, Any]) -> dict[str, Any]:
    """The retry policy and the time limit that a job on the wire has of its own; of a damaged record, what of them is valid."""
    found = {}
    for name, kind in _OWN_LIMITS.items():
        with suppress(ValidationError):
            if record.get(name) is not None:
                kind.validate_python(record[name])
                found[name] = record[name]
    return found


class Submitter(Protocol):
    """What can accept a `Resubmission`."""

    async def find(self, job_id: str, tenant: str) -> Job | None:
        """The job of that id, when it is known."""

    async def check(self, again: Resubmission) -> None:
        """Raises what `submit` would raise, as far as that can be told without writing."""

    async def submit(self, again: Resubmission, *, timeout: float) -> Job:
        """Accepts it. Raises as `Client.enqueue`."""


def id_of_next(source: Source, identity: str) -> str:
    """The id of the job that does anew what a record asked for.

    Args:
        source: where the record stands.
        identity: tells it from a record at the same place of a topic that was made anew: the job's id, else a hash of the bytes.
    """
    return derived_id("again", source.topic, str(source.partition), str(source.offset), identity)


async def retry_failed(
    job: Job, submitter: Submitter, arguments: Callable[[Job], Awaitable[dict[str, Any]]], timeout: float
) -> Job:
    """Makes a new job of a failed one. One that was made before is returned as it is; if it failed too, it is retried in turn.

    Args:
        arguments: finds those of a job.
        timeout: seconds to wait for the acknowledgement.

    Raises:
        JobNotRetriable: the job has not failed, or nothing is left of its arguments.
        WorkerUnknown, ArgumentsInvalid, PayloadTooLarge, EnqueueTimeout, BrokerError: as `Client.enqueue`.
    """
    if job.status is not JobStatus.FAILED:
        raise JobNotRetriable(f"Job {job.id} has not failed: it is {job.status.value}. Only a failed job is retried.")
    while job.status is JobStatus.FAILED:
        if job.source is None:
            raise JobNotRetriable(f"Where the record of job {job.id} stands is not known: enqueue a new job.")
        next_id = id_of_next(job.source, job.id)
        earlier = await submitter.find(next_id, job.tenant)
        if earlier is None:
            again = Resubmission(
                job_id=next_id,
                worker_name=job.worker_name,
                args=await arguments(job),
                ctx=job.ctx.to_wire(),
                tenant=job.tenant,
                ordering_key=job.ordering_key,
                retry_of=job.id,
                own=own_limits(job.to_wire()),
            )
            return await submitter.submit(again, timeout=timeout)
        job = earlier
    return job


async def arguments_of(log: Log, job: Job) -> dict[str, Any]:
    """The arguments of a job, from its record where its snapshots do not repeat them.

    Raises:
        JobNotRetriable: the record is there no more, or never had any that could be read.
    """
    if job.error is not None and job.error.type == UNDECODABLE:
        raise JobNotRetriable(
            f"The record of job {job.id} could not be read, and is among the dead letters: `headrace dead-letters show {job.id}`."
        )
    if job.args is not None:
        return job.args
    assert job.source is not None
    source = job.source
    record = await record_at(log, TopicPartition(source.topic, source.partition), source.offset)
    try:
        raw = decode_object(None if record is None else record.value)
    except RecordUndecodable:
        raw = {}
    args = raw.get("args")
    if raw.get("id") != job.id or not isinstance(args, dict):
        raise JobNotRetriable(
            f"The record of job {job.id}, which has its arguments, is no longer in the log: enqueue a new job with them."
        )
    return args
