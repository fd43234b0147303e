"""The life of a job: its states, and the moves between them, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands. `completed`, `failed` and `cancelled` are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

# A job that cannot be decoded for its worker goes from queued to failed without a start.
MOVES: Mapping[str, frozenset[str]] = {
    JobStatus.SCHEDULED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, *TERMINAL}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


class IllegalMove(Exception):
    """A job was about to make a move that the table does not have: a fault in headrace itself."""


def check_move(before: str, after: str) -> None:
    """Raises IllegalMove unless a job may go from `before` to `after`, both as `JobStatus` or as on the wire."""
    if after not in MOVES[before]:
        raise IllegalMove(f"a job cannot go from {before} to {after}")
