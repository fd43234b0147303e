"""What was recorded of jobs, and the interface behind which it stands: the log of a cluster, or a file exported from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from headrace.core.comparison import Outcome, can_be_compared
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.timestamps import parse_timestamp
from headrace.models import Job, JobRecord, WireModel, WorkerDefinition
from headrace.ports import ConversationRef, MemorySnapshot, TopicPartition
from headrace.ports import RecordingKey as RecordingKey

DAMAGED: Final = "damaged"
"""In place of the status of a job whose newest valid record cannot be read."""

WHY_DAMAGED: Final = "the newest record of what became of it is damaged"
"""Why such a job cannot be compared."""


def _defaults() -> dict[str, Any]:
    """What the models take where a job on the wire lacks a field, by its name there; without those that are then not known."""
    found = {}
    for model in (Job, JobRecord):
        for name, field_info in model.model_fields.items():
            default = None if field_info.is_required() else field_info.get_default(call_default_factory=True)
            if default is not None:
                found[field_info.alias or name] = default.to_wire() if isinstance(default, WireModel) else default
    return found


_DEFAULTS: Final = _defaults()


class Span(NamedTuple):
    """A span of time: from `start` on and before `end`, both in milliseconds since the Unix epoch by the log's own times."""

    start: int
    end: int

    def __contains__(self, at: object) -> bool:
        return isinstance(at, int) and self.start <= at < self.end


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A job as the log has it.

    Attributes:
        record: the job record, as it was accepted; read only.
        source: the partition in which it stands, and its offset there.
        accepted_at: the time of that record, in milliseconds since the Unix epoch.
        snapshot: the newest valid snapshot, as the wire has it; None where no engine had begun with the job.
        redacted: the paths of what was taken out of both.
        damaged: the newest valid record of its state cannot be read: what became of it is not known. The snapshot is then one
            before it, or None where none is left, or none was looked for.
        snapshot_at: the log's time of the snapshot, by the brokers' clock; None where it is not that at which the snapshot was
            made, as where a janitor wrote it once more.
    """

    record: Mapping[str, Any]
    source: TopicPartition
    offset: int
    accepted_at: int
    snapshot: Mapping[str, Any] | None
    redacted: Collection[str] = ()
    damaged: bool = False
    snapshot_at: int | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.record["id"])

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return str(self.given("tenant"))

    def given(self, name: str, otherwise: Any = None) -> Any:
        """A field of the job as it was accepted, by its name on the wire, or what its model takes where that is not there.

        Foreign writers leave out what has a default.

        Args:
            otherwise: what is given where there is neither.
        """
        found = self.record.get(name)
        return found if found is not None or name in self.record else _DEFAULTS.get(name, otherwise)

    @property
    def has_ended(self) -> bool:
        """Whether it had ended, by what was read; never where that is damaged."""
        return not self.damaged and self.snapshot is not None and self.snapshot["status"] in TERMINAL


class Began(NamedTuple):
    """When an attempt began. All times are in milliseconds since the Unix epoch, each by another clock.

    Attributes:
        at: by that of the brokers, as exactly as is known.
        started_at: by that of its engine.
        accepted_at: when its job was accepted, by that of whoever did so.
    """

    at: int
    started_at: int
    accepted_at: int
    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which jobs: those that were accepted in the span, and that have all that is given.

    Attributes:
        workers: by name; those of all when empty.
        fields: what the recorded job must have, by the path of the field on the wire: `status`, `tenant`, or with a point for
            what is inside, as `ctx.userId` and `args.kind`. `userId` and `conversationId` stand for those of the context.
    """

    span: Span
    workers: Collection[str] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


class History(Protocol):
    """What was recorded. All of it can be read any number of times; nothing is ever changed.

    Every method that talks to brokers raises BrokerError.
    """

    @property
    def span(self) -> Span | None:
        """In which all of its jobs were accepted; None where there may be jobs of any time."""

    async def worker_definitions(self) -> Mapping[str, WorkerDefinition]:
        """The workers that were defined, by name; also those of which it has no jobs, as jobs may enqueue for them."""

    async def recorded_workers(self) -> Collection[str]:
        """The names of the workers of which it has, or had, jobs."""

    async def find(self, job_id: str) -> RecordedJob:
        """A job, whenever it was; where its id was given again, the newest that has begun.

        Raises:
            JobUnknown: nothing was recorded of it.
            HistoryGone: its record was removed since; the message says what is left of it.
        """

    async def runs(self, job_id: str) -> Sequence[RecordedJob]:
        """All jobs that had an id, in the order of the log; `find` gives the last. Raises as `find`.

        An id that is derived is a new job's when its request is made again after the idempotency window.
        """

    def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        """The jobs that are wanted, in batches. Those of one partition come in the order of the log.

        Raises:
            HistoryGone: the span begins before what is left of the log; the message says with which time that begins.
        """

    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        """What an attempt of a job recorded, as JSON; nothing of what another job recorded that had its id."""

    async def memory_at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        """A conversation's memory as it was: what `MemoryStore.read` gave then.

        Args:
            at: a time, in milliseconds since the Unix epoch, by the times of the memory's records; or an attempt's beginning,
                which is known better than by one clock.

        Raises:
            NotRecorded: nothing tells what it was.
        """


@runtime_checkable
class ReadsMemoryAhead(Protocol):
    """A history to which it makes a difference who waits until a conversation's memory is read."""

    async def read_memory_ahead(self, conversation: ConversationRef, *, at_most: int | None) -> None:
        """Reads what `memory_at` needs of a conversation.

        Args:
            at_most: nothing is read if it would be more records than so many; None for any.

        Raises:
            BrokerError: the brokers cannot be used.
        """


def outcome_of(job: RecordedJob) -> Outcome | None:
    """What came of a job's final attempt, or None where it had not ended."""
    snapshot = job.snapshot
    if snapshot is None or not job.has_ended:
        return None
    attempts = snapshot.get("attempts") or ()
    error = snapshot.get("error") or {}
    return Outcome(
        status=JobStatus(snapshot["status"]),
        result=snapshot.get("result"),
        error_type=error.get("type"),
        error_message=error.get("message"),
        seconds=seconds_of(attempts[-1]) if attempts else None,
    )


def was_ended_by_its_code(job: RecordedJob) -> bool:
    """Whether what came of a job is what its worker's code made of it, and so can be compared."""
    snapshot = job.snapshot
    if snapshot is None or not job.has_ended:
        return False
    return can_be_compared(snapshot["status"], (snapshot.get("error") or {}).get("type"))


def seconds_of(attempt: Mapping[str, Any]) -> float | None:
    """How long an attempt took, by its entry in the history of its job; None where that is not known."""
    started, finished = attempt.get("startedAt"), attempt.get("finishedAt")
    if started is None or finished is None:
        return None
    return max(0, parse_timestamp(finished) - parse_timestamp(started)) / 1000
