"""What tests of duplicates need: records that ask for one job, and what stands in `ended-keys`."""

from __future__ import annotations

from typing import Any

import orjson

from headrace.ports import NewRecord, TopicPartition
from support.memory_engines import TOPICS, Bench, GatedWorker, wall_clock

WINDOW = 120.0
"""Seconds; the usual hour takes its time also where time is virtual."""
ENDED_KEYS = TOPICS.ended_keys(WINDOW).name
QUEUE = TOPICS.jobs_name(GatedWorker.name)


def ask(bench: Bench, job_id: str, *, at: int | None = None, **args: Any) -> int:
    """Writes a record that asks for the job of this id; its offset.

    Args:
        at: the record's own time, in milliseconds; now when left out.
        args: beside the name, which is the id.
    """
    raw = {
        "schemaVersion": 1,
        "id": job_id,
        "tenant": "default",
        "workerName": GatedWorker.name,
        "createdAt": "2026-03-02T09:30:00.000Z",
        "args": {"name": job_id, **args},
        "ctx": {},
        "idempotencyKey": "key",
    }
    record = NewRecord(job_id.encode(), orjson.dumps(raw))
    return bench.cluster.append(TopicPartition(QUEUE, 0), record, timestamp=wall_clock() if at is None else at)


def entries(bench: Bench) -> list[tuple[str, int]]:
    """The ids and offsets of jobs that `ended-keys` has, in the order of the log."""
    return [(entry["id"], entry["offset"]) for entry in raw_entries(bench)]


def raw_entries(bench: Bench) -> list[dict[str, Any]]:
    """The entries of `ended-keys` as they were written."""
    return [orjson.loads(record.value or b"") for record in bench.cluster.topic_records(ENDED_KEYS)]


def stated(bench: Bench, job_id: str) -> list[tuple[int, str]]:
    """The offset and the status of each snapshot of a job, void ones too, in the order of the log."""
    return [(snapshot["source"]["offset"], snapshot["status"]) for snapshot in bench.written(job_id)]
