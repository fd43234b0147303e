"""What a new owner learns of a job partition from its part of `job-state`, before it dispatches anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from headrace.core.ownership import PartitionLedger, Version, supersedes
from headrace.core.records import SnapshotHeaders
from headrace.core.status import TERMINAL

SnapshotT = TypeVar("SnapshotT")


@dataclass(frozen=True, slots=True)
class Known(Generic[SnapshotT]):
    """The newest valid snapshot of a job: its version, its status, and the snapshot itself where the job has not ended.

    Attributes:
        job_id: the job's id. An offset alone would take a new job for an old one where the queue was deleted and made anew.
    """

    version: Version
    status: str
    snapshot: SnapshotT | None
    job_id: bytes


@dataclass(slots=True)
class PartitionRecovery(Generic[SnapshotT]):
    """Folds the records of one job partition, in the order of the log, into what has ended and what was begun.

    Jobs are told apart by the offset of their job record, which is unique even where two records carry one id. What lies below
    the watermark has ended, and is not remembered.

    Attributes:
        watermark: offset below which all jobs have ended.
        ledger: the claims read so far.
        jobs: by the offset of the job's record.
    """

    worker: str
    partition: int
    watermark: int
    ledger: PartitionLedger = field(default_factory=PartitionLedger)
    jobs: dict[int, Known[SnapshotT]] = field(default_factory=dict)

    def claim(self, offset: int, previous: int, instance_id: str) -> bool:
        """Takes in a claim of this partition; tells whether it is valid."""
        return self.ledger.claim(offset, previous, instance_id)

    def snapshot(self, headers: SnapshotHeaders, job_id: bytes, snapshot: SnapshotT | None) -> bool:
        """Takes in a snapshot of a job of this partition; tells whether it counts (rules F1 and F2)."""
        if headers.offset < self.watermark or self.ledger.is_void(headers.version.epoch):
            return False
        known = self.jobs.get(headers.offset)
        if known is not None and not supersedes(headers.version, known.version, known.status):
            return False
        kept = None if headers.status in TERMINAL else snapshot
        self.jobs[headers.offset] = Known(headers.version, headers.status, kept, job_id)
        return True

    def finished(self) -> dict[int, bytes]:
        """The jobs at or above the watermark that have ended: their ids, by offset."""
        return {offset: known.job_id for offset, known in self.jobs.items() if known.status in TERMINAL}

    def begun(self) -> dict[int, Known[SnapshotT]]:
        """The jobs that were begun and have not ended, by offset: their next attempt has a higher number."""
        return {offset: known for offset, known in self.jobs.items() if known.status not in TERMINAL}
