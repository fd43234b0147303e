"""The table of jobs: what a batch of facts makes of its rows, decided in one place, and written with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from headrace.core.ownership import Version, supersedes
from headrace.core.status import TERMINAL
from headrace.views.job_rows import STATUSES, JobKey, JobRow, partition_key

RowT = TypeVar("RowT", bound=tuple[Any, ...])


class Repeated(NamedTuple):
    """A snapshot that the janitor wrote again; see `SnapshotHeaders.outdone`."""

    row: JobRow
    outdone: Version


Fact = tuple[JobKey, JobRow | Repeated | Version | None]
"""What a record tells of a job: a valid snapshot, or a repeat of one; that it was accepted, as a row of version `ACCEPTED`; or a
tombstone: the version up to which it removes what there is, or None for whatever there is."""

_LOOKED_UP_AT_ONCE: Final = 500
# With each step of a statement another thread may run, and have the interpreter for a while: a step writes many rows. The numbers
# of rows are few, so that each statement is compiled once. `OR FAIL`: by default SQLite would keep a copy of each page that a
# statement of several rows changes, to take that statement alone back; here the whole transaction is.
_AT_ONCE: Final = (64, 16, 8, 4, 1)
# A column that is named makes SQLite rewrite the entries of every index that has it: what stays the same is not named.
_PLAIN: Final = ("epoch", "attempt", "sequence", "source_key", "source_offset", "body", "details")
_MOVED: Final = (*_PLAIN, "status")
_REPLACED: Final = (*_MOVED, "created", "tenant_key", "worker_key", "user_key", "conversation_key")
_ADD_ARGUMENTS: Final = "UPDATE jobs SET arguments = ? WHERE place = ?"
_DELETE: Final = "DELETE FROM jobs WHERE place = ?"

_Indexed = tuple[int, int, int, int | None, int | None]


class _Head(NamedTuple):
    """What a decision about a job needs of its row in the table."""

    version: Version
    status: int
    source_offset: int | None
    indexed: _Indexed


class _Change:
    """What is to become of one job: its row as it stands in the table, and what takes its place."""

    __slots__ = ("arguments", "before", "place", "removed", "row")

    def __init__(self) -> None:
        self.place: int | None = None
        self.before: _Head | None = None
        self.row: JobRow | None = None
        self.arguments: bytes | None = None
        self.removed: int | None = None

    def take(self, row: JobRow | Repeated | Version | None) -> None:
        """Takes in one fact. The order of facts from different topics does not matter."""
        now, outdone = self.row or self.before, None
        if isinstance(row, Repeated):
            row, outdone = row
        if not isinstance(row, JobRow):
            # A record that was void when it came may be removed while its job still waits, or begins: that row stays.
            if now is not None and now.version.epoch >= 0 and (row is None or now.version <= row):
                self._remove()
            return
        self.arguments = row.arguments or self.arguments
        if now is None:
            self.row = row
        elif row.epoch < 0:
            # Of two records with one id the first in the log is the job, as it is for the engine.
            if now.version.epoch < 0 and _first(row.source_offset, now.source_offset):
                self.row = row
        elif supersedes(row.version, now.version, STATUSES[now.status], outdone) or _does_it_again(row, now):
            self.row = row

    def _remove(self) -> None:
        self.removed = self.removed or self.place
        self.place = self.before = self.row = self.arguments = None


def _first(offset: int | None, other: int | None) -> bool:
    return offset is not None and (other is None or offset < other)


def _does_it_again(row: JobRow, before: JobRow | _Head) -> bool:
    """Whether a job that has ended is done again for a later record, which came when its idempotency window was over."""
    if STATUSES[before.status] not in TERMINAL or row.source_offset is None or before.source_offset is None:
        return False
    return row.source_offset > before.source_offset and row.epoch >= before.version.epoch


def write_facts(connection: sqlite3.Connection, facts: Collection[Fact]) -> None:
    """Takes facts into the table, in the open transaction. Each job is written once, however many facts there are about it."""
    changes = {key: _Change() for key, _ in facts}
    _look_up(connection, changes)
    for key, row in facts:
        changes[key].take(row)
    _write(connection, changes.values())


def _look_up(connection: sqlite3.Connection, changes: Mapping[JobKey, _Change]) -> None:
    keys = list(changes)
    for start in range(0, len(keys), _LOOKED_UP_AT_ONCE):
        some = keys[start : start + _LOOKED_UP_AT_ONCE]
        marks = ",".join("?" * len(some))
        for key, place, epoch, attempt, sequence, status, offset, *indexed in connection.execute(
            "SELECT id, place, epoch, attempt, sequence, status, source_offset, created, tenant_key, worker_key, user_key,"
            f" conversation_key FROM jobs WHERE id IN ({marks})",
            some,
        ):
            change = changes[key]
            change.place = place
            change.before = _Head(Version(epoch, attempt, sequence), status, offset, _as_indexed(*indexed))


def _as_indexed(created: int, tenant: int, worker: int, user: int | None, conversation: int | None) -> _Indexed:
    return created, tenant, worker, user, conversation


def _write(connection: sqlite3.Connection, changes: Iterable[_Change]) -> None:
    removed: list[tuple[int]] = []
    completed: list[tuple[bytes, int]] = []
    updated: dict[tuple[str, ...], list[tuple[object, ...]]] = {}
    inserted: list[JobRow] = []
    for change in changes:
        row, before = change.row, change.before
        if change.removed is not None:
            removed.append((change.removed,))
        if row is None:
            if change.arguments is not None and change.place is not None:
                completed.append((change.arguments, change.place))
        elif before is None:
            inserted.append(row if row.arguments is change.arguments else row._replace(arguments=change.arguments))
        else:
            columns, values = _differing(row, before)
            updated.setdefault(columns, []).append((change.place, change.arguments, *values))
    if removed:
        connection.executemany(_DELETE, removed)
    if completed:
        connection.executemany(_ADD_ARGUMENTS, completed)
    for columns, changed in updated.items():
        for some in _portions(changed):
            connection.execute(_update(columns, len(some)), tuple(chain.from_iterable(some)))
    for rows in _portions(inserted):
        connection.execute(_insert(len(rows)), tuple(chain.from_iterable(rows)))


def _differing(row: JobRow, before: _Head) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """The columns that differ from what stands there, or may, and their values."""
    plain = (*row.version, row.source_key, row.source_offset, row.body, row.details)
    indexed = (row.created, row.tenant_key, row.worker_key, row.user_key, row.conversation_key)
    if before.indexed != indexed:
        return _REPLACED, (*plain, row.status, *indexed)
    return (_PLAIN, plain) if before.status == row.status else (_MOVED, (*plain, row.status))


@cache
def _insert(count: int) -> str:
    return f"INSERT OR FAIL INTO jobs ({', '.join(JobRow._fields)}) VALUES {_rows(JobRow._fields, count)}"


@cache
def _update(columns: tuple[str, ...], count: int) -> str:
    """A statement that writes these columns of so many rows: each is given as its place, its arguments, and the columns."""
    names = ("place", "arguments", *columns)
    written = ", ".join(f"{name} = new.{name}" for name in columns)
    return (
        f"WITH new ({', '.join(names)}) AS (VALUES {_rows(names, count)}) UPDATE OR FAIL jobs"
        f" SET {written}, arguments = coalesce(new.arguments, jobs.arguments) FROM new WHERE jobs.place = new.place"
    )


def _rows(names: Sequence[str], count: int) -> str:
    return ", ".join([f"({', '.join('?' * len(names))})"] * count)


def _portions(rows: Sequence[RowT]) -> Iterator[Sequence[RowT]]:
    """All of them, in as few parts as `_AT_ONCE` has sizes for."""
    start = 0
    for count in _AT_ONCE:
        while len(rows) - start >= count:
            yield rows[start : start + count]
            start += count


def sweep(connection: sqlite3.Connection, worker: str, watermarks: Mapping[int, int]) -> int:
    """Deletes the jobs below a worker's watermarks of which nothing but their acceptance is known; returns how many.

    They have ended, and their end is no longer in the log. It is true only once `job-state` was read past the point at which the
    watermarks were asked for.
    """
    return sum(
        connection.execute(
            "DELETE FROM jobs WHERE epoch < 0 AND source_key = ? AND source_offset < ?",
            (partition_key(worker, partition), watermark),
        ).rowcount
        for partition, watermark in watermarks.items()
    )
