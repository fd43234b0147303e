"""Which records a fault is about, where it is about some of them alone."""

from __future__ import annotations

from headrace.core.records import LEASE_PREFIX, REPEAT_HEADER, STATUS_HEADER
from headrace.core.status import TERMINAL, JobStatus
from headrace.ports import NewRecord


def is_claim(record: NewRecord) -> bool:
    """Whether somebody claims a partition by it."""
    return record.key.startswith(LEASE_PREFIX) and b'"kind":"claim"' in (record.value or b"")


def is_snapshot(record: NewRecord) -> bool:
    """Whether it tells of a job."""
    return _status_of(record) is not None


def is_start(record: NewRecord) -> bool:
    """Whether an attempt begins by it."""
    return _status_of(record) == JobStatus.RUNNING


def is_end(record: NewRecord) -> bool:
    """Whether a job ends by it."""
    return _status_of(record) in TERMINAL


def is_repeat(record: NewRecord) -> bool:
    """Whether a janitor writes it once more."""
    return any(name == REPEAT_HEADER for name, _ in record.headers)


def _status_of(record: NewRecord) -> str | None:
    return next((value.decode() for name, value in record.headers if name == STATUS_HEADER), None)
