"""When a job ran, by the brokers' clock: where an id was given again, that tells whose something is that was written under it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from headrace.core.timestamps import parse_timestamp
from headrace.replay.history import RecordedJob, Span
from headrace.replay.recorded.folding import UNUSABLE
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, ALL_TIME

_CLOSE_MILLISECONDS: Final = 30_000
"""So much two brokers' clocks may differ, and so long a record may be under way while its writer holds the job."""
_FAR_MILLISECONDS: Final = AHEAD_MILLISECONDS
"""So much the clock of an engine may differ from the brokers', where nothing tells how much it is."""


def time_of_run(job: RecordedJob) -> Span:
    """In which, by the brokers' clock, all was written that was written by a job's attempts.

    It begins a little before the first attempt and ends a little after the job, or with the log where that had not ended. Jobs
    that have one id are apart by more: by the idempotency window.
    """
    try:
        return Span(_start(job), _end(job))
    except UNUSABLE:  # its times are redacted, or written by somebody else
        return ALL_TIME


def run_at(runs: Sequence[RecordedJob], at: int) -> RecordedJob | None:
    """Which of all jobs that had one id it was whose attempts wrote something at a time, by the brokers' clock.

    None where there are several, and none of them ran then.
    """
    if len(runs) == 1:
        return runs[0]
    begun = [(span, run) for run in runs if (span := time_of_run(run)).start <= at]
    if not begun:
        return None
    span, newest = max(begun, key=lambda each: each[0].start)
    return newest if at in span else None


def is_sure_to_be_at_work(job: RecordedJob, times: Iterable[int]) -> bool:
    """Whether no other job that had its id can have written something at these times."""
    span = time_of_run(job)
    return span.end < ALL_TIME.end and all(at in span for at in times)


def _start(job: RecordedJob) -> int:
    snapshot: Mapping[str, Any] = job.snapshot or {}
    attempts: Sequence[Mapping[str, Any]] = snapshot.get("attempts") or ()
    started_at = snapshot.get("startedAt") or (attempts[0]["startedAt"] if attempts else None)
    if started_at is None:
        # Its request was made after the window of a job before it, by the same times by which its engine has found that out.
        return job.accepted_at - _CLOSE_MILLISECONDS
    at = parse_timestamp(started_at)
    # What the newest record tells of its engine's clock is true of the first attempt if that was the same engine's.
    snapshot_at = None if job.damaged or not attempts or attempts[0]["attempt"] != 1 else job.snapshot_at
    instance = snapshot.get("instanceId")
    if snapshot_at is None or instance is None or attempts[0].get("instanceId") != instance:
        return at - _FAR_MILLISECONDS
    return at + snapshot_at - parse_timestamp(snapshot["updatedAt"]) - _CLOSE_MILLISECONDS


def _end(job: RecordedJob) -> int:
    if not job.has_ended or job.snapshot is None:
        return ALL_TIME.end
    if job.snapshot_at is not None:
        return job.snapshot_at + _CLOSE_MILLISECONDS
    return parse_timestamp(job.snapshot["updatedAt"]) + _FAR_MILLISECONDS
