"""Whether all of a span of time is still in the log, and what is said where it is not."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Final

from headrace.core.timestamps import format_timestamp
from headrace.errors import HistoryGone
from headrace.ports import LogReader, TopicPartition
from headrace.reading import batches_between, unplaced_between
from headrace.replay.history import Span
from headrace.replay.recorded.layout import Layout
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, ALL_TIME, bounds_of, since, until

_NOT_LOOKED_FOR: Final = "Jobs of clients whose clocks are over an hour behind are not looked for."
_SLACK_MILLISECONDS: Final = 3_600_000
"""So long a time that a message tells to begin at is good, though jobs are deleted meanwhile; at most half the retention."""


async def check_is_left(
    reader: LogReader, layout: Layout, span: Span, whose: str, kept_from: int, *, is_moment: bool = False
) -> None:
    """Raises HistoryGone where jobs of the span may have been deleted, or it ends before the log's first record, or is to come.

    Each queue is judged by itself: of one that nobody writes to any more, old jobs are deleted behind young ones of others.

    Args:
        whose: the queues in words.
        kept_from: no job that was accepted from then on was deleted.
        is_moment: it is about how all jobs stand in the span's only millisecond, those that were accepted before, too.
    """
    queues = layout.queues
    starts, ends = await since(reader, queues, 0), await reader.end_offsets(queues)
    if all(starts[queue] >= ends[queue] for queue in queues):
        deleted = " any more" if any(starts.values()) else ""
        raise HistoryGone(f"No job {whose} is in the log{deleted}.")
    cut = [queue for queue in queues if starts[queue]]
    may_be_deleted = bool(cut) and span.start < kept_from
    if may_be_deleted and is_moment:
        raise HistoryGone(_moment_gone(span.start, f"of {layout.worker_of(cut[0])}", kept_from))
    before = await until(reader, queues, span.end)
    if all(starts[queue] >= before[queue] for queue in queues) and (first := await _earliest(reader, queues, span)) is not None:
        if is_moment:
            raise HistoryGone(_moment_before(span.start, first, max(first, _begin_at(kept_from)) if cut else first, whose))
        left = Span(first, max((await _last_times(reader, queues)).values()))
        raise HistoryGone(_all_gone(span, left, whose, kept_from) if may_be_deleted else _span_before(span, left, whose))
    if may_be_deleted:
        _check_cut(layout, cut, await _first_times(reader, cut), span, kept_from)
    # How all stands in a moment is no other than how it stands now; who asks for a later one has the zone wrong.
    tolerated = AHEAD_MILLISECONDS if is_moment else 0
    if span.start > time.time_ns() // 1_000_000 + tolerated:
        # Clocks may be ahead: what stands there all the same is of the span.
        begins = await since(reader, queues, span.start)
        if all(begins[queue] >= ends[queue] for queue in queues):
            last = max((await _last_times(reader, queues)).values())
            raise HistoryGone(_to_come(_moment(span.start) if is_moment else _told(span), last, whose))


def _check_cut(
    layout: Layout, cut: Collection[TopicPartition], firsts: Mapping[TopicPartition, int], span: Span, kept_from: int
) -> None:
    """Raises HistoryGone where a queue of which something was deleted has no older record left than the span's first ones."""
    left = {queue: firsts.get(queue, ALL_TIME.end) for queue in cut}
    latest = max(cut, key=lambda queue: left[queue])
    if left[latest] <= span.start:
        return
    whose = f"of {layout.worker_of(latest)}"
    first, advised = left[latest], _begin_at(kept_from)
    # Where nothing of the span is left in that queue, there is nothing in it to begin at.
    fitting = [at for at in (advised, first) if at < span.end]
    begins = f"was accepted at {format_timestamp(first)}" if latest in firsts else "is still to come"
    if not fitting:
        raise HistoryGone(
            f"The {_told(span)} is gone: jobs {whose} that were accepted before {format_timestamp(min(first, kept_from))} were "
            f"deleted, and the first in one of its partitions {begins}. {_all_there(kept_from)}"
        )
    if first <= kept_from:
        then = f"at {format_timestamp(first)}"
        ways = f"{then}, as long as that job is there"
        if advised in fitting:
            ways = f"at {format_timestamp(advised)}, or as long as that job is there {then}"
        raise HistoryGone(
            f"The span begins at {format_timestamp(span.start)}, and the first job {whose} that is in the log was accepted at "
            f"{format_timestamp(first)}, and may be deleted at any time: begin {ways}."
        )
    raise HistoryGone(
        f"The span begins at {format_timestamp(span.start)}, and jobs {whose} that were accepted before "
        f"{format_timestamp(kept_from)} were deleted: the first in one of its partitions {begins}. "
        f"Begin at {format_timestamp(fitting[0])}."
    )


def _begin_at(kept_from: int) -> int:
    """From when on no job is deleted for as long as it takes to ask once more: `kept_from` moves on all the time."""
    retention = time.time_ns() // 1_000_000 - kept_from
    return kept_from + min(_SLACK_MILLISECONDS, retention // 2)


def _all_there(kept_from: int) -> str:
    return f"All that came since {format_timestamp(_begin_at(kept_from))} is there."


def span_gone(span: Span, left: Span, where: str) -> str:
    """What is said of a span that begins before that of an export."""
    if span.end <= left.start:
        return f"The {_told(span)} lies before that of {where}, which is {_from_to(left)}."
    return (
        f"The span begins at {format_timestamp(span.start)}, and that of {where} at {format_timestamp(left.start)}: begin at "
        f"{format_timestamp(left.start)}."
    )


def _moment_gone(at: int, whose: str, kept_from: int) -> str:
    """What is said of a moment at which jobs may have run that were deleted since."""
    return (
        f"Jobs {whose} that had ended before {format_timestamp(kept_from)} were deleted, and may have run at the {_moment(at)}: "
        f"begin at {format_timestamp(_begin_at(kept_from))}."
    )


def _moment_before(at: int, first: int, advised: int, whose: str) -> str:
    return (
        f"The {_moment(at)} lies before the first job {whose} that is in the log, which was accepted at "
        f"{format_timestamp(first)}: begin at {format_timestamp(advised)}. {_NOT_LOOKED_FOR}"
    )


def _all_gone(span: Span, left: Span, whose: str, kept_from: int) -> str:
    """What is said of a span whose jobs were deleted, all of them, if there were any."""
    return f"The whole {_told(span)} is gone: the jobs {whose} that are left came {_from_to(left)}. {_all_there(kept_from)}"


def _span_before(span: Span, left: Span, whose: str) -> str:
    """What is said of a span before the first job that there ever was, or before the first that is left of later ones."""
    return (
        f"The {_told(span)} lies before the first job {whose} that is in the log: those that are there came {_from_to(left)}. "
        f"{_NOT_LOOKED_FOR}"
    )


def _from_to(span: Span) -> str:
    return f"from {format_timestamp(span.start)} to {format_timestamp(span.end)}"


def _to_come(asked: str, last: int, whose: str) -> str:
    """What is said of a span or moment in the future, where the last record is of the time `last`."""
    return (
        f"The {asked} is still to come. The last job {whose} that is in the log was accepted at {format_timestamp(last)}: "
        "begin no later."
    )


def _moment(at: int) -> str:
    return f"moment {format_timestamp(at)}"


def _told(span: Span) -> str:
    return f"span {_from_to(span)}"


async def _earliest(reader: LogReader, queues: Collection[TopicPartition], span: Span) -> int | None:
    """The time of the earliest record, where none is from before the span's end, also behind the first ones; else None."""
    first = min((await _first_times(reader, queues)).values())
    async with aclosing(unplaced_between(reader, dict(await bounds_of(reader, queues, Span(0, span.end))))) as batches:
        async for _, records in batches:
            first = min(first, *(record.timestamp for record in records))
            if first < span.end:
                return None
    return first


async def _last_times(reader: LogReader, queues: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The times of the last records of the partitions that have any."""
    firsts, ends = await reader.start_offsets(queues), await reader.end_offsets(queues)
    bounds = {queue: (ends[queue] - 1, ends[queue]) for queue in queues if firsts[queue] < ends[queue]}
    async with aclosing(batches_between(reader, bounds)) as batches:
        return {queue: records[-1].timestamp async for queue, records in batches}


async def _first_times(reader: LogReader, queues: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The times of the first records of the partitions that have any."""
    firsts, ends = await reader.start_offsets(queues), await reader.end_offsets(queues)
    bounds = {queue: (firsts[queue], ends[queue]) for queue in queues if firsts[queue] < ends[queue]}
    times = {}
    async with aclosing(batches_between(reader, bounds)) as batches:
        async for queue, records in batches:
            times[queue] = records[0].timestamp
            del bounds[queue]
    return times
