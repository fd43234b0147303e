"""From a fetched record to a job in hand, or to the reason why there can be none."""

from __future__ import annotations

import contextlib
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from headrace.abstract_worker import AbstractWorker
from headrace.codec import decode_object, describe_problems, is_common_job_record, plain_validator
from headrace.core import snapshots
from headrace.core.recovery import Begun
from headrace.core.retry import qualified_name
from headrace.core.snapshots import NOT_ACCEPTED
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp
from headrace.engine.outcome import shortened, text_of
from headrace.engine.partition import OwnedPartition, Work
from headrace.engine.states import State
from headrace.errors import ArgumentsInvalid, RecordUndecodable, WorkerUnknown
from headrace.fields import Identity, JobId
from headrace.models import DEFAULT_TENANT, SCHEMA_VERSION, CallContext, JobRecord
from headrace.ports import Record, UnplacedRecord

_check_record = plain_validator(JobRecord)
_job_id: TypeAdapter[str] = TypeAdapter(JobId)
_identity: TypeAdapter[str] = TypeAdapter(Identity)

_MESSAGE_LIMIT_BYTES = 4 * 1024
_TYPE_LIMIT_BYTES = 1024
# Of the year 9999: brokers may be told times in other units, and write down what they are told.
_LAST_MILLISECOND = 253_402_300_799_999
# A snapshot repeats what the record has, and a result comes on top: both together must fit into the topic.
RECORD_LIMIT_BYTES = 1024 * 1024
"""No larger record becomes a job."""

Reason = Literal["undecodable", "worker_unknown", "arguments_invalid", "poison", "idempotency_conflict"]


class NotAdmitted(Exception):
    """A record that no attempt can be made of.

    Attributes:
        work: what is to be written as failed; None where the record has no readable job id.
        error_type: the class of the error that says so, as it is written down.
        fails: whether the job is to be written as failed; not so where its id is another job's.
    """

    def __init__(self, reason: Reason, message: str, work: Work | None, kind: type[BaseException] = RecordUndecodable) -> None:
        self.reason: Reason = reason
        # It goes into a header and a snapshot, which must fit however much is wrong with the record.
        self.message = shortened(message, _MESSAGE_LIMIT_BYTES)
        super().__init__(self.message)
        self.work = work
        self.fails = work is not None and reason != "idempotency_conflict"
        self.error_type = shortened(qualified_name(kind), _TYPE_LIMIT_BYTES)


class _TooLarge(Exception):
    """Snapshots of the job would not fit into the topic."""


def admit(record: Record, partition: OwnedPartition, worker: AbstractWorker[Any]) -> Work:
    """The job that a record holds, ready to wait for its start.

    Raises:
        NotAdmitted: the bytes are no job, the job is for another worker, or its arguments do not fit. It raises nothing else, as
            bad as the record may be: whoever takes records in would end by it, and so would every one after him.
    """
    try:
        return _admit(record, partition, worker)
    except NotAdmitted:
        raise
    except BaseException as error:
        # JSON may be nested too deep to be written again, and a class of the user's own may resist all looks.
        message = f"the record cannot be made a job: {type.__repr__(type(error))}: {text_of(error)}"
        raise NotAdmitted("undecodable", message, _bare(record, partition, worker)) from None


def _admit(record: Record, partition: OwnedPartition, worker: AbstractWorker[Any]) -> Work:
    try:
        raw = decode_object(record.value)
    except RecordUndecodable as error:
        raise NotAdmitted("undecodable", str(error), None) from None
    if len(record.value or b"") > RECORD_LIMIT_BYTES:
        raise NotAdmitted(
            "undecodable",
            f"the record takes more than {RECORD_LIMIT_BYTES} bytes",
            _remains(raw, record, partition, worker),
        )
    try:
        work = _decode(raw, record, partition, worker.name)
    except ValidationError as error:
        problem = describe_problems(error)
        raise NotAdmitted("undecodable", f"the record is no job: {problem}", _remains(raw, record, partition, worker)) from None
    except _TooLarge:
        message = f"the record takes more than {RECORD_LIMIT_BYTES} bytes when it is written again"
        raise NotAdmitted("undecodable", message, _remains(raw, record, partition, worker)) from None
    if raw["workerName"] != worker.name:
        message = f"the job is for worker {raw['workerName']!r}, and stands in the queue of {worker.name!r}"
        raise NotAdmitted("worker_unknown", message, work, WorkerUnknown)
    work.arguments = admit_arguments(worker, raw["args"], work)
    key = raw.get("orderingKey")
    # Tenants choose their keys without knowing of each other: nobody waits for another one's job.
    work.lane = None if key is None else (record.partition, raw.get("tenant", DEFAULT_TENANT), key)
    return work


def admit_arguments(worker: AbstractWorker[Any], args: dict[str, Any], work: Work | None = None) -> Any:
    """The arguments as the worker's model makes them.

    Raises:
        NotAdmitted: they do not fit.
    """
    try:
        return worker.parse_arguments(args)
    except ArgumentsInvalid as error:
        raise NotAdmitted("arguments_invalid", str(error), work, ArgumentsInvalid) from None
    except BaseException as error:  # a validator of the user's own can raise anything
        message = f"validating the arguments raised {type.__repr__(type(error))}: {text_of(error)}"
        raise NotAdmitted("arguments_invalid", message, work, type(error)) from None


def _decode(raw: dict[str, Any], record: Record, partition: OwnedPartition, worker_name: str) -> Work:
    if not is_common_job_record(raw, worker_name):
        _check_record(raw)
    value = record.value or b""
    if NOT_ACCEPTED.isdisjoint(raw) and len(value) <= snapshots.ARGUMENTS_REPEATED_BYTES and value.endswith(b"}"):
        # As nearly all are: the record's own bytes are what its snapshots begin with.
        head = value
    else:
        repeated = snapshots.accepted(raw)
        if len(orjson.dumps(raw["args"])) > snapshots.ARGUMENTS_REPEATED_BYTES:
            del repeated["args"]
        head = orjson.dumps(repeated)
        if len(head) > RECORD_LIMIT_BYTES:
            raise _TooLarge
    work = partition.work(record, raw, head)
    known = partition.begun.pop(record.offset, None) if partition.begun else None
    if known is not None and known.job_id == raw["id"].encode():
        work.state = _continue(work.state, known)
        # It was acknowledged to a former owner, and goes on into the checkpoints of this one.
        work.acknowledged = work.state
        if snapshots.is_isolated(work.state.fields):
            work.original = record
    return work


def _continue(state: State, earlier: Begun[bytes]) -> State:
    """Takes over what a former owner wrote of the job: its attempts go on counting."""
    try:
        before = decode_object(earlier.snapshot) if earlier.fields is None else earlier.fields
    except RecordUndecodable:
        return state
    if before.get("status") not in (JobStatus.QUEUED, JobStatus.RUNNING) or not isinstance(before.get("attempts"), list):
        return state
    if earlier.died:
        before = snapshots.crashed(before)
    return State({**state.fields, **{name: before[name] for name in snapshots.CONTINUED if name in before}})


def _remains(raw: dict[str, Any], record: Record, partition: OwnedPartition, worker: AbstractWorker[Any]) -> Work | None:
    """A job of which only the id is sure, so that its sender finds it as failed."""
    remains = remains_of(raw, record, worker.name)
    return None if remains is None else partition.work(record, remains.record, remains.value)


class Remains(NamedTuple):
    """What is left of a record that is no job: a job record with nothing in it that is not sure, and its JSON."""

    record: dict[str, Any]
    value: bytes


def remains_of(raw: dict[str, Any], record: UnplacedRecord, worker: str) -> Remains | None:
    """What an engine of a worker takes in the place of a record that is no job; None where not even its id can be read."""
    job_id = _valid(_job_id, raw.get("id"))
    if job_id is None:
        return None
    context = b"{}"
    with contextlib.suppress(ValueError, TypeError, RecursionError):  # it does not fit, or is nested too deep to be written again
        context = orjson.dumps(CallContext.model_validate(raw.get("ctx") or {}).to_wire())
    bare: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "id": job_id,
        "tenant": _valid(_identity, raw.get("tenant")) or DEFAULT_TENANT,
        "workerName": worker,
        "createdAt": format_timestamp(min(max(record.timestamp, 0), _LAST_MILLISECOND)),
        "args": {},
    }
    if len(head := orjson.dumps({**bare, "ctx": orjson.Fragment(context)})) > RECORD_LIMIT_BYTES:
        context = b"{}"
        head = orjson.dumps({**bare, "ctx": {}})
    return Remains({**bare, "ctx": orjson.loads(context)}, head)


def _bare(record: Record, partition: OwnedPartition, worker: AbstractWorker[Any]) -> Work | None:
    """What remains of a record of which nobody knows what is wrong with it."""
    try:
        return _remains(decode_object(record.value), record, partition, worker)
    except Exception:
        return None


def _valid(kind: TypeAdapter[str], value: Any) -> str | None:
    """The value, or None if it is not what the contract says of it."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None
