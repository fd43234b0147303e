"""Jobs whose record in the queue is none of a job of its worker, but has an id: an engine refuses such a record, and ends its job
as failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from headrace.codec import decode_object, describe_problems, plain_validator
from headrace.engine.admission import remains_of
from headrace.errors import RecordUndecodable
from headrace.models import JobRecord
from headrace.ports import UnplacedRecord
from headrace.replay.history import RecordedJob
from headrace.replay.recorded.joining import Accepted, record_of_any
from headrace.replay.recorded.snapshots import snapshot_of

_check_record = plain_validator(JobRecord)


@dataclass(frozen=True, slots=True)
class RefusedJob(RecordedJob):
    """A job that cannot be run: of its record no more is sure than the id, or it is for another worker than the one in whose
    queue it stands. Its `record` is what an engine takes in that place.

    Attributes:
        problem: what is wrong with the record, in words.
        written: what stands in it.
    """

    problem: str = ""
    written: Mapping[str, Any] = field(default_factory=dict)

    @property
    def why_not_replayed(self) -> str:
        """Why it cannot be run again, for its user."""
        refused = "It was refused before any attempt" if self.has_ended else "It will be refused before any attempt"
        return f"Job {self.id} cannot be run: {self.problem}. {refused}; its timeline has what was written."


def refused_job(accepted: Accepted) -> RefusedJob | None:
    """The job of a record that is none of a job of its worker; None where not even its id can be read."""
    record = accepted.record
    job, written = named_record_of(record, accepted.worker), _object_in(record)
    if job is None or written is None:
        return None
    newest = accepted.newest
    # A queue that was made anew has other jobs at the same offsets.
    is_own = newest is not None and newest.key == job["id"].encode()
    snapshot = snapshot_of(newest) if newest is not None and is_own else None
    problem = _problem_of(written, accepted.worker)
    return RefusedJob(job, accepted.queue, record.offset, record.timestamp, snapshot, problem=problem, written=written)


def named_record_of(record: UnplacedRecord, worker: str) -> Mapping[str, Any] | None:
    """The job record in a record of a worker's queue, whose ever it is, or what an engine takes in its place where it is none of
    a job; None where not even an id can be read.
    """
    found = record_of_any(record, worker)
    if found is not None or (written := _object_in(record)) is None:
        return found
    remains = remains_of(written, record, worker)
    return None if remains is None else remains.record


def _object_in(record: UnplacedRecord) -> dict[str, Any] | None:
    try:
        return decode_object(record.value)
    except RecordUndecodable:
        return None


def _problem_of(written: dict[str, Any], worker: str) -> str:
    try:
        _check_record(written)
    except ValidationError as error:
        return f"the record is no job: {describe_problems(error)}"
    if written["workerName"] == worker:
        return "the record is no job: it cannot be read"
    return f"the job is for worker {written['workerName']!r}, and stands in the queue of {worker!r}"
