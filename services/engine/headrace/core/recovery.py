"""What a new owner learns of a job partition from its part of `job-state`, before it dispatches anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from headrace.core.checkpoint import Checkpoint, Pointer
from headrace.core.identifiers import is_fresh
from headrace.core.ownership import PartitionLedger, Version, supersedes
from headrace.core.records import Removal, SnapshotHeaders
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.watermark import Watermark

SnapshotT = TypeVar("SnapshotT")


@dataclass(frozen=True, slots=True)
class Known(Generic[SnapshotT]):
    """The newest valid snapshot of a job: its version, its status, and the snapshot itself where it is needed still: where the
    job has not ended, or has an id that is not fresh.

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
        pointer: where the reading begins, if not at the log's start; then a checkpoint must be met on the way.
        ledger: the claims read so far.
        jobs: by the offset of the job's record.
        checkpoint: the last valid one that was met.
        died: the epochs whose holder's process was seen to die (rule X1).
    """

    worker: str
    partition: int
    watermark: int
    pointer: Pointer | None = None
    ledger: PartitionLedger = field(default_factory=PartitionLedger)
    jobs: dict[int, Known[SnapshotT]] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    died: set[int] = field(default_factory=set)
    _ended: Watermark = field(default_factory=lambda: Watermark(0))

    def __post_init__(self) -> None:
        if self.pointer is not None:
            # Its claim stands before the place where the reading begins, and what is older than that is void (rule F1).
            self.ledger.epoch = self.ledger.previous = self.pointer.epoch
            self.ledger.last_lease = self.pointer.covers - 1

    @property
    def begins_at(self) -> int:
        """Where in `job-state` the reading begins."""
        return 0 if self.pointer is None else self.pointer.covers

    def from_the_start(self) -> PartitionRecovery[SnapshotT]:
        """The same partition, of which nothing has been read, without any checkpoint."""
        return PartitionRecovery(self.worker, self.partition, self.watermark)

    @property
    def is_complete(self) -> bool:
        """Whether all that was read tells everything: not so where the checkpoint is missing that makes up for the rest."""
        return self.pointer is None or self.checkpoint is not None

    def take_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Takes in a checkpoint in place of all that it covers; tells whether it counts.

        One is taken only if the group's commit points to one: without a commit of this queue, they may be of another that was
        deleted.
        """
        if self.pointer is None or self.ledger.is_void(checkpoint.epoch):
            return False
        self.checkpoint = checkpoint
        self.watermark = max(self.watermark, checkpoint.watermark)
        self._ended = checkpoint.finished()
        self.jobs = {
            offset: known
            for offset, known in self.jobs.items()
            if not self._ended.is_finished(offset) and not self._knows_better(offset, known.version, known.status)
        }
        return True

    def lease_taken(self) -> None:
        """The ledger has just taken in a valid record."""
        if self.ledger.died:
            self.died.add(self.ledger.epoch)

    def _knows_better(self, offset: int, version: Version, status: str) -> bool:
        """Whether the checkpoint has a newer state of a job: a repeat may come long after what it repeats was outdone.

        Of a job that runs it knows more than the snapshot of the same version, too: a death that came after that (rule X1).
        """
        begun = self.checkpoint.begun.get(offset) if self.checkpoint else None
        if begun is None:
            return False
        told = Version(*(begun[1].get(name, -1) for name in Version._fields))
        return told > version or (told == version and status == JobStatus.RUNNING)

    def snapshot(self, headers: SnapshotHeaders, job_id: bytes, snapshot: SnapshotT | None) -> bool:
        """Takes in a snapshot of a job of this partition; tells whether it counts (rules F1, F2 and J1)."""
        offset = headers.offset
        if offset < self.watermark or self._ended.is_finished(offset):
            return False
        if headers.repeated and self._knows_better(offset, headers.version, headers.status):
            return False
        if not headers.repeated and self.ledger.is_void(headers.version.epoch):
            return False
        known = self.jobs.get(offset)
        if known is not None and not supersedes(headers.version, known.version, known.status, headers.outdone):
            return False
        kept = None if headers.status in TERMINAL and is_fresh(job_id.decode(errors="replace")) else snapshot
        self.jobs[offset] = Known(headers.version, headers.status, kept, job_id)
        return True

    def remove(self, offset: int, removal: Removal) -> None:
        """Takes in a tombstone of a job: what stood there counted for nothing, also if that is told by nothing else any more.

        One that says that the job has ended, and its record is gone, is nothing to recovery: that record lay below the watermark.
        """
        known = self.jobs.get(offset)
        if removal.reason == "void" and known is not None and known.version <= removal.version:
            del self.jobs[offset]

    def finished_ranges(self) -> Sequence[tuple[int, int]]:
        """What has ended by the checkpoint, above its watermark, as (first, last)."""
        return self.checkpoint.ranges if self.checkpoint else ()

    def finished(self) -> dict[int, bytes]:
        """The other jobs at or above the watermark that have ended: their ids, by offset."""
        return {offset: known.job_id for offset, known in self.jobs.items() if known.status in TERMINAL}

    def untold(self) -> dict[int, Begun[SnapshotT]]:
        """Those that ended and whose ids are not fresh: nothing here says that `ended-keys` has them (rule K3)."""
        untold = {offset: begun for offset, begun in self._of_checkpoint() if _has_ended(begun)}
        for offset, known in self.jobs.items():
            if known.status in TERMINAL and known.snapshot is not None:
                untold[offset] = Begun(known.job_id, known.snapshot, None)
        return untold

    def begun(self) -> dict[int, Begun[SnapshotT]]:
        """The jobs that were begun and have not ended, by offset: their next attempt has a higher number.

        Whether the process died in which the last attempt ran follows from the log alone (rule X1): the attempt is left as
        running, and a release of its epoch says so. A checkpoint says the same of those epochs alone that are older than its own:
        whoever wrote it knew of those deaths, and counted them in.
        """
        begun = {offset: begun for offset, begun in self._of_checkpoint() if not _has_ended(begun)}
        for offset, known in self.jobs.items():
            if known.status not in TERMINAL:
                begun[offset] = Begun(known.job_id, known.snapshot, None, self._died(known.version.epoch, known.status))
        return begun

    def _died(self, epoch: int, status: str | None) -> bool:
        return status == JobStatus.RUNNING and epoch in self.died

    def _of_checkpoint(self) -> Iterator[tuple[int, Begun[SnapshotT]]]:
        """What the checkpoint has of single jobs, by offset, where nothing newer was read."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            return
        for offset, (job_id, fields) in checkpoint.begun.items():
            if offset >= self.watermark and offset not in self.jobs:
                epoch = fields.get("epoch")
                died = epoch == checkpoint.epoch and self._died(checkpoint.epoch, fields.get("status"))
                yield offset, Begun(job_id.encode(), None, fields, died)


@dataclass(frozen=True, slots=True)
class Begun(Generic[SnapshotT]):
    """A job that a former owner has begun, and may have ended: its last snapshot, or what the checkpoint has of it.

    Attributes:
        died: whether the process died in which it ran, after what is said here of it.
    """

    job_id: bytes
    snapshot: SnapshotT | None
    fields: Mapping[str, Any] | None
    died: bool = False


def _has_ended(job: Begun[Any]) -> bool:
    return job.fields is not None and job.fields.get("status") in TERMINAL
