"""Reading a part of the log once, to its end: what commands and calls do that follow nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from headrace.errors import BrokerUnreachable
from headrace.ports import Log, LogReader, Record, TopicPartition, UnplacedRecord

RecordT = TypeVar("RecordT", bound=UnplacedRecord)

FETCH_SECONDS = 0.25
SILENCE_SECONDS = 30.0
"""How long a reader waits for a next record that must be there."""


async def records_of(log: Log, topic: str) -> AsyncGenerator[Record]:
    """The records that a topic has at the time of the call, in the order of the log within each partition.

    Raises:
        BrokerError: the brokers cannot be reached, or give nothing for 30 s.
        TopicMissing: there is no such topic.
    """
    reader = log.reader()
    try:
        await reader.start()
        count = await reader.partitions(topic)
        wanted = [TopicPartition(topic, number) for number in range(count)]
        starts, ends = await reader.start_offsets(wanted), await reader.end_offsets(wanted)
        bounds = {each: (starts[each], ends[each]) for each in wanted if starts[each] < ends[each]}
        async for record in records_between(reader, bounds):
            yield record
    finally:
        await reader.stop()


async def record_at(log: Log, place: TopicPartition, offset: int) -> Record | None:
    """The record at an offset, or None where there is none, or none any more. Raises as `records_of`."""
    reader = log.reader()
    try:
        await reader.start()
        if not 0 <= place.partition < await reader.partitions(place.topic):
            return None
        starts, ends = await reader.start_offsets([place]), await reader.end_offsets([place])
        if not starts[place] <= offset < ends[place]:
            return None
        async for record in records_between(reader, {place: (offset, offset + 1)}):
            return record
        return None
    finally:
        await reader.stop()


async def records_between(reader: LogReader, bounds: Mapping[TopicPartition, tuple[int, int]]) -> AsyncGenerator[Record]:
    """The records of partitions from the first offset on and below the second, which the log has reached. Raises BrokerError."""
    async with aclosing(batches_between(reader, dict(bounds))) as batches:
        async for _, records in batches:
            for record in records:
                yield record


def batches_between(
    reader: LogReader, bounds: MutableMapping[TopicPartition, tuple[int, int]]
) -> AsyncGenerator[tuple[TopicPartition, Sequence[Record]]]:
    """The records of partitions from the first offset on and below the second, which the log has reached, as they come.

    Args:
        reader: started; what it read before is forgotten.
        bounds: each partition is taken out of it when it was read to its end. Whoever takes one out is given no more of it.

    Raises:
        BrokerError: the brokers cannot be reached, or give nothing for 30 s.
        TopicMissing: a topic does not exist.
    """
    return _batches(reader, bounds, partial(reader.fetch, timeout=FETCH_SECONDS))


def unplaced_between(
    reader: LogReader, bounds: MutableMapping[TopicPartition, tuple[int, int]]
) -> AsyncGenerator[tuple[TopicPartition, Sequence[UnplacedRecord]]]:
    """As `batches_between`, with records that may come without their place; see `LogReader.fetch_unplaced`."""
    return _batches(reader, bounds, partial(reader.fetch_unplaced, timeout=FETCH_SECONDS))


async def _batches(
    reader: LogReader,
    bounds: MutableMapping[TopicPartition, tuple[int, int]],
    fetch: Callable[[], Awaitable[Mapping[TopicPartition, Sequence[RecordT]]]],
) -> AsyncGenerator[tuple[TopicPartition, Sequence[RecordT]]]:
    if not bounds:
        return
    ends = {partition: end for partition, (_, end) in bounds.items()}
    await reader.assign({partition: first for partition, (first, _) in bounds.items()}, ends=ends)
    silent, assigned, positions = 0.0, len(bounds), await reader.positions()
    while True:
        for partition in [each for each, (_, end) in bounds.items() if positions[each] >= end]:
            del bounds[partition]
        if not bounds:
            return
        if 2 * len(bounds) <= assigned:
            # Those that somebody took out are not to be fetched all the while.
            await reader.assign({partition: positions[partition] for partition in bounds}, ends=ends)
            assigned = len(bounds)
        batches = await fetch()
        for partition, records in batches.items():
            if partition in bounds and (within := _below(records, bounds[partition][1])):
                yield partition, within
        before, positions = positions, await reader.positions()
        silent = silent + FETCH_SECONDS if positions == before else 0.0
        if silent >= SILENCE_SECONDS:
            topics = ", ".join(sorted({partition.topic for partition in bounds}))
            raise BrokerUnreachable(f"The brokers gave nothing of {topics} for {SILENCE_SECONDS:g} s.")


def _below(records: Sequence[RecordT], end: int) -> Sequence[RecordT]:
    if not records or records[-1].offset < end:
        return records
    return [record for record in records if record.offset < end]
