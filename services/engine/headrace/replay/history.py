"""What was recorded of jobs, and the interface behind which it stands: the log of a cluster, or a file exported from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from headrace.core.comparison import Outcome
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.timestamps import parse_timestamp
from headrace.models import WorkerDefinition
from headrace.ports import ConversationRef, MemorySnapshot, TopicPartition
from headrace.ports import RecordingKey as RecordingKey


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
    """

    record: Mapping[str, Any]
    source: TopicPartition
    offset: int
    accepted_at: int
    snapshot: Mapping[str, Any] | None
    redacted: Collection[str] = ()

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.record["id"])

    @property
    def has_ended(self) -> bool:
        """Whether it had ended, by what was read."""
        return self.snapshot is not None and self.snapshot["status"] in TERMINAL


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
        """The names of the workers of which it has jobs, or may have some."""

    async def find(self, job_id: str) -> RecordedJob:
        """A job, whenever it was.

        Raises:
            JobUnknown: nothing was recorded of it.
            HistoryGone: its record was removed since; the message says what is left of it.
        """

    def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        """The jobs that are wanted, in batches. Those of one partition come in the order of the log.

        Raises:
            HistoryGone: the span begins before what is left of the log; the message says with which time that begins.
        """

    async def recordings(self, job_id: str, attempt: int) -> Mapping[RecordingKey, bytes]:
        """What an attempt of a job recorded, as JSON."""

    async def memory_at(self, conversation: ConversationRef, at: int) -> MemorySnapshot:
        """A conversation's memory at a time, in milliseconds since the Unix epoch: what `MemoryStore.read` gave then.

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


def seconds_of(attempt: Mapping[str, Any]) -> float | None:
    """How long an attempt took, by its entry in the history of its job; None where that is not known."""
    started, finished = attempt.get("startedAt"), attempt.get("finishedAt")
    if started is None or finished is None:
        return None
    return max(0, parse_timestamp(finished) - parse_timestamp(started)) / 1000
