"""What records of `job-state` and of job topics say of jobs: the rules by which every reader of the log sees the same jobs.

All of it runs in the writing thread, in the transaction that also writes how far the log was read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from headrace.codec import decode_object, plain_validator
from headrace.core.ownership import ACCEPTED, PartitionLedger
from headrace.core.records import (
    CHECKPOINT_PREFIX,
    LEASE_PREFIX,
    SnapshotHeaders,
    parse_lease_key,
    parse_removal,
    parse_snapshot_headers,
)
from headrace.core.snapshots import ARGUMENTS_REPEATED_BYTES, queued
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.topics import Topics
from headrace.errors import RecordUndecodable
from headrace.leases import take_lease
from headrace.models import Job, JobRecord
from headrace.ports import Record, TopicPartition
from headrace.views.database import Position, Positions, load_positions, store_positions
from headrace.views.follower import Batch, LogReplaced, Undecodable
from headrace.views.job_rows import STATUS_NUMBERS, JobKey, JobRow, Origin, job_key, row_of
from headrace.views.job_table import Fact, Repeated, write_facts

_QUEUED = STATUS_NUMBERS[JobStatus.QUEUED]
_NO_SNAPSHOT = (LEASE_PREFIX, CHECKPOINT_PREFIX)
_MOST_REMEMBERED = 10_000
"""Records of one partition that are remembered as those of jobs accepted here: a view that is far behind looks at them all."""
_check_record = plain_validator(JobRecord)


class _Snapshot(NamedTuple):
    record: Record
    headers: SnapshotHeaders


class JobProjection:
    """Takes batches into the table. One object for one file; call `forget` whenever a transaction has failed."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._positions: Positions | None = None
        self._ledgers: dict[tuple[str, int], PartitionLedger] = {}
        self._changed: set[tuple[str, int]] = set()
        self._accepted: dict[tuple[str, int], set[int]] = {}
        # The job records of which snapshots of the same batch have all that is known: they need not be looked at.
        self._whole: set[tuple[str, int, int]] = set()
        self.undecodable = Undecodable("jobs")

    def forget(self) -> None:
        """What was learned in a transaction that was rolled back is read from the table again."""
        self._positions = None
        self._accepted.clear()

    def take_in(self, connection: sqlite3.Connection, batch: Batch, accepted: Sequence[Job] = ()) -> Sequence[Fact]:
        """Writes what a batch makes of the rows, the claims it has, and its positions. Records that were read before are nothing.

        Args:
            accepted: jobs that were accepted here, whose rows are written with it.

        Returns what its records, and the accepted jobs, tell of jobs.

        Raises:
            LogReplaced: a record stands where the view has read another one.
        """
        positions = self._load(connection)
        self.remember_accepted(accepted)
        moved: Positions = {}
        unread: dict[TopicPartition, Sequence[Record]] = {}
        for partition, records in batch.records.items():
            fresh = unread[partition] = _unread(records, positions.get(partition, Position(0)))
            if fresh:
                moved[partition] = Position(fresh[-1].offset + 1, fresh[-1].offset, fresh[-1].timestamp)
        facts = self._facts(unread)
        for partition, offset in batch.positions.items():
            known = moved.get(partition) or positions.get(partition, Position(0))
            if offset > known.next:
                moved[partition] = known._replace(next=offset)
        told_whole = {key for key, row in facts if isinstance(row, JobRow)}
        facts += [_accepted_fact(job) for job in accepted if not _is_told(job, told_whole)]
        write_facts(connection, facts)
        self._store_ledgers(connection)
        store_positions(connection, moved)
        positions.update(moved)
        return facts

    def accept(self, connection: sqlite3.Connection, jobs: Iterable[Job]) -> None:
        """Writes jobs that were just accepted, unless there is a row already."""
        write_facts(connection, [_accepted_fact(job) for job in jobs])

    def remember_accepted(self, jobs: Iterable[Job]) -> None:
        """Rows of these jobs are in the table, or will be when the transaction ends, as their records would make them: those need
        not be looked at.

        It may be called in the event loop while the writing thread is at work: no step on a set can be interrupted.
        """
        for job in jobs:
            if (source := job.source) is not None:
                known = self._accepted.setdefault((source.topic, source.partition), set())
                if len(known) >= _MOST_REMEMBERED:
                    known.clear()
                known.add(source.offset)

    def _unknown(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[Record]:
        """The records whose jobs were not accepted here."""
        known = self._accepted.get((partition.topic, partition.partition))
        if not known:
            return records
        unknown = [record for record in records if record.offset not in known]
        known.difference_update([record.offset for record in records])
        return unknown

    def _facts(self, unread: Mapping[TopicPartition, Sequence[Record]]) -> list[Fact]:
        """What records tell of jobs: first that they were accepted, and then what became of them."""
        state = self._topics.job_state.name
        self._whole.clear()
        snapshots = [
            fact for partition, records in unread.items() if partition.topic == state for fact in self._state_facts(records)
        ]
        accepted = [
            fact
            for partition, records in unread.items()
            if (worker := self._topics.worker_of(partition.topic)) is not None
            for fact in self._job_facts(worker, self._unknown(partition, records))
        ]
        return accepted + snapshots

    # --- job-state ---

    def _state_facts(self, records: Iterable[Record]) -> list[Fact]:
        facts: list[Fact] = []
        followed: dict[bytes, list[_Snapshot]] = {}
        for record in records:
            key = record.key or b""
            try:
                if not key.startswith(_NO_SNAPSHOT):
                    self._meet(record, key, followed, facts)
                elif key.startswith(LEASE_PREFIX):
                    self._take_lease(record, key)
            except _UNUSABLE as error:
                self.undecodable.add("damaged job-state", record, _told(error))
        for snapshots in followed.values():
            self._take_newest(snapshots, facts)
        return facts

    def _take_lease(self, record: Record, key: bytes) -> None:
        lease = parse_lease_key(key)
        if lease is None:
            raise RecordUndecodable("its key is not that of a lease")
        about = (lease.worker, lease.partition)
        if take_lease(self._ledgers.setdefault(about, PartitionLedger()), record):
            self._changed.add(about)

    def _meet(self, record: Record, key: bytes, followed: dict[bytes, list[_Snapshot]], facts: list[Fact]) -> None:
        """Looks at a record of a job, and not yet at its value.

        Args:
            followed: by key, snapshots of which each follows the one before: of these only the newest counts.
        """
        if not key:
            raise RecordUndecodable("it has no key")
        if record.value is None:
            removal = parse_removal(record.headers)
            self._take_newest(followed.pop(key, ()), facts)
            facts.append((job_key(key.decode()), None if removal is None else removal.version))
            return
        headers = parse_snapshot_headers(record.headers)
        if headers is None:
            raise RecordUndecodable("the headers of a snapshot are missing or damaged")
        ledger = self._ledgers.get((headers.worker, headers.partition))
        if ledger is not None and not headers.repeated:
            known = ledger.epoch
            if ledger.is_void(headers.version.epoch):
                return
            if ledger.epoch != known:
                self._changed.add((headers.worker, headers.partition))
        before = followed.get(key)
        if before is not None and _follows(headers, before[-1].headers):
            before.append(_Snapshot(record, headers))
        else:
            self._take_newest(before or (), facts)
            followed[key] = [_Snapshot(record, headers)]

    def _take_newest(self, snapshots: Sequence[_Snapshot], facts: list[Fact]) -> None:
        """Takes in the newest that can be."""
        for record, headers in reversed(snapshots):
            try:
                facts.append(self._snapshot(record, headers))
                return
            except _UNUSABLE as error:
                self.undecodable.add("damaged job-state", record, _told(error))

    def _snapshot(self, record: Record, headers: SnapshotHeaders) -> Fact:
        raw = decode_object(record.value)
        if raw.get("id") != (record.key or b"").decode():
            raise RecordUndecodable("its key is not the id of its job")
        origin = Origin(headers.worker, headers.partition, headers.offset)
        if "args" in raw:
            self._whole.add(origin)
        row = row_of(raw, headers.version, STATUS_NUMBERS[headers.status], origin, record.value)
        return row.id, row if headers.outdone is None else Repeated(row, headers.outdone)

    # --- job topics ---

    def _job_facts(self, worker: str, records: Iterable[Record]) -> Iterable[Fact]:
        for record in records:
            if self._whole and (worker, record.partition, record.offset) in self._whole:
                continue
            try:
                row = _accepted_row(worker, record)
            except _UNUSABLE as error:
                self.undecodable.add("damaged job", record, _told(error))
            else:
                yield row.id, row

    # --- what is kept beside the rows ---

    def _load(self, connection: sqlite3.Connection) -> Positions:
        if self._positions is None:
            self._changed.clear()
            self._ledgers = {
                (worker, partition): PartitionLedger(epoch, last_lease, holder, previous, released=bool(released))
                for worker, partition, epoch, last_lease, holder, previous, released in connection.execute(
                    "SELECT worker, partition, epoch, last_lease, holder, previous, released FROM ledgers"
                )
            }
            self._positions = load_positions(connection)
        return self._positions

    def _store_ledgers(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO ledgers VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*about, ledger.epoch, ledger.last_lease, ledger.holder, ledger.previous, ledger.released)
                for about, ledger in ((about, self._ledgers[about]) for about in self._changed)
            ],
        )
        self._changed.clear()


# What a record can be in its values, whoever wrote it; anything else is a fault of this code.
_UNUSABLE = (RecordUndecodable, ValidationError, KeyError, TypeError, ValueError, AttributeError)


def _follows(headers: SnapshotHeaders, before: SnapshotHeaders) -> bool:
    """Whether a valid snapshot that comes after another valid one of the same job leaves nothing of it, whatever stood before.

    It is so within an epoch, where the highest version counts, and nothing after an end; see `supersedes`.
    """
    return (
        headers[:3] == before[:3]
        and headers.version.epoch == before.version.epoch
        and headers.version > before.version
        and before.status not in TERMINAL
        and not (headers.repeated or before.repeated)
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, RecordUndecodable) else str(error)


def _unread(records: Sequence[Record], known: Position) -> Sequence[Record]:
    """The records at or above the position. Those below were read before, and must be the same ones."""
    if not records or records[0].offset >= known.next:
        return records
    for record in records:
        if record.offset == known.last and record.timestamp != known.last_timestamp:
            raise LogReplaced(
                f"another record stands at offset {record.offset} of partition {record.partition} of {record.topic} than was read"
            )
        if record.offset >= known.last:
            break
    return [record for record in records if record.offset >= known.next]


def _is_told(job: Job, told_whole: Set[JobKey]) -> bool:
    """Whether a snapshot has all that is known of an accepted job. Only long arguments are not repeated in one."""
    return job_key(job.id) in told_whole and len(orjson.dumps(job.args)) <= ARGUMENTS_REPEATED_BYTES


def _accepted_fact(job: Job) -> Fact:
    source = job.source
    origin = None if source is None else Origin(job.worker_name, source.partition, source.offset)
    return job_key(job.id), row_of(job.to_wire(), ACCEPTED, STATUS_NUMBERS[job.status], origin)


def _accepted_row(worker: str, record: Record) -> JobRow:
    """The row of a job of which the log has the acceptance, and nothing else as yet."""
    raw = decode_object(record.value)
    _check_record(raw)
    source = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return row_of(queued(raw, source), ACCEPTED, _QUEUED, Origin(worker, record.partition, record.offset))
