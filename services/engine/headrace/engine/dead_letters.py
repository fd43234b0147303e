"""What cannot be done is kept: the original bytes, with the reason in the headers."""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.partitions import key_partition
from headrace.core.topics import DEAD_LETTER_PARTITIONS
from headrace.engine.admission import NotAdmitted
from headrace.models import DeadLetterHeaders
from headrace.ports import LogWriter, NewRecord, Outcome, Record, TopicPartition

_LARGEST_VALUE_BYTES = 1_900_000


class DeadLetters:
    """Writes records to `dead-letters`."""

    def __init__(self, writer: LogWriter, topic: str, instance_id: str) -> None:
        self._writer = writer
        self._topic = topic
        self._instance_id = instance_id

    def submit(self, record: Record, worker: str, refusal: NotAdmitted, done: Callable[[Outcome], None]) -> None:
        """Hands over a record that was not admitted; `done` is called when its fate is known."""
        job_id = refusal.work.record["id"] if refusal.work else None
        described = DeadLetterHeaders(
            reason=refusal.reason,
            message=refusal.message,
            error_type=refusal.error_type,
            attempt=refusal.work.state.fields["attempt"] if refusal.work else 0,
            worker_name=worker,
            job_id=job_id,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            instance_id=self._instance_id,
        )
        headers = [(name, value.encode(errors="replace")) for name, value in described.to_wire().items()]
        value = record.value
        if value is not None and len(value) > _LARGEST_VALUE_BYTES:
            # With the headers it would be over what the topic takes: the beginning is better than nothing.
            headers.append(("headrace-cut-from-bytes", str(len(value)).encode()))
            value = value[:_LARGEST_VALUE_BYTES]
        key = record.key if record.key is not None else b""
        partition = key_partition(job_id or key.decode(errors="replace"), DEAD_LETTER_PARTITIONS)
        target = TopicPartition(self._topic, partition)
        self._writer.submit(target, [NewRecord(key, value, [*record.headers, *headers])], done)
