"""One partition of `job-state` in the janitor's hands: what it reads there, and the records that it writes there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from headrace.codec import decode_object, encode
from headrace.core.janitor import Inquiry, JobPartition, Keeper, KeyRemoved, LeaseRead, LeaseRepeated, Winner
from headrace.core.ownership import NO_OFFSET, PartitionLedger
from headrace.core.records import (
    CHECKPOINT_PREFIX,
    LEASE_PREFIX,
    REPEAT_HEADER,
    lease_key,
    parse_checkpoint_key,
    parse_lease_key,
    parse_removal,
    parse_snapshot_headers,
    removal_header,
    repeat_header,
    source_header,
)
from headrace.errors import RecordUndecodable
from headrace.leases import take_lease
from headrace.models import LeaseRepeat
from headrace.ports import NewRecord, Record

_KINDS = frozenset({"claim", "renewal", "release", "repeat"})


def read_into(keeper: Keeper, records: Iterable[Record], written_at: Callable[[Record], float]) -> None:
    """Takes records into what the janitor knows, in their order; `written_at` says when each was, in seconds by its clock."""
    for record in records:
        key, at = record.key or b"", written_at(record)
        if key.startswith(LEASE_PREFIX):
            if (found := _read_lease(key, record, keeper.ledger)) is not None:
                partition, read = found
                keeper.lease(partition, key, read, at)
        elif key.startswith(CHECKPOINT_PREFIX):
            if (about := parse_checkpoint_key(key)) is not None:
                keeper.checkpoint((about.worker, about.partition), key, _epoch_of(record), at)
        elif record.value is None:
            keeper.tombstone(key, parse_removal(record.headers), at)
        elif (headers := parse_snapshot_headers(record.headers)) is not None:
            keeper.snapshot(key, headers, at)


def inquire_into(inquiry: Inquiry[Record], records: Iterable[Record]) -> None:
    """Takes records into an inquiry, in their order."""
    for record in records:
        key = record.key or b""
        if key.startswith(LEASE_PREFIX):
            if (found := _read_lease(key, record, inquiry.ledger)) is not None:
                inquiry.lease(found[0], key, found[1])
        elif key in inquiry.keys:
            if record.value is None:
                inquiry.tombstone(key, parse_removal(record.headers))
            elif (headers := parse_snapshot_headers(record.headers)) is not None:
                inquiry.snapshot(key, headers, record)


def _read_lease(
    key: bytes, record: Record, ledger_of: Callable[[JobPartition], PartitionLedger]
) -> tuple[JobPartition, LeaseRead] | None:
    """Takes a lease record into its ledger: whose it is, and what.

    None for a record of a later version, which is nobody's to remove.
    """
    about = parse_lease_key(key)
    if about is None:
        return None
    partition = about.worker, about.partition
    if record.value is None:
        return partition, LeaseRead(None)
    ledger = ledger_of(partition)
    try:
        raw = decode_object(record.value)
        if raw.get("kind") not in _KINDS:
            return None
        take_lease(ledger, record)
    except RecordUndecodable:
        return partition, LeaseRead(NO_OFFSET)
    if ledger.last_lease == record.offset:
        return partition, LeaseRead(record.offset)
    if raw["kind"] == "claim":
        return partition, LeaseRead(NO_OFFSET, raw["previous"])
    repeats = raw["kind"] == "repeat" and raw["epoch"] == ledger.epoch
    return partition, LeaseRead(raw["lastLease"] if repeats else NO_OFFSET)


def _epoch_of(checkpoint: Record) -> int | None:
    """The epoch of a checkpoint, -1 for a damaged one; None for a tombstone."""
    if checkpoint.value is None:
        return None
    try:
        epoch = decode_object(checkpoint.value).get("epoch")
    except RecordUndecodable:
        return NO_OFFSET
    return epoch if isinstance(epoch, int) else NO_OFFSET


def removal_of(due: KeyRemoved) -> NewRecord:
    """The tombstone; that of a job says what it removes."""
    if due.of is None or due.removal is None:
        return NewRecord(due.key, None)
    return NewRecord(due.key, None, (source_header(*due.of), removal_header(due.removal)))


def record_of(due: LeaseRepeated | KeyRemoved, as_of: int) -> NewRecord:
    """The record by which it is done.

    Args:
        as_of: the offset up to which was read what this goes by.
    """
    if isinstance(due, KeyRemoved):
        return removal_of(due)
    (worker, number), ledger = due.partition, due.ledger
    assert ledger.holder is not None
    repeat = LeaseRepeat(
        worker_name=worker,
        partition=number,
        instance_id=ledger.holder,
        epoch=ledger.epoch,
        last_lease=ledger.last_lease,
        previous=ledger.previous,
        as_of=as_of,
        held_at=ledger.held_at,
        term_seconds=ledger.term_seconds,
        released=ledger.released,
        died=ledger.died,
    )
    return NewRecord(lease_key(worker, number, ledger.holder), encode(repeat))


def repeats_of(winners: Mapping[bytes, Winner[Record]]) -> Sequence[NewRecord]:
    """The records by which snapshots are written again, marked, with the version that they had."""
    repeats = []
    for key, (record, _, outdone) in winners.items():
        headers = [each for each in record.headers if each[0] != REPEAT_HEADER]
        repeats.append(NewRecord(key, record.value, [*headers, repeat_header(outdone)]))
    return repeats
