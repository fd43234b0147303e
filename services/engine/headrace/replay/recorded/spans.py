"""Which part of the log a span of time is, by the log's own index of times."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from headrace.ports import LogReader, TopicPartition
from headrace.replay.history import Span
from headrace.replay.recorded.layout import Bounds

AHEAD_MILLISECONDS: Final = 3_600_000
"""How far a record's time may be ahead: it is its writer's, and brokers refuse what is beyond, unless told otherwise."""
BEHIND_MILLISECONDS: Final = 3_600_000
"""How far a record's time may be behind and it is found all the same: nothing refuses one that is further behind."""
ALL_TIME: Final = Span(0, 1 << 62)


async def bounds_of(
    reader: LogReader,
    queues: Collection[TopicPartition],
    span: Span,
    *,
    apart: int = AHEAD_MILLISECONDS + BEHIND_MILLISECONDS,
) -> Bounds:
    """The offsets among which all records of the span stand, and some others; without the partitions that have none.

    Args:
        apart: by how much the clocks of two writers may differ, in milliseconds: so much later than the span may be what stands
            before a record of it.
    """
    firsts = await since(reader, queues, span.start)
    ends = await until(reader, queues, span.end + apart)
    return {queue: (firsts[queue], ends[queue]) for queue in queues if firsts[queue] < ends[queue]}


async def since(reader: LogReader, partitions: Collection[TopicPartition], at: int) -> dict[TopicPartition, int]:
    """An offset in each partition below which all records are older than a time: of the first that is not, if known."""
    if not partitions:
        return {}
    starts = await reader.start_offsets(partitions)
    if at <= 0:
        return dict(starts)
    ends = await until(reader, partitions, ALL_TIME.end)
    if at >= ALL_TIME.end:
        return ends
    found = await reader.offsets_since(partitions, at)
    # Where something was deleted, the end is no answer; see `LogReader.offsets_since`.
    return {each: starts[each] if starts[each] and found[each] >= ends[each] else found[each] for each in partitions}


async def until(reader: LogReader, partitions: Collection[TopicPartition], at: int) -> dict[TopicPartition, int]:
    """An offset in each partition from which on no record stands before the first that is not older than a time."""
    if not partitions:
        return {}
    if at >= ALL_TIME.end:
        return dict(await reader.end_offsets(partitions))
    return dict(await reader.offsets_since(partitions, at))
