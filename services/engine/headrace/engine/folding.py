"""What a new owner takes from each record of `job-state` that it reads at a take-over."""

from __future__ import annotations

import logging

import orjson

from headrace.codec import decode, decode_object
from headrace.core.checkpoint import Checkpoint
from headrace.core.identifiers import is_fresh
from headrace.core.ownership import Version
from headrace.core.records import (
    CHECKPOINT_PREFIX,
    LEASE_PREFIX,
    SOURCE_HEADER,
    Removal,
    checkpoint_prefix,
    parse_lease_key,
    parse_removal,
    parse_snapshot_headers,
)
from headrace.core.snapshots import CONTINUED, Snapshot
from headrace.core.status import TERMINAL
from headrace.core.timestamps import parse_timestamp
from headrace.engine.checkpoints import begun_jobs
from headrace.engine.partition import OwnedPartition
from headrace.engine.states import State
from headrace.errors import RecordUndecodable
from headrace.leases import take_lease
from headrace.models import CheckpointRecord
from headrace.ports import Record

_logger = logging.getLogger(__name__)


def fold(record: Record, partition: OwnedPartition, source_prefix: bytes) -> None:
    """Takes one record of `job-state` into what is known of a job partition, if it is about it.

    Args:
        source_prefix: what the source header of the partition's snapshots begins with.
    """
    recovery = partition.recovery
    key = record.key or b""
    if key.startswith(LEASE_PREFIX):
        lease = parse_lease_key(key)
        if lease is None or lease.worker != recovery.worker or lease.partition != recovery.partition:
            return
        try:
            if take_lease(recovery.ledger, record):
                recovery.lease_taken()
        except RecordUndecodable as error:
            _logger.warning("a lease in %s/%d at offset %d was skipped: %s", record.topic, record.partition, record.offset, error)
        return
    if key.startswith(CHECKPOINT_PREFIX):
        if record.value is not None and key.startswith(checkpoint_prefix(recovery.worker, recovery.partition)):
            _take_checkpoint(record, partition)
        return
    for name, value in record.headers:
        if name == SOURCE_HEADER:
            if not (value or b"").startswith(source_prefix):
                return
            if (headers := parse_snapshot_headers(record.headers)) is not None:
                ended = headers.status in TERMINAL and record.value is not None
                recovery.snapshot(headers, key, _end_in(record.value, key) if ended else record.value)
            elif (removal := parse_removal(record.headers)) is not None:
                _remove(record, partition, value, removal)
            return


def _remove(record: Record, partition: OwnedPartition, source: bytes, removal: Removal) -> None:
    try:
        offset = int(source.rpartition(b"/")[2])
    except ValueError:
        _logger.warning(
            "a tombstone in %s/%d at offset %d was skipped: it has no source", record.topic, record.partition, record.offset
        )
    else:
        partition.recovery.remove(offset, removal)


def _end_in(snapshot: bytes | None, key: bytes) -> bytes | None:
    """What is needed still of the last snapshot of a job: of one with a fresh id nothing, and never its arguments or result."""
    if is_fresh(key.decode(errors="replace")):
        return None
    try:
        fields = decode_object(snapshot)
        parse_timestamp(fields["updatedAt"])
        State(fields)
    except (RecordUndecodable, AttributeError, KeyError, TypeError, ValueError):
        return None  # damaged: its headers say that the job has ended, and nothing says when
    return orjson.dumps({name: fields[name] for name in CONTINUED if name in fields})


def _take_checkpoint(record: Record, partition: OwnedPartition) -> None:
    try:
        found = decode(CheckpointRecord, record.value)
        jobs = begun_jobs(found)
    except RecordUndecodable as error:
        _logger.warning("a checkpoint at offset %d was skipped: %s", record.offset, error)
        return
    begun = {job.offset: (job.id, job.state) for job in jobs if not _is_damaged(job.state, job.id, record)}
    partition.recovery.take_checkpoint(Checkpoint(found.epoch, found.covers, found.watermark, found.ranges, begun))


def _is_damaged(state: Snapshot, job_id: str, checkpoint: Record) -> bool:
    """Whether a checkpoint does not really tell how a job stands: then it is as if it told nothing of it."""
    try:
        State(state)
        parse_timestamp(state["updatedAt"])
        if all(isinstance(state[name], int) for name in Version._fields):
            return False
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    _logger.warning("what a checkpoint at offset %d has of job %s was skipped: it is damaged", checkpoint.offset, job_id)
    return True
