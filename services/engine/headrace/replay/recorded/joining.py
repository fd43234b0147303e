"""Job records of a span, each with the snapshot that counts: the two places in the log where a job stands, brought together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from headrace.codec import decode_object, is_common_job_record, plain_validator
from headrace.core.ownership import Version
from headrace.core.records import REPEAT_HEADER, SOURCE_HEADER, VERSION_HEADER, parse_version, source_prefix
from headrace.core.snapshots import queued
from headrace.core.status import TERMINAL
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.errors import HistoryGone
from headrace.models import JobRecord
from headrace.ports import LogReader, TopicPartition, UnplacedRecord
from headrace.reading import unplaced_between
from headrace.replay.history import RecordedJob, Span
from headrace.replay.recorded.folding import STATUSES, UNUSABLE, Claims, Place, Seen, Standing
from headrace.replay.recorded.layout import Bounds, Layout, Part
from headrace.replay.recorded.logged import LoggedJob
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS, ALL_TIME, since

BEFORE_MILLISECONDS: Final = AHEAD_MILLISECONDS + 60_000
"""So much before the first job begins the reading of states: its time is its caller's, whose clock may be ahead of the brokers',
and within the further minute a lease is renewed many times."""
SETTLED_MILLISECONDS: Final = 2 * 3_600_000
"""So long after its last job has ended nothing more is said of any: a janitor has repeated by then what counts."""

_NO_PREFIX: Final = b"\0"  # no place begins so

_check_record = plain_validator(JobRecord)


@dataclass(slots=True)
class Accepted(Standing):
    """A job record of a worker, and what was found of its state.

    Attributes:
        queue: where it stands.
    """

    worker: str
    queue: TopicPartition
    record: UnplacedRecord

    @property
    def said_until(self) -> int:
        """When all is said of it, by the log's time: long after its end, in milliseconds since the Unix epoch."""
        newest = self.newest
        return ALL_TIME.end if newest is None or self.status not in TERMINAL else newest.timestamp + SETTLED_MILLISECONDS

    @property
    def has_begun(self) -> bool:
        """Whether an engine has begun with it, by what was found."""
        return self.version is not None and self.version.attempt > 0

    def recorded(self) -> RecordedJob | None:
        """The job, or None where the record is none of a job of this worker."""
        record, newest = self.record, self.newest
        value = record.value
        if value is None:
            return None
        # What an engine has begun with it has checked: that is decoded when somebody looks at it.
        if newest is not None and self.has_begun and (key := newest.key) and b'"id":"%b"' % key in value:
            return LoggedJob(value, self.queue, record.offset, record.timestamp, newest.value, snapshot_at=_made_at(newest))
        raw = job_record_of(record, self.worker)
        if raw is None:
            return None
        # A queue that was made anew has other jobs at the same offsets.
        is_own = newest is not None and newest.key == str(raw["id"]).encode()
        if newest is None or not is_own:
            return LoggedJob(raw, self.queue, record.offset, record.timestamp, None)
        return LoggedJob(raw, self.queue, record.offset, record.timestamp, newest.value, snapshot_at=_made_at(newest))


def _made_at(snapshot: UnplacedRecord) -> int | None:
    """The log's time of a snapshot, unless a janitor wrote it once more."""
    headers = snapshot.headers
    repeated = len(headers) > 3 and any(name == REPEAT_HEADER for name, _ in headers)
    return None if repeated else snapshot.timestamp


def accepted_state(job: RecordedJob) -> dict[str, Any]:
    """The job as it was accepted, before anybody wrote of it."""
    return queued(job.record, {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset})


def job_record_of(record: UnplacedRecord, worker: str) -> Mapping[str, Any] | None:
    """The job record in a record of a worker's queue, or None where it is damaged, or of another worker: its job could not be
    done either.
    """
    raw = record_of_any(record, worker)
    return raw if raw is not None and raw["workerName"] == worker else None


def record_of_any(record: UnplacedRecord, worker: str) -> Mapping[str, Any] | None:
    """The same, also where it is of another worker than that of the queue: an engine refuses it, and has read all of it."""
    try:
        raw = decode_object(record.value)
        _check(raw, worker)
    except UNUSABLE:
        return None
    return raw


def _check(raw: dict[str, Any], worker: str) -> None:
    if not is_common_job_record(raw, worker):
        _check_record(raw)


async def read_accepted(reader: LogReader, layout: Layout, bounds: Bounds, span: Span) -> dict[Place, Accepted]:
    """The records of queues that are of the span, in the order of the log within each partition."""
    start, end = span
    found: dict[TopicPartition, dict[Place, Accepted]] = {queue: {} for queue in bounds}
    workers = {queue: layout.worker_of(queue) for queue in bounds}
    prefixes = {queue: source_prefix(worker, queue.partition) for queue, worker in workers.items()}
    async with aclosing(unplaced_between(reader, dict(bounds))) as batches:
        async for queue, records in batches:
            worker, prefix, entries = workers[queue], prefixes[queue], found[queue]
            for record in records:
                if start <= record.timestamp < end:
                    entries[b"%b%d" % (prefix, record.offset)] = Accepted(worker, queue, record)
    if len(found) == 1:
        return next(iter(found.values()))
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
    _unfinished: int = field(init=False)
    _last_said: int = 0

    def __post_init__(self) -> None:
        self._unfinished = len(self.entries)

    async def read(self, reader: LogReader, state: TopicPartition) -> None:
        """Reads from an hour before the span to the end, or until nothing more can come.

        Raises:
            HistoryGone: a job of the span was deleted from its queue.
        """
        first = (await since(reader, [state], max(0, self.span.start - BEFORE_MILLISECONDS)))[state]
        end = (await reader.end_offsets([state]))[state]
        bounds = {state: (first, end)} if first < end else {}
        async with aclosing(unplaced_between(reader, bounds)) as batches:
            async for _, records in batches:
                self._take_all(records)
                if records[-1].timestamp > self._last_end + SETTLED_MILLISECONDS and self._is_finished():
                    return

    def made_again(self) -> set[Place]:
        """Where requests stand that were made again: each has a record of its own, which its engine passed over: no further job.

        Of one that was done before the reading of states begins this is not seen.
        """
        waiting = {place: entry for place, entry in self.entries.items() if entry.newest is None}
        if not waiting:
            return set()
        begun = {entry.newest.key for entry in self.entries.values() if entry.newest is not None} | self._earlier
        if not begun:
            return set()
        jobs = {place: entry.recorded() for place, entry in waiting.items()}
        return {place for place, job in jobs.items() if job is not None and job.id.encode() in begun}

    def said_until(self, again: set[Place]) -> int:
        """When all is said of these jobs but for those requests that were made again; see `Accepted.said_until`."""
        if self._unfinished > len(again - self._again):
            return ALL_TIME.end
        return self._last_said + SETTLED_MILLISECONDS if len(self.entries) > len(again) else 0

    @property
    def _last_end(self) -> int:
        return max(self.span.end, self._last_said)

    def _is_finished(self) -> bool:
        if self._unfinished and self._looked_at != self._last_end:
            self._looked_at = self._last_end
            again = self.made_again() - self._again
            self._again |= again
            self._unfinished -= len(again)
        return not self._unfinished

    def _take_all(self, records: Sequence[UnplacedRecord]) -> None:
        """Takes in each of them. What engines write as a rule is taken apart here: there are millions."""
        entries, ledgers = self.entries, self._claims.ledgers
        prefix, ledger = _NO_PREFIX, None
        for record in records:
            usual = _usual_headers(record)
            entry = None if usual is None else entries.get(usual[0])
            if usual is None or entry is None:
                self._take(record)
                prefix = _NO_PREFIX  # it may have been the first lease of a partition
                continue
            place, version, status = usual
            if not place.startswith(prefix):
                prefix = place[: place.rindex(b"/") + 1]
                ledger = ledgers.get(prefix)
            epoch, known = version[0], entry.version
            if ledger is not None and epoch != ledger.epoch and ledger.is_void(epoch):
                continue
            if known is not None and version > known and entry.status not in TERMINAL:
                # The next of a job that had not ended: it is newer by any rule.
                entry.version, entry.status, entry.newest = version, status, record
                self._unfinished -= status in TERMINAL
                self._last_said = max(self._last_said, record.timestamp)
            else:
                self._offer(entry, Seen(place, version, status, None, False), record)

    def _take(self, record: UnplacedRecord) -> None:
        seen = self._claims.see(record)
        if seen is None or seen.void:
            return
        entry = self.entries.get(seen.place)
        if entry is None:
            self._take_other(seen.place, record)
        else:
            self._offer(entry, seen, record)

    def _offer(self, entry: Accepted, seen: Seen, record: UnplacedRecord) -> None:
        is_first, had_ended = entry.version is None, entry.status in TERMINAL
        if not entry.offer(seen, record):
            return
        if is_first and seen.place in self._again:  # it was done after all
            self._again.discard(seen.place)
            self._unfinished += 1
        self._unfinished += had_ended - (seen.status in TERMINAL)
        self._last_said = max(self._last_said, record.timestamp)

    def _take_other(self, place: Place, record: UnplacedRecord) -> None:
        prefix, slash, offset = place.rpartition(b"/")
        if not offset.isdigit():
            return
        if int(offset) < self.firsts.get(prefix + slash, 0):
            self._earlier.add(record.key)
        if int(offset) < self.starts.get(prefix + slash, 0):
            self._check_deleted(prefix + slash, record)

    def _check_deleted(self, prefix: bytes, record: UnplacedRecord) -> None:
        """Of a job whose record is gone: it must not be one of the span, which would be told as if it had never been."""
        try:
            raw = decode_object(record.value)
            created = parse_timestamp(raw["createdAt"])
        except UNUSABLE:
            return
        if created in self.span:
            left = [entry.record.timestamp for each, entry in self.entries.items() if each.startswith(prefix)]
            advice = f"at {format_timestamp(max(created + 1, min(left)))}" if left else f"after {raw['createdAt']}"
            raise HistoryGone(
                f"Not all of the span is in the log any more: job {raw.get('id')}, accepted at {raw['createdAt']}, was deleted "
                f"from its queue, with all before it. Begin {advice}."
            )


def _usual_headers(record: UnplacedRecord) -> tuple[Place, Version, str] | None:
    """What a snapshot of an engine tells of a job that has been told of; None for all that is not just that."""
    headers = record.headers
    if len(headers) != 3 or record.value is None:
        return None
    (source_name, place), (version_name, version), (_, status) = headers
    if source_name != SOURCE_HEADER or version_name != VERSION_HEADER:
        return None
    try:
        return place, parse_version(version), STATUSES[status]
    except UNUSABLE:
        return None


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
