"""Job records of a span, each with the snapshot that counts: the two places in the log where a job stands, brought together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from headrace.codec import decode_object, is_common_job_record, plain_validator
from headrace.core.records import source_prefix
from headrace.core.snapshots import queued
from headrace.core.status import TERMINAL
from headrace.core.timestamps import parse_timestamp
from headrace.errors import HistoryGone
from headrace.models import JobRecord
from headrace.ports import LogReader, Record, TopicPartition
from headrace.reading import batches_between
from headrace.replay.folding import UNUSABLE, Claims, Place, Standing
from headrace.replay.history import RecordedJob, Span
from headrace.replay.layout import Bounds, Layout, Part
from headrace.replay.logged import LoggedJob
from headrace.replay.spans import ALL_TIME, since

BEFORE_MILLISECONDS: Final = 60_000
"""So much before the first job begins the reading of states: within that time a lease is renewed many times."""
SETTLED_MILLISECONDS: Final = 2 * 3_600_000
"""So long after its last job has ended nothing more is said of any: a janitor has repeated by then what counts."""

_check_record = plain_validator(JobRecord)


@dataclass(slots=True)
class Accepted:
    """A job record of a worker, and what was found of its state."""

    worker: str
    record: Record
    standing: Standing = field(default_factory=Standing)

    @property
    def said_until(self) -> int:
        """When all is said of it, by the log's time: long after its end, in milliseconds since the Unix epoch."""
        seen, record = self.standing.seen, self.standing.record
        ended = seen is not None and record is not None and seen.status in TERMINAL
        return record.timestamp + SETTLED_MILLISECONDS if ended and record is not None else ALL_TIME.end

    def recorded(self) -> RecordedJob | None:
        """The job, or None where the record is none of a job of this worker."""
        record, found = self.record, self.standing.record
        source = TopicPartition(record.topic, record.partition)
        if record.value is None:
            return None
        # What an engine has begun with it has checked: that is decoded when somebody looks at it.
        if found is not None and self._has_begun(found):
            return LoggedJob(record.value, source, record.offset, record.timestamp, found.value)
        raw = job_record_of(record, self.worker)
        if raw is None:
            return None
        # A queue that was made anew has other jobs at the same offsets.
        is_own = found is not None and found.key == str(raw["id"]).encode()
        snapshot = found.value if found is not None and is_own else None
        return LoggedJob(raw, source, record.offset, record.timestamp, snapshot)

    def _has_begun(self, found: Record) -> bool:
        """Whether a snapshot is of this very job, and says that an engine began with it."""
        key, value, seen = found.key, self.record.value, self.standing.seen
        if not key or not value or seen is None or not seen.version.attempt:
            return False
        return b'"id":"%b"' % key in value


def accepted_state(job: RecordedJob) -> dict[str, Any]:
    """The job as it was accepted, before anybody wrote of it."""
    return queued(job.record, {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset})


def job_record_of(record: Record, worker: str) -> Mapping[str, Any] | None:
    """The job record in a record of a worker's queue, or None where it is damaged: its job could not be done either."""
    try:
        raw = decode_object(record.value)
        _check(raw, worker)
    except UNUSABLE:
        return None
    return raw


def _check(raw: dict[str, Any], worker: str) -> None:
    if not is_common_job_record(raw, worker):
        _check_record(raw)


async def read_accepted(
    reader: LogReader, layout: Layout, bounds: Bounds, wanted: Callable[[Record], bool]
) -> dict[Place, Accepted]:
    """The records of queues that are wanted, in the order of the log within each partition."""
    found: dict[TopicPartition, dict[Place, Accepted]] = {queue: {} for queue in bounds}
    workers = {queue: layout.worker_of(queue) for queue in bounds}
    prefixes = {queue: source_prefix(worker, queue.partition) for queue, worker in workers.items()}
    async with aclosing(batches_between(reader, dict(bounds))) as batches:
        async for queue, records in batches:
            worker, prefix, entries = workers[queue], prefixes[queue], found[queue]
            for record in records:
                if wanted(record):
                    entries[b"%b%d" % (prefix, record.offset)] = Accepted(worker, record)
    return {place: accepted for entries in found.values() for place, accepted in entries.items()}


@dataclass(slots=True)
class States:
    """Reads one partition of `job-state`, and gives each job its newest valid snapshot.

    Attributes:
        entries: the jobs, which get it.
        starts: where partitions of queues begin of which something was deleted, by what the places there begin with.
        firsts: likewise the offsets from which on the entries were read.
        span: in which the jobs were accepted.
    """

    entries: Mapping[Place, Accepted]
    starts: Mapping[bytes, int]
    firsts: Mapping[bytes, int]
    span: Span
    _earlier: set[bytes | None] = field(default_factory=set)
    _again: set[Place] = field(default_factory=set)
    _looked_at: int = -1
    _claims: Claims = field(default_factory=Claims)
    _unfinished: int = 0
    _last_end: int = 0

    async def read(self, reader: LogReader, state: TopicPartition) -> None:
        """Reads from a minute before the span to the end, or until nothing more can come.

        Raises:
            HistoryGone: a job of the span was deleted from its queue.
        """
        self._unfinished, self._last_end = len(self.entries), self.span.end
        first = (await since(reader, [state], max(0, self.span.start - BEFORE_MILLISECONDS)))[state]
        end = (await reader.end_offsets([state]))[state]
        bounds = {state: (first, end)} if first < end else {}
        async with aclosing(batches_between(reader, bounds)) as batches:
            async for _, records in batches:
                for record in records:
                    self._take(record)
                if records[-1].timestamp > self._last_end + SETTLED_MILLISECONDS and self._is_finished():
                    return

    def made_again(self) -> set[Place]:
        """Where requests stand that were made again: each has a record of its own, which its engine passed over: no further job.

        Of one that was done before the reading of states begins this is not seen.
        """
        begun = {entry.standing.record.key for entry in self.entries.values() if entry.standing.record is not None}
        begun |= self._earlier
        waiting = {place: entry for place, entry in self.entries.items() if entry.standing.record is None} if begun else {}
        jobs = {place: entry.recorded() for place, entry in waiting.items()}
        return {place for place, job in jobs.items() if job is not None and job.id.encode() in begun}

    def _is_finished(self) -> bool:
        if self._unfinished and self._looked_at != self._last_end:
            self._looked_at = self._last_end
            again = self.made_again() - self._again
            self._again |= again
            self._unfinished -= len(again)
        return not self._unfinished

    def _take(self, record: Record) -> None:
        seen = self._claims.see(record)
        if seen is None or seen.void:
            return
        entry = self.entries.get(seen.place)
        if entry is None:
            self._take_other(seen.place, record)
            return
        standing, known = entry.standing, entry.standing.seen
        if known is None:
            standing.seen, standing.record = seen, record
            if seen.place in self._again:  # it was done after all
                self._again.discard(seen.place)
                self._unfinished += 1
        elif not standing.offer(seen, record):
            return
        self._unfinished += (known is not None and known.status in TERMINAL) - (seen.status in TERMINAL)
        self._last_end = max(self._last_end, record.timestamp)

    def _take_other(self, place: Place, record: Record) -> None:
        prefix, slash, offset = place.rpartition(b"/")
        if not offset.isdigit():
            return
        if int(offset) < self.firsts.get(prefix + slash, 0):
            self._earlier.add(record.key)
        if int(offset) < self.starts.get(prefix + slash, 0):
            self._check_deleted(record)

    def _check_deleted(self, record: Record) -> None:
        """Of a job whose record is gone: it must not be one of the span, which would be told as if it had never been."""
        try:
            raw = decode_object(record.value)
            created = parse_timestamp(raw["createdAt"])
        except UNUSABLE:
            return
        if created in self.span:
            raise HistoryGone(
                f"Not all of the span is in the log any more: job {raw.get('id')}, accepted at {raw['createdAt']}, was deleted "
                "from its queue, with all before it. Begin later."
            )


def chunks_of(entries: Mapping[Place, Accepted], size: int) -> Iterator[list[tuple[Place, Accepted]]]:
    """The entries in pieces, in their order."""
    remaining = iter(entries.items())
    while piece := list(islice(remaining, size)):
        yield piece


def by_place(layout: Layout, part: Part, offsets: Mapping[TopicPartition, int]) -> dict[bytes, int]:
    """Those offsets in a part's queues that are not 0, by what the places there begin with."""
    return {
        source_prefix(layout.worker_of(queue), queue.partition): offsets[queue] for queue in part.queues if offsets.get(queue)
    }
