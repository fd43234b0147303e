"""What has ended long ago goes: first its record in the queue, and then its snapshots (rules J3 and J2)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import aclosing

from headrace.core.janitor import JobPartition, KeyRemoved, is_gone
from headrace.core.records import CHECKPOINT_PREFIX, LEASE_PREFIX, Removal, parse_snapshot_headers
from headrace.core.topics import Topics
from headrace.errors import TopicMissing
from headrace.ports import Log, LogReader, Record, TopicPartition
from headrace.reading import batches_between

_logger = logging.getLogger(__name__)


async def delete_ended(
    log: Log, reader: LogReader, topics: Topics, partitions: Collection[JobPartition], older_than: int
) -> dict[JobPartition, int]:
    """Deletes the job records that are both below the watermark and older than a time; returns where the queues begin then.

    Times are in milliseconds since the Unix epoch.
    The watermark is what the group has committed, and so is below every job that has not ended (K3). A worker whose queue does
    not exist is left out.

    Raises:
        BrokerError: the brokers do not answer, or do not let this client delete.
    """
    by_worker: dict[str, list[int]] = defaultdict(list)
    for worker, number in partitions:
        by_worker[worker].append(number)
    starts: dict[JobPartition, int] = {}
    for worker, numbers in sorted(by_worker.items()):
        try:
            starts |= await _delete_of(log, reader, topics, worker, numbers, older_than)
        except TopicMissing:
            continue
    return starts


async def _delete_of(
    log: Log, reader: LogReader, topics: Topics, worker: str, numbers: Collection[int], older_than: int
) -> dict[JobPartition, int]:
    topic = topics.jobs_name(worker)
    count = await log.partition_count(topic)
    queue = [TopicPartition(topic, number) for number in sorted(numbers) if number < count]
    committed = await log.committed_offsets(topics.group(worker))
    starts, ends = await reader.start_offsets(queue), await reader.end_offsets(queue)
    since = dict(await reader.offsets_since(queue, older_than))
    # Where something was deleted before, the end is no answer; see `LogReader.offsets_since`.
    doubtful = {
        partition: (starts[partition], min(committed.get(partition, 0), ends[partition]))
        for partition in queue
        if starts[partition] and since[partition] >= ends[partition]
    }
    since |= await _looked_up(reader, doubtful, older_than)
    gone = {
        partition: before
        for partition in queue
        # Above the end: the queue was deleted and made anew, and what was committed is of one that is gone.
        if (watermark := committed.get(partition, 0)) <= ends[partition]
        and (before := min(watermark, since[partition])) > starts[partition]
    }
    if gone:
        await log.delete_records(gone)
        starts = await reader.start_offsets(queue)
        _logger.info("%d partitions of %s were cleared of jobs that ended long ago", len(gone), topic)
    return {(worker, partition.partition): starts[partition] for partition in queue}


async def _looked_up(
    reader: LogReader, bounds: Mapping[TopicPartition, tuple[int, int]], older_than: int
) -> dict[TopicPartition, int]:
    """The first record of each partition within its bounds that is not older than a time, or its bound, by reading."""
    found = {partition: end for partition, (_, end) in bounds.items()}
    remaining = {partition: (first, end) for partition, (first, end) in bounds.items() if first < end}
    if not remaining:
        return found
    async with aclosing(batches_between(reader, remaining)) as batches:
        async for partition, records in batches:
            young = next((record.offset for record in records if record.timestamp >= older_than), None)
            if young is not None:
                found[partition] = young
                del remaining[partition]
    await reader.assign({})
    return found


def removals_of(records: Iterable[Record], starts: Mapping[JobPartition, int]) -> list[KeyRemoved]:
    """The tombstones for those of the records that are snapshots of jobs whose records are deleted."""
    removed = []
    for record in records:
        key = record.key or b""
        if record.value is None or key.startswith((LEASE_PREFIX, CHECKPOINT_PREFIX)):
            continue
        headers = parse_snapshot_headers(record.headers)
        if headers is not None and is_gone(headers, starts):
            removed.append(KeyRemoved(key, Removal("ended", headers.version), headers[:3]))
    return removed
