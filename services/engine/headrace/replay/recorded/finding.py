"""One job in the log: its record, and all that was written of its state."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from headrace.core.identifiers import made_at
from headrace.core.records import SOURCE_HEADER
from headrace.core.topics import Topics
from headrace.errors import HistoryGone, JobUnknown
from headrace.ports import Log, LogReader, Record, TopicPartition
from headrace.reading import batches_between
from headrace.replay.history import RecordedJob, Span
from headrace.replay.recorded.folding import Claims, Place, Seen, Standing, place_of
from headrace.replay.recorded.joining import BEFORE_MILLISECONDS, Accepted
from headrace.replay.recorded.layout import Bounds, Layout, read_layout
from headrace.replay.recorded.refused import named_record_of, refused_job
from headrace.replay.recorded.scanning import reading, side_by_side
from headrace.replay.recorded.snapshots import snapshot_of
from headrace.replay.recorded.spans import ALL_TIME, bounds_of, since

_AROUND_MILLISECONDS: Final = 60_000
"""So long before and after a fresh id was made its record is looked for first."""


@dataclass(slots=True)
class Trail:
    """What the log has of one job.

    Attributes:
        layout: the queues of all workers.
        record: what stands in its queue.
        accepted: the same, and the snapshot that counts.
        job: the same, decoded.
        snapshots: all that are left, in the order of the log; with None where the headers cannot be read.
        removals: tombstones that a janitor has written over them.
        duplicates: further records with its id, of which nothing is left: as a rule since they were passed over.
        earlier: jobs that had its id before, oldest first: beyond the window a derived id is a new job.
    """

    layout: Layout
    record: Record
    accepted: Accepted
    job: RecordedJob
    snapshots: list[tuple[Record, Seen | None]] = field(default_factory=list)
    removals: list[Record] = field(default_factory=list)
    duplicates: list[Record] = field(default_factory=list)
    earlier: list[Trail] = field(default_factory=list)

    @property
    def runs(self) -> list[Trail]:
        """All jobs that had its id, oldest first; it is the last of them."""
        return [*self.earlier, self]

    @property
    def has_begun(self) -> bool:
        """Whether anything was written of it."""
        return self.job.damaged or self.job.snapshot is not None

    @property
    def begins(self) -> float:
        """The offset of the first of its snapshots, among those that say whose they are."""
        return min((record.offset for record, seen in self.snapshots if seen is not None), default=math.inf)

    @property
    def untold(self) -> list[Record]:
        """Those of its records that do not say which job's they are."""
        unread = [record for record, seen in self.snapshots if seen is None]
        return unread + [record for record in self.removals if _told_place(record) is None]


async def find_job(log: Log, topics: Topics, job_id: str) -> Trail:
    """Looks for a job in the queues of all workers, and then for its state.

    Raises:
        JobUnknown: nothing is in the log of it.
        HistoryGone: its record was deleted; the message says what is left.
    """
    layout = await read_layout(log, topics)
    if found := await records_of_job(log, layout, job_id):
        return _newest_run([await _trail(log, layout, record, job_id) for record in found])
    raise await _missing(log, layout, job_id)


def _newest_run(trails: list[Trail]) -> Trail:
    """Of several records with one id the last that was begun, with the others: runs of their own, or requests made again."""
    trails = _in_order(trails)
    begun = [number for number, trail in enumerate(trails) if trail.has_begun] or [0]
    first, chosen = begun[0], trails[begun[-1]]
    earlier: list[Trail] = []
    duplicates: list[Record] = []
    for number, trail in enumerate(trails):
        # The first of all was done, too, if a later one was: compaction leaves of an id what was written last.
        is_lost = number == 0 < first and trail.job.source == trails[first].job.source
        if trail.has_begun or is_lost:
            earlier.append(trail)
        elif trail is not chosen:
            duplicates.append(trail.record)
    _share_out([*(trail for trail in earlier if trail is not chosen), chosen])
    return replace(chosen, duplicates=duplicates, earlier=[trail for trail in earlier if trail is not chosen])


def _share_out(runs: Sequence[Trail]) -> None:
    """Leaves to one of the runs each record that does not tell of which it is, but for the id that they have in common."""

    def is_own(run: Trail, record: Record) -> bool:
        state = TopicPartition(record.topic, record.partition)
        there = [each for each in runs if each.layout.part_of(each.job.source).state == state]
        # An id is given again long after the end of the job before, whatever the clock of its client.
        begun = [each for each in there if each.begins <= record.offset or each.job.accepted_at <= record.timestamp]
        return run is (begun[-1] if begun else there[0])

    owned = [{record.offset for record in run.untold if is_own(run, record)} for run in runs]
    for run, own in zip(runs, owned, strict=True):
        others = {record.offset for record in run.untold} - own
        run.snapshots = [each for each in run.snapshots if each[0].offset not in others]
        run.removals = [each for each in run.removals if each.offset not in others]


def _in_order(trails: list[Trail]) -> list[Trail]:
    """Those of one queue in the order of the log, whatever their clients' clocks say, and the queues by their first times."""
    begins: dict[TopicPartition, int] = {}
    for trail in trails:
        at = trail.job.accepted_at
        begins[trail.job.source] = min(at, begins.get(trail.job.source, at))
    return sorted(trails, key=lambda trail: (begins[trail.job.source], trail.job.source, trail.job.offset))


async def records_of_job(log: Log, layout: Layout, job_id: str) -> list[Record]:
    """The records that have a job's id, oldest first: of a request that was made again there are several.

    That of a fresh id is looked for at the time that the id tells, and then, as that of any other, everywhere.
    """
    made = made_at(job_id)
    spans = [ALL_TIME] if made is None else [Span(made - _AROUND_MILLISECONDS, made + _AROUND_MILLISECONDS), ALL_TIME]
    for span in spans:
        async with reading(log) as reader:
            bounds = await bounds_of(reader, layout.queues, Span(max(0, span.start), span.end), apart=_AROUND_MILLISECONDS)
        async with aclosing(mentions(log, layout, bounds, mention_of(job_id))) as named:
            found = [record async for record, raw in named if raw["id"] == job_id]
        if found:
            return sorted(found, key=lambda record: record.timestamp)
    return []


def mention_of(job_id: str) -> bytes:
    """What stands in the JSON of every record that names a job, unless characters are escaped in it."""
    # An id beyond ASCII may be written in several ways: any record can have it.
    return orjson.dumps(job_id) if job_id.isascii() else b""


async def mentions(log: Log, layout: Layout, bounds: Bounds, *needles: bytes) -> AsyncGenerator[tuple[Record, Mapping[str, Any]]]:
    """The job records in which one of the needles stands, with what they hold, and some others. Most need not be decoded.

    Of a record that is none of a job an engine's idea of it is given; see `named_record_of`.
    """
    # Some writers of JSON have any character as its number. Ids have no slash, and a quotation mark is escaped by all.
    wanted = (*needles, b"\\u")

    async def read(reader: LogReader, queue: TopicPartition) -> AsyncGenerator[tuple[Record, Mapping[str, Any]]]:
        worker = layout.worker_of(queue)
        async with aclosing(batches_between(reader, {queue: bounds[queue]})) as batches:
            async for _, records in batches:
                for record in records:
                    value = record.value
                    if value is not None and any(needle in value for needle in wanted):
                        raw = named_record_of(record, worker)
                        if raw is not None:
                            yield record, raw

    async with aclosing(side_by_side(log, list(bounds), read)) as found:
        async for each in found:
            yield each


async def _trail(log: Log, layout: Layout, record: Record, job_id: str) -> Trail:
    queue = TopicPartition(record.topic, record.partition)
    accepted = Accepted(layout.worker_of(queue), queue, record)
    snapshots: list[tuple[Record, Seen | None]] = []
    removals: list[Record] = []
    newest = Standing()
    state = layout.part_of(queue).state
    if state is not None:
        claims, key = Claims(), job_id.encode()
        place = place_of(accepted.worker, record.partition, record.offset)
        async with reading(log) as reader:
            bounds = await _from(reader, state, record.timestamp - BEFORE_MILLISECONDS)
            async with aclosing(batches_between(reader, bounds)) as batches:
                async for _, records in batches:
                    for each in records:
                        seen = claims.see(each)
                        if each.key != key:
                            continue
                        if each.value is None:
                            if _told_place(each) in (place, None):
                                removals.append(each)
                        elif seen is None or seen.place == place:
                            snapshots.append((each, seen))
                            if seen is None or seen.void:
                                continue
                            newest.offer(seen, each)
                            # A damaged record costs itself, and not what was written before it.
                            if snapshot_of(each) is not None:
                                accepted.offer(seen, each)
    job = accepted.recorded() or refused_job(accepted)
    assert job is not None, "it was decoded before"
    if newest.version != accepted.version:
        job = replace(job, damaged=True)
    return Trail(layout, record, accepted, job, snapshots, removals)


def _told_place(tombstone: Record) -> Place | None:
    """Of which job's record a janitor says that it tells."""
    return dict(tombstone.headers).get(SOURCE_HEADER)


async def _from(reader: LogReader, partition: TopicPartition, at: int) -> dict[TopicPartition, tuple[int, int]]:
    first = (await since(reader, [partition], max(0, at)))[partition]
    end = (await reader.end_offsets([partition]))[partition]
    return {partition: (first, end)} if first < end else {}


async def _missing(log: Log, layout: Layout, job_id: str) -> JobUnknown | HistoryGone:
    """What is to be said of a job of which there is no record: its snapshots may outlive it for a while."""
    # Whoever typed it may have typed bytes that are no text: no job has such an id.
    key = job_id.encode(errors="surrogatepass")

    async def read(reader: LogReader, state: TopicPartition) -> AsyncGenerator[Sequence[Record]]:
        async with aclosing(batches_between(reader, await _from(reader, state, 0))) as batches:
            async for _, records in batches:
                if found := [record for record in records if record.key == key]:
                    yield found

    async with aclosing(side_by_side(log, layout.states, read)) as pieces:
        left = [record async for piece in pieces for record in piece]
    if not left:
        return JobUnknown(f"There is no job {job_id!r} in the log of the namespace {layout.topics.namespace}.")
    told = [snapshot["status"] for record in left if (snapshot := snapshot_of(record)) is not None]
    last = f" It is known that it was {told[-1]} at the end." if told else ""
    return HistoryGone(
        f"The record of job {job_id} was deleted from its queue, as those of jobs are that ended long ago, and with it its "
        f"history.{last}"
    )
