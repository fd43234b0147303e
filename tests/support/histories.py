"""What was recorded of jobs, in memory: a `History` for tests of what is done with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.errors import JobUnknown
from headrace.models import WorkerDefinition
from headrace.ports import ConversationRef, MemorySnapshot, TopicPartition
from headrace.replay.history import Began, RecordedJob, RecordingKey, Wanted

STARTED_AT = parse_timestamp("2026-03-02T09:30:01.000Z")
_SECOND = 1_000


@dataclass
class InMemoryHistory:
    """Holds what a test puts in.

    Attributes:
        recorded: what attempts got from outside, by job and number.
        memories: of conversations, whatever the time; `asked` has the times that were asked for.
    """

    listed: list[RecordedJob] = field(default_factory=list)
    definitions: dict[str, WorkerDefinition] = field(default_factory=dict)
    recorded: dict[tuple[str, int], dict[RecordingKey, bytes]] = field(default_factory=dict)
    memories: dict[ConversationRef, MemorySnapshot] = field(default_factory=dict)
    asked: list[tuple[ConversationRef, int]] = field(default_factory=list)

    def record(self, job_id: str, attempt: int, name: str, *values: Any) -> None:
        """An attempt got these values from outside, under one name."""
        of_attempt = self.recorded.setdefault((job_id, attempt), {})
        for value in values:
            number = sum(key.name == name for key in of_attempt)
            of_attempt[RecordingKey(name, number)] = orjson.dumps(value)

    @property
    def span(self) -> None:
        """It has jobs of any time."""

    async def recorded_workers(self) -> Collection[str]:
        return {str(job.record["workerName"]) for job in self.listed}

    async def worker_definitions(self) -> Mapping[str, WorkerDefinition]:
        return self.definitions

    async def find(self, job_id: str) -> RecordedJob:
        return (await self.runs(job_id))[-1]

    async def runs(self, job_id: str) -> Sequence[RecordedJob]:
        if found := [job for job in self.listed if job.id == job_id]:
            return found
        raise JobUnknown(f"There is no job {job_id!r}.")

    async def jobs(self, wanted: Wanted) -> AsyncGenerator[Sequence[RecordedJob]]:
        yield [job for job in self.listed if job.accepted_at in wanted.span]

    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        return self.recorded.get((job.id, attempt), {})

    async def memory_at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        self.asked.append((conversation, at if isinstance(at, int) else at.at))
        return self.memories.get(conversation, MemorySnapshot(-1, (), 0, ()))


def past_attempt(number: int, status: str, error: tuple[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """An entry of a job's history: it began so many minutes after the first, and took a second."""
    began = STARTED_AT + (number - 1) * 60 * _SECOND
    entry = {"attempt": number, "epoch": 7, "instanceId": "i", "startedAt": format_timestamp(began), "status": status, **fields}
    if status != "running":
        entry["finishedAt"] = format_timestamp(began + _SECOND)
    return entry if error is None else {**entry, "error": {"type": error[0], "message": error[1]}}


def recorded_job(
    worker: str,
    args: Mapping[str, Any] | None = None,
    *,
    result: Any = None,
    error: tuple[str, str] | None = None,
    status: str | None = None,
    attempts: Sequence[Mapping[str, Any]] | None = None,
    job_id: str = "a-job",
    **record: Any,
) -> RecordedJob:
    """A job that has completed with the result, or failed with the error (its type and message), unless it is said otherwise.

    Args:
        attempts: its history; one that ended so when left out, and none where it is empty.
        record: further fields of the job record.
    """
    status = status or ("completed" if error is None else "failed")
    if attempts is None:
        attempts = [past_attempt(1, status, error)]
    written: dict[str, Any] = {
        **{"schemaVersion": 1, "id": job_id, "tenant": "acme", "workerName": worker, "createdAt": "2026-03-02T09:30:00.000Z"},
        **{"args": dict(args or {}), "ctx": {"userId": "ann"}},
        **record,
    }
    snapshot: dict[str, Any] = {
        **written,
        **{"status": status, "updatedAt": "2026-03-02T09:31:00.000Z", "epoch": 7, "sequence": 2},
        "attempt": attempts[-1]["attempt"] if attempts else 0,
        "attempts": list(attempts),
        "failures": sum(each["status"] == "failed" for each in attempts),
    }
    if result is not None:
        snapshot["result"] = result
    if error is not None:
        snapshot["error"] = {"type": error[0], "message": error[1]}
    place = TopicPartition(f"unit.jobs.{worker}", 0)
    return RecordedJob(written, place, 5, parse_timestamp(written["createdAt"]), snapshot)
