"""What cannot be done is kept: the original bytes, with the reason in the headers."""

from __future__ import annotations

from collections.abc import Callable

from headrace.dead_letters.writing import letter_of
from headrace.engine.admission import NotAdmitted
from headrace.models import DeadLetterHeaders
from headrace.ports import LogWriter, Outcome, Record


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
        target, letter = letter_of(record, described, self._topic)
        self._writer.submit(target, [letter], done)
