"""What a job's own records tell: each record that is there, and what a later one tells of those that compaction has removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.core.records import REMOVAL_HEADER
from headrace.core.timestamps import format_timestamp
from headrace.ports import Record, TopicPartition
from headrace.replay.history import RecordedJob
from headrace.replay.inspection.rebuilding import Origin, known_from, missing_records, rebuilt_between, untold_attempts
from headrace.replay.inspection.steps import MISSING, Change, changes_between, event_of
from headrace.replay.recorded.finding import Trail
from headrace.replay.recorded.folding import Seen, Standing
from headrace.replay.recorded.joining import accepted_state
from headrace.replay.recorded.refused import RefusedJob
from headrace.replay.recorded.snapshots import snapshot_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Something that happened to a job.

    Attributes:
        at: when, in milliseconds since the Unix epoch: the time of the record, or what a later record says.
        origin: `snapshot` where the record itself is gone; then the place is that of the later one which tells of it.
        event: `accepted`, `started`, `progressed`, `retrying`, `interrupted`, `completed`, `failed`, `cancelled`; `recorded`,
            `cancel-requested`, `dead-letter`, `child`, `retry`; `repeated` and `removed` by a janitor;
            `called` where a gateway was asked to do something with it; `duplicate` where its request was made again, `damaged`
            where a record cannot be read.
        void: the record counts for nothing: its writer did not hold the job any more.
        attempt: the number of the attempt that it is about, if it is about one.
        run: where several jobs had the id one after another, the number of the one that it is about, counted from 1.
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
    run: int | None = None
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
            **({} if self.run is None else {"run": self.run}),
            "changes": [change.to_wire() for change in self.changes],
            **({"note": self.note} if self.note else {}),
        }


def lines_of_runs(runs: Sequence[Trail]) -> list[Line]:
    """What the records of each job tell that had an id, one job after the other."""
    if len(runs) == 1:
        return own_lines(runs[0])
    found = []
    for number, run in enumerate(runs, 1):
        accepted, *rest = own_lines(run)
        notes = [f"run {number} of {len(runs)} of this id", accepted.note]
        if not run.has_begun:
            notes.append("compaction has left nothing of what became of it")
        accepted = replace(accepted, note="; ".join(filter(None, notes)))
        found += [replace(line, run=number) for line in (accepted, *rest)]
    return found


def removals_of_runs(runs: Sequence[Trail]) -> list[Line]:
    """What janitors have removed of each job that had an id: as a rule long after its end, and maybe after that of later ones."""
    numbers = [None] if len(runs) == 1 else range(1, len(runs) + 1)
    return [replace(_removed(record), run=number) for number, run in zip(numbers, runs, strict=True) for record in run.removals]


def own_lines(trail: Trail) -> list[Line]:
    """What the job's record tells, and the snapshots that are left, with what is rebuilt between them."""
    job = trail.job
    state: Mapping[str, Any] = accepted_state(job)
    lines = [_accepted(job)]
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
    return lines


def _accepted(job: RecordedJob) -> Line:
    written, note = (job.written, job.problem) if isinstance(job, RefusedJob) else (job.record, "")
    changes = [Change(name, MISSING, value) for name, value in written.items()]
    return Line(
        at=job.accepted_at, origin="log", source=job.source, offset=job.offset, event="accepted", changes=changes, note=note
    )


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
