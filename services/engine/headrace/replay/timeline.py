"""Everything that is known of one job, in order: the command `headrace timeline`, for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from headrace.core.records import REMOVAL_HEADER, cancellation_key
from headrace.core.timestamps import format_timestamp
from headrace.dead_letters.letters import dead_letter_of
from headrace.ports import Record, TopicPartition
from headrace.reading import batches_between, records_of
from headrace.replay.finding import Trail
from headrace.replay.folding import Seen, Standing
from headrace.replay.history import DAMAGED, RecordedJob, Span
from headrace.replay.joining import accepted_state
from headrace.replay.log_history import LogHistory
from headrace.replay.rebuilding import Origin, known_from, missing_records, rebuilt_between, untold_attempts
from headrace.replay.recorded_answers import Answer
from headrace.replay.relatives import EARLIER_MILLISECONDS, Relative, relatives_of
from headrace.replay.scanning import reading
from headrace.replay.snapshots import snapshot_of
from headrace.replay.spans import ALL_TIME, bounds_of
from headrace.replay.steps import MISSING, Change, changes_between, event_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Something that happened to a job.

    Attributes:
        at: when, in milliseconds since the Unix epoch: the time of the record, or what a later record says.
        origin: `snapshot` where the record itself is gone; then the place is that of the later one which tells of it.
        event: `accepted`, `started`, `progressed`, `retrying`, `interrupted`, `completed`, `failed`, `cancelled`; `recorded`,
            `cancel-requested`, `dead-letter`, `child`, `retry`; `repeated` and `removed` by a janitor;
            `duplicate` where its request was made again, `damaged` where a record cannot be read.
        void: the record counts for nothing: its writer did not hold the job any more.
        attempt: the number of the attempt that it is about, if it is about one.
        changes: what is other than before.
        note: more, in words.
    """

    at: int
    origin: Origin
    source: TopicPartition
    offset: int
    event: str
    void: bool = False
    attempt: int | None = None
    changes: Sequence[Change] = ()
    note: str = ""

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "at": format_timestamp(self.at),
            "origin": self.origin,
            "topic": self.source.topic,
            "partition": self.source.partition,
            "offset": self.offset,
            "event": self.event,
            "void": self.void,
            **({} if self.attempt is None else {"attempt": self.attempt}),
            "changes": [change.to_wire() for change in self.changes],
            **({"note": self.note} if self.note else {}),
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """A job, all that happened to it, the jobs that came of it, and its chain of retries.

    Attributes:
        state: the job as it stands now; as it was last known, where a newer record is damaged.
        relatives: what it does anew, from the first of the chain on; then its children, by their times; then what does it anew.
    """

    job: RecordedJob
    state: Mapping[str, Any]
    lines: Sequence[Line]
    relatives: Sequence[Relative]

    @property
    def status(self) -> str:
        """As the job stands now; `damaged` where the newest record of it cannot be read."""
        return DAMAGED if self.job.damaged else str(self.state["status"])

    @property
    def retry_of(self) -> str | None:
        """The id of the job that this one does anew; its own record may be gone from the log."""
        found = self.job.record.get("retryOf")
        return None if found is None else str(found)

    @property
    def retries(self) -> Sequence[Relative]:
        """The jobs that do this one anew, or a retry of it."""
        return [each for each in self.relatives if each.relation == "retry"]

    @property
    def outcome(self) -> tuple[str, str]:
        """What became of the work at last: the id and the status of the newest retry, or of the job where there is none."""
        if retries := self.retries:
            return retries[-1].job.id, retries[-1].status
        return self.job.id, self.status

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        last, status = self.outcome
        return {
            "job": self.state,
            **({"damaged": True} if self.job.damaged else {}),
            "outcome": {"id": last, "status": status},
            "lines": [line.to_wire() for line in self.lines],
            "children": [each.to_wire() for each in self.relatives if each.relation == "child"],
            "retries": [each.to_wire() for each in self.retries],
            "retried": [each.to_wire() for each in self.relatives if each.relation == "retried"],
        }


async def timeline_of(history: LogHistory, job_id: str) -> Timeline:
    """All that the log has of a job and, where compaction has been, what can be rebuilt of it.

    Raises:
        JobUnknown: nothing is in the log of it.
        HistoryGone: its record was deleted.
        BrokerError: the brokers cannot be reached.
    """
    trail = await history.trail(job_id)
    job = trail.job
    own = own_lines(trail)
    relatives = await relatives_of(history.log, trail)
    others = [
        *_recorded(await history.all_recordings(job_id)),
        *await _cancellations(history, job),
        *await _dead_letters(history, job),
        *_related(relatives, job.id),
        *map(_duplicate, trail.duplicates),
    ]
    state = job.snapshot if job.snapshot is not None else accepted_state(job)
    return Timeline(job, state, merged(own, others), relatives)


def merged(own: Iterable[Line], others: Iterable[Line]) -> list[Line]:
    """All lines in one order: the job's own in theirs, since its writers' clocks may differ, and the others by their times."""
    waiting, found = sorted(others, key=lambda line: line.at)[::-1], []
    for line in own:
        while waiting and waiting[-1].at < line.at:
            found.append(waiting.pop())
        found.append(line)
    return [*found, *reversed(waiting)]


# --- the job's own records ------------------------------------------------------------------------------------------------


def own_lines(trail: Trail) -> list[Line]:
    """What the job's record tells, and the snapshots that are left, with what is rebuilt between them."""
    job = trail.job
    state: Mapping[str, Any] = accepted_state(job)
    accepted = [Change(name, MISSING, value) for name, value in job.record.items()]
    lines = [Line(at=job.accepted_at, origin="log", source=job.source, offset=job.offset, event="accepted", changes=accepted)]
    standing = Standing()
    for record, seen in trail.snapshots:
        after = snapshot_of(record)
        if seen is None or after is None:
            lines.append(_damaged(record, seen))
        elif seen.repeated and _is_same(state, after):
            lines.append(_line(record, after, event="repeated"))
        elif seen.void or not standing.offer(seen, record):
            lines.append(_passed_over(record, seen, state, after))
        else:
            known = known_from(after, record.timestamp, repeated=seen.repeated)
            lines += _rebuilt(record, state, after)
            changes, note = changes_between(state, after), _gone(state, after)
            lines.append(
                _line(record, after, at=known.at, origin=known.origin, event=event_of(after), changes=changes, note=note)
            )
            state = after
    return [*lines, *map(_removed, trail.removals)]


def _line(record: Record, state: Mapping[str, Any], **more: Any) -> Line:
    source = TopicPartition(record.topic, record.partition)
    at = more.pop("at", record.timestamp)
    origin: Origin = more.pop("origin", "log")
    return Line(at=at, origin=origin, source=source, offset=record.offset, attempt=state.get("attempt") or None, **more)


def _damaged(record: Record, seen: Seen | None) -> Line:
    source, what = TopicPartition(record.topic, record.partition), "headers" if seen is None else "value"
    return Line(
        at=record.timestamp,
        origin="log",
        source=source,
        offset=record.offset,
        event="damaged",
        void=seen is not None and seen.void,
        note=f"its {what} cannot be read; it counts for nothing",
    )


def _is_same(state: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return all(state.get(name) == after.get(name) for name in ("epoch", "attempt", "sequence"))


def _passed_over(record: Record, seen: Seen, state: Mapping[str, Any], after: Mapping[str, Any]) -> Line:
    if not seen.void:
        return _line(record, after, event="repeated" if seen.repeated else event_of(after), note="outdone by what came before")
    note = f"void: instance {after.get('instanceId')} did not hold the job any more"
    return _line(record, after, event=event_of(after), void=True, changes=changes_between(state, after), note=note)


def _rebuilt(record: Record, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Line]:
    lines = []
    for at, state, _ in rebuilt_between(before, after):
        changes = changes_between(before, state)
        lines.append(_line(record, state, at=at, origin="snapshot", event=event_of(state), changes=changes))
        before = state
    return lines


def _gone(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What compaction has removed between two states for good, in words."""
    told = []
    if untold := untold_attempts(before, after):
        told.append(f"of attempts {untold.start} to {untold.stop - 1} nothing more is known")
    rebuilt = sum(each.state["attempt"] == after["attempt"] for each in rebuilt_between(before, after))
    if (missing := missing_records(before, after) - rebuilt) > 0:
        told.append(f"{missing} more of this attempt's records were removed by compaction")
    return "; ".join(told)


def _removed(record: Record) -> Line:
    headers = dict(record.headers)
    reason = (headers.get(REMOVAL_HEADER) or b"").partition(b"/")[0].decode(errors="replace")
    source = TopicPartition(record.topic, record.partition)
    return Line(at=record.timestamp, origin="log", source=source, offset=record.offset, event="removed", note=reason)


def _duplicate(record: Record) -> Line:
    source, note = TopicPartition(record.topic, record.partition), "its request was made again, and passed over"
    return Line(at=record.timestamp, origin="log", source=source, offset=record.offset, event="duplicate", note=note)


# --- what others wrote of it ----------------------------------------------------------------------------------------------


def _recorded(answers: Iterable[Answer]) -> list[Line]:
    return [
        Line(
            at=each.at,
            origin="log",
            source=each.source,
            offset=each.offset,
            event="recorded",
            attempt=each.place.attempt,
            changes=[Change(f"recordings.{each.place.key.name}.{each.place.key.number}", MISSING, _decoded(each.value))],
            note="" if each.place.key.failure is None else "what was asked raised this",
        )
        for each in answers
    ]


def _decoded(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode(errors="replace")


async def _cancellations(history: LogHistory, job: RecordedJob) -> list[Line]:
    topic, key = history.topics.control.name, cancellation_key(job.tenant, job.id)
    if topic not in await history.log.topic_names():
        return []
    async with aclosing(records_of(history.log, topic)) as records:
        return [
            Line(
                at=record.timestamp,
                origin="log",
                source=TopicPartition(record.topic, record.partition),
                offset=record.offset,
                event="cancel-requested",
            )
            async for record in records
            if record.key == key and record.value is not None
        ]


async def _dead_letters(history: LogHistory, job: RecordedJob) -> list[Line]:
    topic = history.topics.dead_letters.name
    if topic not in await history.log.topic_names():
        return []
    partitions = [TopicPartition(topic, number) for number in range(await history.log.partition_count(topic))]
    lines = []
    async with reading(history.log) as reader:
        since = Span(max(0, job.accepted_at - EARLIER_MILLISECONDS), ALL_TIME.end)
        bounds = dict(await bounds_of(reader, partitions, since))
        async with aclosing(batches_between(reader, bounds)) as batches:
            async for source, records in batches:
                for record in records:
                    letter = dead_letter_of(record)
                    if letter.job_id == job.id:
                        told = Line(
                            at=record.timestamp,
                            origin="log",
                            source=source,
                            offset=record.offset,
                            event="dead-letter",
                            note=f"{letter.reason}: {letter.message}",
                        )
                        lines.append(told)
    return lines


def _related(relatives: Iterable[Relative], job_id: str) -> list[Line]:
    """What came of the job itself: what came of its retries happened to these."""
    return [
        Line(
            at=each.job.accepted_at,
            origin="log",
            source=each.job.source,
            offset=each.job.offset,
            event=each.relation,
            note=f"job {each.job.id} of {each.job.record['workerName']}, {each.status} now",
        )
        for each in relatives
        if each.relation == "child" or each.retry_of == job_id
    ]
