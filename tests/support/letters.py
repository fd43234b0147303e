"""A log in memory with dead letters in it, and clients that look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from headrace import Client, DeadLetter, Settings, WorkerDefinition, load_settings
from headrace.codec import encode
from headrace.core.records import definition_key
from headrace.models import DeadLetterHeaders
from headrace.ports import Header, TopicPartition
from headrace.testing import StoredRecord
from support.written_jobs import NAMESPACE, TOPICS, WORKER, Engines, WrittenLog

QUEUE = TOPICS.jobs_name(WORKER)
LETTERS = TOPICS.dead_letters.name
DEFINITION = WorkerDefinition(
    name=WORKER,
    description="Sends a digest.",
    category="tool",
    arguments_schema={"type": "object", "properties": {"to": {"type": "array"}}, "required": ["to"]},
)


class LetterBox(WrittenLog):
    """Has the topic of dead letters, and a worker whose engines write there.

    Attributes:
        engines: what they write of jobs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cluster.create_topics([TOPICS.dead_letters])
        self.engines = Engines(self)
        self.publish(DEFINITION)

    def publish(self, definition: WorkerDefinition) -> None:
        """Makes a worker known, and its queue."""
        self.cluster.create_topics([TOPICS.jobs(definition.name)])
        self.put(TopicPartition(TOPICS.workers.name, 0), definition_key(definition.name), encode(definition))

    def bury(
        self,
        value: bytes | None,
        *own: Header,
        letter_partition: int = 0,
        at: int | None = None,
        cut: int | None = None,
        **told: Any,
    ) -> StoredRecord:
        """A dead letter as an engine writes it.

        Args:
            own: headers of the original record.
            told: what the engine's headers tell otherwise than usual.
        """
        usual = {"reason": "undecodable", "message": "the record is no JSON", "worker_name": WORKER, "instance_id": "one"}
        place = {"topic": QUEUE, "partition": 3, "offset": self.cluster.partition(TopicPartition(LETTERS, letter_partition)).end}
        described = DeadLetterHeaders(**{**usual, **place, **told}).to_wire()
        headers = [(name, text.encode()) for name, text in described.items()]
        if cut is not None:
            headers.append(("headrace-cut-from-bytes", str(cut).encode()))
        return self.put(TopicPartition(LETTERS, letter_partition), b"key", value, [*own, *headers], timestamp=at)

    def bury_job(
        self, job_id: str = "job-1", *, offset: int = 7, partition: int = 0, queue_partition: int = 3, **fields: Any
    ) -> StoredRecord:
        """The dead letter of a job whose arguments the worker did not take.

        Args:
            offset, queue_partition: where its record stood.
            partition: where the letter stands.
        """
        told: dict[str, Any] = {"reason": "arguments_invalid", "message": "to: wrong", "job_id": job_id}
        where: dict[str, Any] = {"topic": QUEUE, "partition": queue_partition, "offset": offset}
        return self.bury(orjson.dumps(a_record(job_id, **fields)), letter_partition=partition, **told, **where)

    def queued(self, worker: str = WORKER) -> list[dict[str, Any]]:
        """The job records in a worker's queue."""
        return [orjson.loads(record.value or b"") for record in self.cluster.topic_records(TOPICS.jobs_name(worker))]


def a_record(job_id: str, **fields: Any) -> dict[str, Any]:
    """A job record on the wire."""
    return {
        "schemaVersion": 1,
        "id": job_id,
        "tenant": "default",
        "workerName": WORKER,
        "createdAt": "2026-03-02T09:30:00.000Z",
        "args": {"to": ["ann"]},
        "ctx": {"userId": "ann", "own": 1},
        **fields,
    }


def letter_settings(folder: Path) -> Settings:
    return load_settings(bootstrap_servers="memory:9092", namespace=NAMESPACE, data_directory=folder)


async def letters_of(client: Client, **wanted: Any) -> list[DeadLetter]:
    """All letters that fit, in the order of the log."""
    return [letter async for letter in client.dead_letters(**wanted)]
