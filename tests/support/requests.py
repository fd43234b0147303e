"""What somebody asks of the engines of a bench, and what of it stands still."""

from __future__ import annotations

from typing import Any

import orjson

from headrace.codec import encode
from headrace.core.records import cancellation_key, pause_key
from headrace.core.timestamps import from_milliseconds
from headrace.models import CancelRequest, PauseRequest, Source
from headrace.ports import NewRecord, TopicPartition
from support.memory_engines import TOPICS, Bench, GatedWorker

CONTROL = TopicPartition(TOPICS.control.name, 0)
QUEUE = TOPICS.jobs_name(GatedWorker.name)


def make_topics(bench: Bench) -> None:
    """The topics, so that something can be asked before an engine starts."""
    queue = TOPICS.jobs(GatedWorker.name, bench.settings.engine.partitions)
    bench.cluster.create_topics([TOPICS.control, TOPICS.job_state, queue])


def cancel(bench: Bench, job_id: str, *, tenant: str = "default", source: Source | None = None) -> bytes:
    """Asks for the cancellation of a job that was enqueued, as a client does; the key of the request."""
    place = source or _source_of(bench, job_id)
    request = CancelRequest(
        tenant=tenant,
        job_id=job_id,
        worker_name=GatedWorker.name,
        source=place,
        requested_at=from_milliseconds(bench.cluster.now()),
    )
    key = cancellation_key(tenant, job_id)
    bench.cluster.append(CONTROL, NewRecord(key, encode(request)))
    return key


def pause(bench: Bench, worker: str = GatedWorker.name) -> None:
    """Asks for the pause of a worker."""
    request = PauseRequest(worker_name=worker, requested_at=from_milliseconds(bench.cluster.now()))
    bench.cluster.append(CONTROL, NewRecord(pause_key(worker), encode(request)))


def resume(bench: Bench, worker: str = GatedWorker.name) -> None:
    """Ends the pause of a worker."""
    bench.cluster.append(CONTROL, NewRecord(pause_key(worker), None))


def standing(bench: Bench) -> list[bytes]:
    """The keys of the requests that stand."""
    last: dict[bytes, Any] = {record.key or b"": record.value for record in bench.cluster.records(CONTROL)}
    return [key for key, value in last.items() if value is not None]


def _source_of(bench: Bench, job_id: str) -> Source:
    for record in bench.cluster.topic_records(QUEUE):
        if orjson.loads(record.value or b"{}").get("id") == job_id:
            return Source(topic=QUEUE, partition=record.partition, offset=record.offset)
    raise AssertionError(f"{job_id} is not in the queue")
