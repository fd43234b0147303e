"""The attempts of a recorded job: how the job stood when each began, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace.core.comparison import Outcome
from headrace.core.snapshots import HISTORY_MESSAGE_BYTES, accepted, failures, shorten
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.models import Job
from headrace.replay.history import Began, RecordedJob, outcome_of, seconds_of
from headrace.replay_errors import AttemptUnknown

_ENDS: Final = {"completed": JobStatus.COMPLETED, "failed": JobStatus.FAILED, "cancelled": JobStatus.CANCELLED}


class PastAttempt:
    """One attempt of a recorded job. It stands for the job where its worker looks at that.

    Args:
        number: of the attempt; the final one, or the newest, when None.

    Raises:
        AttemptUnknown: the job has no such attempt, or nothing is left of it.

    Attributes:
        started_at: when it began, as the record says.
        is_last: whether no other followed.
    """

    __slots__ = ("_entry", "_is_final", "is_last", "number", "recorded_job", "started_at")

    def __init__(self, job: RecordedJob, number: int | None = None) -> None:
        snapshot: Mapping[str, Any] = job.snapshot or {}
        attempts = snapshot.get("attempts") or ()
        # One that was never begun, or was refused before, is replayed as the first that it would have been.
        last = attempts[-1]["attempt"] if attempts else 1
        self.recorded_job = job
        self.number: int = last if number is None else number
        self.is_last = self.number == last
        # Without a number it stands for what came of the job.
        self._is_final = number is None
        self._entry: Mapping[str, Any] = {}
        if attempts:
            self._entry = next((each for each in attempts if each["attempt"] == self.number), self._entry)
        if not self._entry and (attempts or self.number != 1):
            raise AttemptUnknown(_there_are(job.id, self.number, [each["attempt"] for each in attempts]))
        self.started_at: str = self._entry.get("startedAt") or format_timestamp(job.accepted_at)

    @property
    def began(self) -> int:
        """When it began, in milliseconds since the Unix epoch."""
        return parse_timestamp(self.started_at)

    @property
    def beginning(self) -> Began:
        """When it began, by all clocks of which something is known.

        An engine writes when it made a snapshot, and the log when it took it in: where the newest one is by the attempt's own
        engine, that tells how its clock differed from the brokers', but for the time that the record was under way.
        """
        job, began = self.recorded_job, self.began
        snapshot: Mapping[str, Any] = job.snapshot or {}
        at = began
        instance = self._entry.get("instanceId")
        # Of a damaged newest record the log has the time, and the snapshot that stands here is one before it.
        snapshot_at = None if job.damaged else job.snapshot_at
        if snapshot_at is not None and instance is not None and instance == snapshot.get("instanceId"):
            at += snapshot_at - parse_timestamp(snapshot["updatedAt"])
        return Began(at, began, job.accepted_at, job.id, self.number)

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token that it had."""
        return self._entry.get("epoch", 0), self.number

    @property
    def outcome(self) -> Outcome | None:
        """What came of it, as far as that is known; None where it has not ended, or was interrupted.

        Of a job without an end nothing has come yet: one whose newest attempt has failed waits for the next.
        """
        if self._ended_the_job:
            return outcome_of(self.recorded_job)
        if self._is_final:
            return None
        status = _ENDS.get(self._entry.get("status", ""))
        if status is None:
            return None
        error = self._entry.get("error") or {}
        return Outcome(status, None, error.get("type"), error.get("message"), seconds_of(self._entry))

    def told(self, replayed: Outcome) -> Outcome:
        """What came of its replay, in as much detail as is kept of it."""
        if self._ended_the_job:
            return replayed
        message = replayed.error_message
        short = None if message is None else shorten(message, HISTORY_MESSAGE_BYTES)
        return Outcome(replayed.status, None, replayed.error_type, short, replayed.seconds)

    @property
    def _ended_the_job(self) -> bool:
        """Whether what came of the job stands for what came of it.

        One that is named may have ended before its job did, which was cancelled, or given up, while it waited for the next.
        """
        if not (self.is_last and self.recorded_job.has_ended):
            return False
        if self._is_final or not self._entry:
            return True
        snapshot: Mapping[str, Any] = self.recorded_job.snapshot or {}
        return self._entry.get("status") == snapshot["status"] and _error_type(self._entry) == _error_type(snapshot)

    def as_job(self) -> Job:
        """The job as its worker saw it when the attempt began."""
        job = self.recorded_job
        topic, partition = job.source
        source = {"topic": topic, "partition": partition, "offset": job.offset}
        return Job.model_validate({**accepted(job.record), **self._state(), "source": source})

    def _state(self) -> dict[str, Any]:
        snapshot: Mapping[str, Any] = self.recorded_job.snapshot or {}
        attempts = [each for each in snapshot.get("attempts") or () if each["attempt"] < self.number]
        later = [each for each in snapshot.get("attempts") or () if each["attempt"] >= self.number]
        begun = {**self._entry, "attempt": self.number, "startedAt": self.started_at, "status": "running"}
        begun.setdefault("epoch", 0)
        begun.setdefault("instanceId", "replay")
        begun.pop("finishedAt", None)
        begun.pop("error", None)
        failed = failures(snapshot) - sum(each["status"] == "failed" for each in later)
        return {
            "status": JobStatus.RUNNING,
            "updatedAt": self.started_at,
            "startedAt": snapshot.get("startedAt") or self.started_at,
            "epoch": begun["epoch"],
            "attempt": self.number,
            "sequence": 1,
            "instanceId": begun["instanceId"],
            "attempts": [*attempts, begun],
            **({"failures": failed} if failed > 0 else {}),
        }


def _error_type(told: Mapping[str, Any]) -> str | None:
    return (told.get("error") or {}).get("type")


def _there_are(job_id: str, number: int, numbers: list[int]) -> str:
    if not numbers:
        return f"Job {job_id} has no attempt {number}: none was begun."
    first, last = numbers[0], numbers[-1]
    kept = f"is attempt {first} alone" if first == last else f"are attempts {first} to {last}"
    if 1 <= number <= last:
        return f"Nothing is left of attempt {number} of job {job_id}: kept {kept}."
    return f"Job {job_id} has no attempt {number}: there {kept}."
