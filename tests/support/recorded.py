"""Recorded jobs and their history, in memory: for tests of what is done with many of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.core.comparison import Comparison, Outcome, compare
from headrace.core.status import JobStatus
from headrace.ports import TopicPartition
from headrace.replay.history import RecordedJob, Span, Wanted, outcome_of
from support.histories import InMemoryHistory


def recorded_job(
    number: int, *, worker: str = "count", partition: int = 0, key: str | None = None, at: int | None = None, **snapshot: Any
) -> RecordedJob:
    """A job that has returned its number, unless the snapshot says something else of it."""
    record: dict[str, Any] = {
        "schemaVersion": 1,
        "id": f"01a20366-35d0-7564-93e5-{number:012d}",
        "tenant": "default",
        "workerName": worker,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "args": {"number": number},
        "ctx": {"userId": "ada"},
    }
    if key is not None:
        record["orderingKey"] = key
    began = {"attempt": 1, "epoch": 1, "instanceId": "one", "startedAt": "2026-01-01T00:00:00.000Z", "status": "completed"}
    told = {"updatedAt": "2026-01-01T00:00:01.000Z", "attempt": 1, "attempts": [began]}
    state = {"status": "completed", "result": number, **told, **snapshot}
    source = TopicPartition(f"headrace.jobs.{worker}", partition)
    accepted_at = 1_000 + number if at is None else at
    return RecordedJob(record, source, number, accepted_at, {**record, **state})


class ListedHistory(InMemoryHistory):
    """A history of these jobs, in batches as they are listed."""

    def __init__(self, batches: Sequence[Sequence[RecordedJob]]) -> None:
        super().__init__([job for batch in batches for job in batch])
        self.batches = batches

    async def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        for batch in self.batches:
            await asyncio.sleep(0)
            yield batch


@dataclass(frozen=True)
class Compared:
    """What `Today` makes of a job."""

    recorded: Outcome | None
    replayed: Outcome
    comparison: Comparison


@dataclass
class Today:
    """Runs jobs again by a function of their arguments, and keeps which of them began and ended, in order."""

    function: Callable[[dict[str, Any]], Any]
    steps: list[tuple[str, int]] = field(default_factory=list)
    together: int = 0
    most_together: int = 0
    gate: asyncio.Event | None = None

    async def rerun(self, job: RecordedJob) -> Compared:
        number = int(job.record["args"]["number"])
        self.steps.append(("begins", number))
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        self.together -= 1
        try:
            outcome = Outcome(JobStatus.COMPLETED, self.function(job.record["args"]))
        except Exception as error:
            outcome = Outcome(JobStatus.FAILED, None, type(error).__name__, str(error))
        self.steps.append(("ends", number))
        recorded = outcome_of(job)
        return Compared(recorded, outcome, compare(recorded, outcome))

    def refusal(self, job: RecordedJob) -> None:
        """It takes all arguments."""

    @property
    def begun(self) -> list[int]:
        """The numbers of the jobs, in the order in which they began."""
        return [number for step, number in self.steps if step == "begins"]


def everything(batches: Iterable[Sequence[RecordedJob]]) -> Wanted:
    """All jobs of a history."""
    times = [job.accepted_at for batch in batches for job in batch]
    return Wanted(span=Span(min(times), max(times) + 1))
