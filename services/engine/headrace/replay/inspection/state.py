"""How every job stood at a moment: the command `headrace state`, for programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple

from headrace.codec import decode_object
from headrace.core.ownership import Version, supersedes
from headrace.core.status import TERMINAL
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.errors import HistoryGone
from headrace.ports import LogReader, TopicPartition, UnplacedRecord
from headrace.reading import unplaced_between
from headrace.replay.history import DAMAGED, RecordedJob, Span
from headrace.replay.inspection.rebuilding import Known, Origin, known_from, state_at
from headrace.replay.recorded.folding import UNUSABLE, Claims, Place, Seen, Standing
from headrace.replay.recorded.joining import (
    BEFORE_MILLISECONDS,
    SETTLED_MILLISECONDS,
    Accepted,
    accepted_state,
    by_place,
    chunks_of,
    read_accepted,
)
from headrace.replay.recorded.layout import Bounds, Layout, Part, described, read_layout
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.recorded.refused import refused_job
from headrace.replay.recorded.scanning import reading, side_by_side
from headrace.replay.recorded.snapshots import snapshot_of
from headrace.replay.recorded.spans import bounds_of, since
from headrace.replay.recorded.wanted import matches
from headrace.replay.recorded.what_is_left import check_is_left

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class JobAt:
    """How a job stood at a moment.

    Attributes:
        job: the job, with the snapshot of then.
        origin: `log` where the record is there that says so, `snapshot` where it is rebuilt from a later one.
    """

    job: RecordedJob
    origin: Origin

    @property
    def status(self) -> str:
        """The status of then; `damaged` where the newest record up to then cannot be read, and it may have been another one."""
        return DAMAGED if self.job.damaged else str(self.state["status"])

    @property
    def state(self) -> Mapping[str, Any]:
        """The job as it was then, with its arguments; as it was last known, where a newer record is damaged."""
        assert self.job.snapshot is not None
        return {**self.job.snapshot, "args": self.job.record["args"]}

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "origin": self.origin,
            "acceptedAt": format_timestamp(self.job.accepted_at),
            **({"damaged": True} if self.job.damaged else {}),
            "job": self.state,
        }


async def states_at(
    history: LogHistory, at: int, *, workers: Collection[str] = (), fields: Mapping[str, str] | None = None
) -> AsyncGenerator[Sequence[JobAt]]:
    """All jobs that were accepted by a moment and whose records are left, as they stood then, in batches.

    Args:
        at: in milliseconds since the Unix epoch.
        workers: only their jobs, if any are given.
        fields: what the jobs had then; see `Wanted.fields`.

    Raises:
        HistoryGone: the moment lies before what is left of the log, or a job is missing that ran then.
        WorkerUnknown: one of the workers has no queue.
        BrokerError: the brokers cannot be reached.
    """
    layout = await read_layout(history.log, history.topics, workers)
    async with reading(history.log) as reader:
        whose = described(layout, workers)
        await check_is_left(reader, layout, Span(at, at + 1), whose, history.kept_from, is_moment=True)
        bounds = await bounds_of(reader, layout.queues, Span(0, at + 1))
        starts = await reader.start_offsets(layout.queues)
    # Also those of which something was deleted: it may have run then.
    parts = [part for part in layout.parts if any(queue in bounds or starts[queue] for queue in part.queues)]
    read = partial(_read_part, layout, bounds, starts, at)
    async with aclosing(side_by_side(history.log, parts, read)) as pieces:
        async for piece in pieces:
            chosen = [each for each in piece if not fields or matches(each.job, fields)]
            if chosen:
                yield chosen


async def _read_part(
    layout: Layout, bounds: Bounds, starts: Mapping[TopicPartition, int], at: int, reader: LogReader, part: Part
) -> AsyncGenerator[Sequence[JobAt]]:
    own = {queue: bounds[queue] for queue in part.queues if queue in bounds}
    entries = await read_accepted(reader, layout, own, Span(0, at + 1))
    deleted = by_place(layout, part, starts)
    moments = _Moments(at, entries, deleted)
    if part.state is not None and (entries or deleted):
        await moments.read(reader, part.state)
    for chunk in chunks_of(entries, _AT_ONCE):
        yield [found for place, entry in chunk if (found := moments.of(place, entry)) is not None]
        await asyncio.sleep(0)


class _Kept(NamedTuple):
    """A snapshot, and the time from which on it was true."""

    record: UnplacedRecord
    at: int
    origin: Origin

    def known(self) -> Known:
        state = snapshot_of(self.record)
        assert state is not None, "it was decoded before"
        return Known(self.at, state, self.origin)


@dataclass(slots=True)
class _Around:
    """What is left of a job's snapshots around a moment.

    Attributes:
        until: the one that counted at the moment.
        after: the first later one, where there is none up to it.
        damaged: the newest record up to the moment that cannot be read, where none that counts followed.
    """

    standing: Standing = field(default_factory=Standing)
    until: _Kept | None = None
    after: _Kept | None = None
    damaged: UnplacedRecord | None = None
    _unread: Seen | None = None

    def pass_over(self, seen: Seen, record: UnplacedRecord) -> None:
        """Takes in a record up to the moment that cannot be read."""
        if self._is_newer(seen):
            self.damaged, self._unread = record, seen

    def take(self, seen: Seen, kept: _Kept) -> None:
        """Takes in one that can be read, and was true by the moment."""
        if self.standing.offer(seen, kept.record):
            self.until = kept
            if self._unread is not None and not self._is_newer(self._unread):
                self.damaged = self._unread = None

    def _is_newer(self, seen: Seen) -> bool:
        known = self.standing
        if known.version is None or seen.version == known.version:
            return known.version is None
        return supersedes(seen.version, known.version, known.status, seen.outdone)

    @property
    def is_decided(self) -> bool:
        return self.until is not None or self.after is not None


class _Moments:
    """Reads one partition of `job-state`, and keeps of each job the snapshots around a moment.

    Args:
        deleted: where partitions of queues begin of which something was deleted, by what the places there begin with.
    """

    def __init__(self, at: int, entries: Mapping[Place, Accepted], deleted: Mapping[bytes, int]) -> None:
        self._at = at
        self._deleted = deleted
        self._found: dict[Place, _Around] = {place: _Around() for place in entries}
        self._first = min((entry.record.timestamp for entry in entries.values()), default=at)
        self._claims = Claims()
        self._undecided = len(entries)
        self._begun: set[bytes | None] = set()
        # Which snapshots were first written after the moment.
        self._later: set[tuple[Place, Version]] = set()

    async def read(self, reader: LogReader, state: TopicPartition) -> None:
        """Reads until no later record can tell more.

        Raises:
            HistoryGone: a job ran at the moment that was deleted from its queue.
        """
        first = (await since(reader, [state], max(0, self._first - BEFORE_MILLISECONDS)))[state]
        end = (await reader.end_offsets([state]))[state]
        bounds = {state: (first, end)} if first < end else {}
        async with aclosing(unplaced_between(reader, bounds)) as batches:
            async for _, records in batches:
                for record in records:
                    self._take(record)
                if not self._undecided and records[-1].timestamp > self._at + SETTLED_MILLISECONDS:
                    return

    def _take(self, record: UnplacedRecord) -> None:
        seen = self._claims.see(record)
        if seen is None or seen.void:
            return
        found = self._found.get(seen.place)
        if found is None:
            self._check_deleted(seen, record)
            return
        if record.timestamp > self._at and not seen.repeated:
            self._later.add((seen.place, seen.version))
            if found.is_decided:
                return
        # A janitor's word is dated by its engine's clock, which may be behind: where the original is there, that tells better.
        if (kept := _kept(record, seen, (seen.place, seen.version) in self._later)) is None:
            if record.timestamp <= self._at:
                found.pass_over(seen, record)
                self._begun.add(record.key)
            return
        if not found.is_decided:
            self._undecided -= 1
            self._begun.add(record.key)
        if kept.at > self._at:
            found.after = found.after or kept
        else:
            found.take(seen, kept)

    def _check_deleted(self, seen: Seen, record: UnplacedRecord) -> None:
        """Of a job whose record is gone: it must not have run at the moment, and be left out as if it had never been."""
        prefix, slash, offset = seen.place.rpartition(b"/")
        if seen.status not in TERMINAL or not offset.isdigit() or int(offset) >= self._deleted.get(prefix + slash, 0):
            return
        try:
            raw = decode_object(record.value)
            created, updated = parse_timestamp(raw["createdAt"]), parse_timestamp(raw["updatedAt"])
        except UNUSABLE:
            return
        if created <= self._at < updated:
            raise HistoryGone(
                f"Not all of the moment is in the log any more: job {raw.get('id')}, which ended at {raw['updatedAt']}, was "
                f"deleted from its queue, with all before it. Take a moment from {raw['updatedAt']} on."
            )

    def of(self, place: Place, entry: Accepted) -> JobAt | None:
        """How a job stood, or None where its record is damaged and nobody has refused it, or is that of another one once more."""
        job, found = entry.recorded(), self._found[place]
        if job is None and found.is_decided:
            job = refused_job(entry)
        if job is None:
            return None
        key = job.id.encode()
        # Of what is rebuilt from a later record nothing is missing.
        damaged = found.after is None and found.damaged is not None and found.damaged.key == key
        # A request that was made again has a record of its own, which its engine passed over: it is the same job.
        if not found.is_decided and not damaged and key in self._begun:
            return None
        # A queue that was made anew has other jobs at the same offsets.
        kept = [each for each in (found.until, found.after) if each is not None and each.record.key == key]
        moment = state_at(accepted_state(job), [each.known() for each in kept], self._at)
        return JobAt(replace(job, snapshot=moment.state, damaged=damaged), moment.origin)


def _kept(record: UnplacedRecord, seen: Seen, is_later: bool) -> _Kept | None:
    """None of a damaged record: it costs itself, and not what is left beside it.

    Args:
        is_later: whether it is known to have been written first after the moment.
    """
    state = snapshot_of(record)
    if state is None:
        return None
    known = known_from(state, record.timestamp, repeated=seen.repeated)
    return _Kept(record, record.timestamp if is_later else known.at, known.origin)
