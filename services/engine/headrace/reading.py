"""Reading a part of the log once, to its end: what commands and calls do that follow nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from headrace.errors import BrokerUnreachable
from headrace.ports import Log, LogReader, Record, TopicPartition

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
    if not bounds:
        return
    await reader.assign({partition: first for partition, (first, _) in bounds.items()})
    silent = 0.0
    positions = await reader.positions()
    while any(positions[partition] < end for partition, (_, end) in bounds.items()):
        batches = await reader.fetch(timeout=FETCH_SECONDS)
        for partition, records in batches.items():
            for record in records:
                if record.offset < bounds[partition][1]:
                    yield record
        before, positions = positions, await reader.positions()
        silent = silent + FETCH_SECONDS if positions == before else 0.0
        if silent >= SILENCE_SECONDS:
            topics = ", ".join(sorted({partition.topic for partition in bounds}))
            raise BrokerUnreachable(f"The brokers gave nothing of {topics} for {SILENCE_SECONDS:g} s.")
