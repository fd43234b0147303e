"""Recorded jobs at times of their own in a log in memory, and what a history reads of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headrace.replay.history import History, RecordedJob, Span, Wanted
from support.written_jobs import Engines

ALWAYS = Span(0, 1 << 50)
MINUTE = 60_000
WHEN = "2026-03-02T09:30:00.000Z"


async def jobs(history: History, span: Span = ALWAYS, *workers: str, **fields: str) -> list[RecordedJob]:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return [job async for batch in history.jobs(Wanted(span=span, workers=workers, fields=named)) for job in batch]


def told(found: list[RecordedJob]) -> list[tuple[str, Any]]:
    """Ids and statuses."""
    return sorted((job.id, None if job.snapshot is None else job.snapshot["status"]) for job in found)


def put_at(engines: Engines, at: int, job_id: str, partition: int = 0, **fields: Any) -> None:
    """A job record with a time."""
    made = engines.enqueue(job_id, partition, **fields)
    engines.log.cluster.partition(engines.jobs(partition)).records.pop()
    engines.log.cluster.partition(engines.jobs(partition)).end -= 1
    engines.log.put(engines.jobs(partition), made.key, made.value, timestamp=at)


def give_time(engines: Engines, partition: int, at: int) -> None:
    """The last record of the jobs' state gets a time."""
    records = engines.log.cluster.partition(engines.state(partition)).records
    records[-1] = replace(records[-1], timestamp=at)
