"""The table of a view of jobs, filled batch by batch."""

from __future__ import annotations

import sqlite3
from typing import Any

from headrace.ports import TopicPartition
from headrace.testing import StoredRecord
from headrace.views.database import _OWN_TABLES
from headrace.views.follower import Batch
from headrace.views.job_projection import JobProjection
from headrace.views.job_queries import single
from headrace.views.job_rows import SCHEMA, whole
from support.written_jobs import TOPICS


class Table:
    """A table in memory, and the projection that fills it."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in (*_OWN_TABLES, *SCHEMA.statements):
            self.connection.execute(statement)
        self.projection = JobProjection(TOPICS)

    def take(self, *records: StoredRecord) -> None:
        """Takes in one batch."""
        batch: dict[TopicPartition, list[StoredRecord]] = {}
        for record in records:
            batch.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        positions = {partition: some[-1].offset + 1 for partition, some in batch.items()}
        self.connection.execute("BEGIN")
        try:
            self.projection.take_in(self.connection, Batch(batch, positions))
        except BaseException:
            self.connection.execute("ROLLBACK")
            self.projection.forget()
            raise
        self.connection.execute("COMMIT")

    def restart(self) -> None:
        """What a new process knows is what the table has."""
        self.projection = JobProjection(TOPICS)

    def job(self, job_id: str) -> dict[str, Any] | None:
        found = single(self.connection, job_id, "default")
        return None if found is None else whole(*found)

    def statuses(self) -> dict[str, str]:
        keys = [row[0] for row in self.connection.execute("SELECT id FROM jobs")]
        return {key: job["status"] for key in keys if (job := self.job(key)) is not None}

    def everything(self) -> list[tuple[Any, ...]]:
        """All that the table says, without where it happens to stand."""
        columns = "id, status, created, epoch, attempt, sequence, source_key, source_offset, tenant_key, worker_key, user_key,"
        rows = self.connection.execute(f"SELECT {columns} conversation_key, body, arguments, details FROM jobs")
        ledgers = self.connection.execute("SELECT * FROM ledgers")
        positions = self.connection.execute("SELECT * FROM positions")
        return sorted([*rows, *ledgers, *positions], key=repr)
