"""Snapshots of jobs as somebody else wrote them: which can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from headrace.codec import decode_object, plain_validator
from headrace.core.status import JobStatus
from headrace.fields import JobId, Timestamp, WorkerName
from headrace.models import Attempt, JobError, WireModel
from headrace.ports import UnplacedRecord
from headrace.replay.recorded.folding import UNUSABLE


class _Told(WireModel):
    """What is asked of a snapshot here; all else in it is shown as it is."""

    id: JobId
    worker_name: WorkerName
    status: JobStatus
    updated_at: Timestamp
    started_at: Timestamp | None = None
    epoch: int | None = None
    attempt: int
    sequence: int = 0
    attempts: list[Attempt] = Field(default_factory=list)
    failures: int = 0
    error: JobError | None = None


_check_told = plain_validator(_Told)


def snapshot_of(record: UnplacedRecord) -> Mapping[str, Any] | None:
    """The job in a record of its state, or None where that is damaged, whatever its headers say."""
    return snapshot_in(record.value)


def snapshot_in(value: bytes | None) -> Mapping[str, Any] | None:
    """The job in the value of a record of its state, or None where that is damaged."""
    try:
        raw = decode_object(value)
    except UNUSABLE:
        return None
    return raw if is_readable_snapshot(raw) else None


def is_readable_snapshot(raw: Any) -> bool:
    """Whether JSON is a job as a record of its state has it."""
    try:
        _check_told(raw)
    except UNUSABLE:
        return False
    return True
