"""The table of jobs: what a batch of facts makes of its rows, decided in one place, and written with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from headrace.core.ownership import Version, supersedes
from headrace.core.status import TERMINAL
from headrace.views.job_rows import STATUSES, JobKey, JobRow, partition_key


class Repeated(NamedTuple):
    """A snapshot that the janitor wrote again; see `SnapshotHeaders.outdone`."""

    row: JobRow
    outdone: Version


Fact = tuple[JobKey, JobRow | Repeated | Version | None]
"""What a record tells of a job: a valid snapshot, or a repeat of one; that it was accepted, as a row of version `ACCEPTED`; or a
tombstone: the version up to which it removes what there is, or None for whatever there is."""

_LOOKED_UP_AT_ONCE: Final = 500
_INSERT: Final = f"INSERT INTO jobs ({', '.join(JobRow._fields)}) VALUES ({', '.join('?' * len(JobRow._fields))})"
# With each step of a statement another thread may run, and have the interpreter for a while: a step writes many rows.
_INSERTED_AT_ONCE: Final = 50
_INSERT_MANY: Final = _INSERT + f", ({', '.join('?' * len(JobRow._fields))})" * (_INSERTED_AT_ONCE - 1)
# A column that is named makes SQLite rewrite the entries of every index that has it: what stays the same is not named.
_PLAIN: Final = (
    "epoch = ?, attempt = ?, sequence = ?, source_key = ?, source_offset = ?, body = ?, details = ?,"
    " arguments = coalesce(?, arguments)"
)
_UPDATE: Final = f"UPDATE jobs SET {_PLAIN} WHERE place = ?"
_MOVE: Final = f"UPDATE jobs SET {_PLAIN}, status = ? WHERE place = ?"
_REPLACE: Final = (
    f"UPDATE jobs SET {_PLAIN}, status = ?, created = ?, tenant_key = ?, worker_key = ?, user_key = ?, conversation_key = ?"
    " WHERE place = ?"
)
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
    statements: dict[str, list[tuple[object, ...]]] = {
        statement: [] for statement in (_DELETE, _UPDATE, _MOVE, _REPLACE, _ADD_ARGUMENTS)
    }
    inserted: list[JobRow] = []
    for change in changes:
        row, before = change.row, change.before
        if change.removed is not None:
            statements[_DELETE].append((change.removed,))
        if row is None:
            if change.arguments is not None and change.place is not None:
                statements[_ADD_ARGUMENTS].append((change.arguments, change.place))
            continue
        if before is None:
            inserted.append(row if row.arguments is change.arguments else row._replace(arguments=change.arguments))
            continue
        plain = (*row.version, row.source_key, row.source_offset, row.body, row.details, change.arguments)
        indexed = (row.created, row.tenant_key, row.worker_key, row.user_key, row.conversation_key)
        if before.indexed != indexed:
            statements[_REPLACE].append((*plain, row.status, *indexed, change.place))
        elif before.status != row.status:
            statements[_MOVE].append((*plain, row.status, change.place))
        else:
            statements[_UPDATE].append((*plain, change.place))
    for statement, values in statements.items():
        if values:
            connection.executemany(statement, values)
    _insert(connection, inserted)


def _insert(connection: sqlite3.Connection, rows: Sequence[JobRow]) -> None:
    rest = len(rows) % _INSERTED_AT_ONCE
    for start in range(0, len(rows) - rest, _INSERTED_AT_ONCE):
        connection.execute(_INSERT_MANY, tuple(chain.from_iterable(rows[start : start + _INSERTED_AT_ONCE])))
    connection.executemany(_INSERT, rows[len(rows) - rest :])


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
