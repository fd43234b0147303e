"""What a former owner has left in the log of a job partition, record for record as an engine writes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import orjson

from headrace.bench.workload import NoOp, Workload, job_record
from headrace.codec import encode
from headrace.core import snapshots
from headrace.core.checkpoint import Pointer, format_pointer
from headrace.core.identifiers import fresh_id
from headrace.core.ownership import NO_OFFSET
from headrace.core.partitions import state_partition
from headrace.core.records import checkpoint_key, lease_key, source_header, status_header, version_header
from headrace.core.snapshots import Snapshot, Writer, version_of
from headrace.core.timestamps import format_timestamp
from headrace.errors import BrokerError
from headrace.models import CheckpointRecord, ClaimRecord, ReleaseRecord
from headrace.ports import Acknowledged, AppendFailed, Committed, GroupListener, LogWriter, NewRecord, TopicPartition

_AT_ONCE: Final = 5_000
_PATIENCE_SECONDS: Final = 120.0
_INSTANCE: Final = fresh_id(0, b"a former  ")


@dataclass(frozen=True, slots=True)
class Tail:
    """The records of `job-state` that a successor reads: from `first` on, up to `end`."""

    partition: TopicPartition
    first: int
    end: int


async def write_tail(workload: Workload, records: int) -> Tail:
    """Of the no-op worker's partition 0: a checkpoint that the commit names, and so many records after it.

    They tell of half as many jobs that were started and completed. One more job waits behind them. The owner is gone, and its
    partition released.
    """
    log, queue = workload.log, TopicPartition(workload.queue, 0)
    number = state_partition(NoOp.name, 0, await log.partition_count(workload.topics.job_state.name))
    state = TopicPartition(workload.topics.job_state.name, number)
    jobs = [job_record() for _ in range(records // 2)]
    writer = log.writer()
    await writer.start()
    try:
        await _write(writer, queue, [*jobs, job_record(kind="waiting")])
        epoch = (await _append(writer, state, lease_key(NoOp.name, 0, _INSTANCE), _claim())).offset
        covers = epoch + 1
        first = (await _append(writer, state, checkpoint_key(NoOp.name, 0, _INSTANCE), _checkpoint(epoch, covers))).offset
        await _write(writer, state, _snapshots(workload.queue, jobs, Writer(_INSTANCE, epoch)))
        last = (await _append(writer, state, lease_key(NoOp.name, 0, _INSTANCE), _release(epoch))).offset
    finally:
        await writer.stop(timeout=10)
    await _commit(workload, queue, Committed(0, format_pointer(Pointer(epoch, covers))))
    return Tail(state, first, last + 1)


def _claim() -> bytes:
    return encode(ClaimRecord(worker_name=NoOp.name, partition=0, instance_id=_INSTANCE, previous=NO_OFFSET))


def _checkpoint(epoch: int, covers: int) -> bytes:
    return encode(
        CheckpointRecord(
            worker_name=NoOp.name,
            partition=0,
            instance_id=_INSTANCE,
            epoch=epoch,
            covers=covers,
            watermark=0,
            ranges=[],
            begun=[],
        )
    )


def _release(epoch: int) -> bytes:
    return encode(ReleaseRecord(worker_name=NoOp.name, partition=0, instance_id=_INSTANCE, epoch=epoch, reason="stopped"))


def _snapshots(queue: str, jobs: Iterable[NewRecord], writer: Writer) -> Iterable[NewRecord]:
    """Two of each job, whose record stands at the offset of its number."""
    now = format_timestamp(time.time_ns() // 1_000_000)
    for offset, job in enumerate(jobs):
        before = snapshots.queued(orjson.loads(job.value or b""), {"topic": queue, "partition": 0, "offset": offset})
        begun = snapshots.running(before, writer, now)
        yield _snapshot(job, offset, begun)
        yield _snapshot(job, offset, snapshots.completed(begun, None, now))


def _snapshot(job: NewRecord, offset: int, snapshot: Snapshot) -> NewRecord:
    headers = (source_header(NoOp.name, 0, offset), version_header(version_of(snapshot)), status_header(snapshot["status"]))
    return NewRecord(job.key, orjson.dumps(snapshot), headers)


async def _append(writer: LogWriter, target: TopicPartition, key: bytes, value: bytes) -> Acknowledged:
    return await writer.append(target, NewRecord(key, value), timeout=_PATIENCE_SECONDS)


async def _write(writer: LogWriter, target: TopicPartition, records: Iterable[NewRecord]) -> None:
    remaining = iter(records)
    while chunk := [(target, record) for record in islice(remaining, _AT_ONCE)]:
        for outcome in await writer.append_all(chunk, timeout=_PATIENCE_SECONDS):
            if isinstance(outcome, AppendFailed):
                raise BrokerError(f"What is to be recovered could not be written: {outcome.reason}")


async def _commit(workload: Workload, queue: TopicPartition, committed: Committed) -> None:
    """Commits as a member of the worker's group, which it leaves at once."""
    assigned = asyncio.Event()

    async def revoked(_: Collection[TopicPartition]) -> None:
        """It is alone in the group."""

    listener = GroupListener(lambda _: assigned.set(), revoked)
    member = workload.log.group_consumer(workload.queue, workload.topics.group(NoOp.name), listener)
    await member.start()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await assigned.wait()
        if not await member.commit({queue: committed}):
            raise BrokerError("What is to be recovered could not be committed.")
    finally:
        await member.stop(timeout=5)
