"""Which part of the log a span of time is, by the log's own index of times; and whether all of it is still there."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing
from typing import Final

from headrace.core.timestamps import format_timestamp
from headrace.errors import HistoryGone
from headrace.ports import LogReader, TopicPartition
from headrace.reading import batches_between
from headrace.replay.history import Span
from headrace.replay.layout import Bounds

SLACK_MILLISECONDS: Final = 60_000
"""How much later a record may stand in its partition than one with a later time: the times of job records are their writers'."""
ALL_TIME: Final = Span(0, 1 << 62)


async def bounds_of(reader: LogReader, queues: Collection[TopicPartition], span: Span) -> Bounds:
    """The offsets among which all records of the span stand, and some others; without the partitions that have none."""
    firsts = await since(reader, queues, span.start)
    ends = await until(reader, queues, span.end + SLACK_MILLISECONDS)
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


async def check_is_left(reader: LogReader, queues: Collection[TopicPartition], span: Span, whose: str) -> None:
    """Raises HistoryGone where the span begins before what is left of the log, or ends before its first record.

    What was deleted of one partition alone, while older records are left in others, is not seen here.

    Args:
        whose: the queues in words.
    """
    starts, ends = await since(reader, queues, 0), await until(reader, queues, span.end)
    cut = any(starts.values())
    if not cut and any(starts[queue] < ends[queue] for queue in queues):
        return
    times = await _first_times(reader, queues)
    if not times:
        deleted = " any more" if cut else ""
        raise HistoryGone(f"No job {whose} is in the log{deleted}.")
    left = min(times)
    if span.end <= left or (cut and span.start < left):
        raise HistoryGone(span_gone(span, left, whose))


def span_gone(span: Span, left: int, whose: str) -> str:
    """What is said of a span that begins before the first record, whose time is `left`."""
    return (
        f"The span begins at {format_timestamp(span.start)}, and the first job {whose} that is in the log was accepted at "
        f"{format_timestamp(left)}: begin there."
    )


async def _first_times(reader: LogReader, queues: Collection[TopicPartition]) -> list[int]:
    """The times of the first records of the partitions that have any."""
    if not queues:
        return []
    firsts, ends = await reader.start_offsets(queues), await reader.end_offsets(queues)
    bounds = {queue: (firsts[queue], ends[queue]) for queue in queues if firsts[queue] < ends[queue]}
    times = []
    async with aclosing(batches_between(reader, bounds)) as batches:
        async for queue, records in batches:
            times.append(records[0].timestamp)
            del bounds[queue]
    return times
