"""Pages of jobs, newest first: which index serves a filter, and where a page begins."""

from __future__ import annotations

import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from headrace.core.ownership import Version
from headrace.core.status import JobStatus
from headrace.core.timestamps import to_milliseconds
from headrace.errors import ArgumentsInvalid
from headrace.models import DEFAULT_TENANT
from headrace.views.job_rows import STATUS_NUMBERS, STATUSES, JobKey, Origin, job_key, name_key, partition_key

LARGEST_PAGE: Final = 1_000
ALWAYS_THERE: Final = "jobs_by_tenant"
"""The index that serves any filter of a tenant's jobs while a new file has no other yet."""

_UNFINISHED: Final = (JobStatus.SCHEDULED, JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs: those of one tenant, and of them the ones that have all that is given.

    Attributes:
        since, until: created at or after the one and before the other; with a zone.

    Raises:
        ArgumentsInvalid: a time has no zone.
    """

    tenant: str = DEFAULT_TENANT
    status: JobStatus | None = None
    worker_name: str | None = None
    user_id: str | None = None
    conversation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if any(moment is not None and moment.tzinfo is None for moment in (self.since, self.until)):
            raise ArgumentsInvalid("since and until need a time zone: nobody could say which moment they mean without.")

    @property
    def created(self) -> list[tuple[str, int]]:
        """Conditions on when a job was created, in milliseconds since the Unix epoch."""
        bounds = ((">=", self.since), ("<", self.until))
        return [(f"created {relation} ?", _at_or_after(moment)) for relation, moment in bounds if moment is not None]


def _at_or_after(moment: datetime) -> int:
    """The first whole millisecond that is not before a time."""
    return to_milliseconds(moment) + bool(moment.microsecond % 1_000)


def status_named(name: str | None) -> JobStatus | None:
    """The status of a name. Raises ArgumentsInvalid where there is none."""
    if name is not None and name not in set(JobStatus):
        raise ArgumentsInvalid(f"{name!r} is no status; there are: {', '.join(JobStatus)}.")
    return JobStatus(name) if name else None


class Cursor(NamedTuple):
    """The last job of a page: the next page begins after it."""

    created: int
    id: JobKey

    def encode(self) -> str:
        """The cursor as callers see it, and need not understand."""
        text = self.id.hex() if isinstance(self.id, bytes) else f"={self.id}"
        return urlsafe_b64encode(f"{self.created}/{text}".encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """The cursor that `encode` made.

        Raises:
            ArgumentsInvalid: it is none.
        """
        try:
            plain = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode()
            created, _, key = plain.partition("/")
            cursor = cls(int(created), key[1:] if key.startswith("=") else bytes.fromhex(key))
        except ValueError:
            cursor = None
        if cursor is None or cursor.encode() != text or not -(2**63) <= cursor.created < 2**63:
            raise ArgumentsInvalid(
                "cursor: it is not the `nextCursor` of an earlier page; leave it out to begin with the newest job."
            )
        return cursor


class Page(NamedTuple):
    """The bodies of a page's jobs, and where the next page begins; None: there is none."""

    bodies: list[bytes]
    next: Cursor | None


def check_limit(limit: int) -> None:
    """Raises ArgumentsInvalid unless a page may have that many jobs."""
    if not 1 <= limit <= LARGEST_PAGE:
        raise ArgumentsInvalid(f"limit: it must be from 1 to {LARGEST_PAGE}, and is {limit}.")


def page(connection: sqlite3.Connection, wanted: JobFilter, limit: int, after: Cursor | None) -> Page:
    """The newest jobs that the filter lets through and that come after `after`, at most `limit` of them."""
    index = index_for(wanted)
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (index,)).fetchone()
    sql, values = statement(wanted, limit + 1, after, index if found else ALWAYS_THERE)
    rows = connection.execute(sql, values).fetchall()
    more = Cursor(rows[limit - 1][0], rows[limit - 1][1]) if len(rows) > limit else None
    return Page([body for _, _, body in rows[:limit]], more)


def index_for(wanted: JobFilter) -> str:
    """The index of the narrowest filter; the other filters are checked on its rows."""
    if wanted.conversation_id is not None:
        return "jobs_by_conversation"
    if wanted.user_id is not None:
        return "jobs_by_user"
    return ALWAYS_THERE if wanted.worker_name is None else "jobs_by_worker"


def statement(wanted: JobFilter, limit: int, after: Cursor | None, index: str) -> tuple[str, list[object]]:
    """Ranges of one index, merged."""
    named = [
        (column, name_key(kind, wanted.tenant, name))
        for column, kind, name in (
            ("conversation_key", "conversation", wanted.conversation_id),
            ("user_key", "user", wanted.user_id),
            ("worker_key", "worker", wanted.worker_name),
        )
        if name is not None
    ]
    if index == ALWAYS_THERE:
        named.append(("tenant_key", name_key("tenant", wanted.tenant)))
    ranges = _ranges(wanted, index)
    condition = " AND ".join(f"{column} = ?" for column, _ in named)
    if None not in ranges:
        condition += " AND status = ?"
    condition += "".join(f" AND {bound}" for bound, _ in wanted.created)
    if after is not None:
        condition += " AND (created, id) < (?, ?)"
    one = f"SELECT place, created, id FROM jobs INDEXED BY {index} WHERE {condition} ORDER BY created DESC, id DESC LIMIT ?"
    # In the order of the conditions.
    begin: list[object] = [*(at for _, at in wanted.created), *([] if after is None else [after.created, after.id])]
    values: list[object] = []
    for status in ranges:
        values += [*(key for _, key in named), *([] if status is None else [status]), *begin, limit]
    merged = " UNION ALL ".join(f"SELECT * FROM ({one})" for _ in ranges)
    sql = (
        f"SELECT jobs.created, jobs.id, jobs.body FROM (SELECT place, created, id FROM ({merged})"
        " ORDER BY created DESC, id DESC LIMIT ?) AS found CROSS JOIN jobs ON jobs.place = found.place"
        " ORDER BY found.created DESC, found.id DESC"
    )
    return sql, [*values, limit]


def _ranges(wanted: JobFilter, index: str) -> Sequence[int | None]:
    """The statuses to be merged; the index of conversations has none in it."""
    if wanted.status is not None:
        return (STATUS_NUMBERS[wanted.status],)
    return (None,) if index == "jobs_by_conversation" else range(len(STATUSES))


def single(connection: sqlite3.Connection, job_id: str, tenant: str) -> tuple[bytes, bytes | None, bytes | None] | None:
    """Body, arguments and details of a job, or None if the tenant has none of that id."""
    try:
        found: tuple[bytes, bytes | None, bytes | None] | None = connection.execute(
            "SELECT body, arguments, details FROM jobs WHERE id = ? AND tenant_key = ?",
            (job_key(job_id), name_key("tenant", tenant)),
        ).fetchone()
    except UnicodeEncodeError:
        return None  # somebody has typed bytes that are no text: no job has such an id
    return found


def count(connection: sqlite3.Connection, tenant: str) -> dict[JobStatus, int]:
    """How many jobs a tenant has, by status; each status is there."""
    found = connection.execute(
        "SELECT status, count(*) FROM jobs INDEXED BY jobs_by_tenant WHERE tenant_key = ? GROUP BY status",
        (name_key("tenant", tenant),),
    )
    return dict.fromkeys(STATUSES, 0) | {STATUSES[status]: number for status, number in found}


class Standing(NamedTuple):
    """A job as it stands: the version of its snapshot, its status, and the body that lists show."""

    id: JobKey
    version: Version
    status: JobStatus
    body: bytes


def several(connection: sqlite3.Connection, keys: Sequence[JobKey], wanted: JobFilter) -> list[Standing]:
    """Those of the jobs that the filter lets through, in the order of the keys; there may be some hundreds of them."""
    sql = f"""SELECT id, epoch, attempt, sequence, status, body FROM jobs INDEXED BY jobs_by_id
        WHERE id IN ({",".join("?" * len(keys))}) AND tenant_key = ?"""
    values: list[object] = [*keys, name_key("tenant", wanted.tenant)]
    if wanted.status is not None:
        sql += " AND status = ?"
        values.append(STATUS_NUMBERS[wanted.status])
    for bound, at in wanted.created:
        sql += f" AND {bound}"
        values.append(at)
    found = {
        key: Standing(key, Version(epoch, attempt, sequence), STATUSES[status], body)
        for key, epoch, attempt, sequence, status, body in connection.execute(sql, values)
    }
    return [found[key] for key in keys if key in found]


def accepted_since(connection: sqlite3.Connection, tenant: str, origins: Sequence[Origin], limit: int) -> list[JobKey]:
    """The jobs of a tenant of which no engine has written yet, and whose records stand at or above these places."""
    found: list[JobKey] = []
    for worker, partition, offset in origins:
        rows = connection.execute(
            "SELECT id FROM jobs INDEXED BY jobs_accepted WHERE epoch < 0 AND source_key = ? AND source_offset >= ?"
            " AND tenant_key = ? ORDER BY source_offset LIMIT ?",
            (partition_key(worker, partition), offset, name_key("tenant", tenant), limit - len(found)),
        )
        found += [key for (key,) in rows]
        if len(found) >= limit:
            break
    return found


MOST_COUNTED: Final = 10_000
"""Jobs of one worker and status above which no more are counted: so a count takes a moment, however many there are."""


class WorkerCounts(NamedTuple):
    """How many jobs of a worker wait, run, and have failed; of each at most `MOST_COUNTED`."""

    backlog: int
    running: int
    failed: int


def count_of_worker(connection: sqlite3.Connection, tenant: str, worker: str, user_id: str | None) -> WorkerCounts:
    """How a worker is doing, as far as it concerns a tenant, or one user of it."""
    conditions, values = ["worker_key = ?"], [name_key("worker", tenant, worker)]
    if user_id is not None:
        conditions.append("user_key = ?")
        values.append(name_key("user", tenant, user_id))
    index = index_for(JobFilter(tenant=tenant, worker_name=worker, user_id=user_id))
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (index,)).fetchone() is None:
        index = ALWAYS_THERE
        conditions.append("tenant_key = ?")
        values.append(name_key("tenant", tenant))

    def counted(status: JobStatus) -> int:
        sql = f"SELECT 1 FROM jobs INDEXED BY {index} WHERE {' AND '.join(conditions)} AND status = ? LIMIT {MOST_COUNTED}"
        [number] = connection.execute(f"SELECT count(*) FROM ({sql})", (*values, STATUS_NUMBERS[status])).fetchone()
        return int(number)

    waiting = counted(JobStatus.QUEUED) + counted(JobStatus.SCHEDULED)
    return WorkerCounts(min(waiting, MOST_COUNTED), counted(JobStatus.RUNNING), counted(JobStatus.FAILED))


def count_unfinished(connection: sqlite3.Connection, worker: str, partitions: int) -> tuple[int, int]:
    """How many jobs of a worker wait, and how many run, of all tenants.

    Args:
        partitions: of the worker's queue.
    """
    # One range of the index for each tenant and status: what has ended is by far the most, and is not looked at.
    sources = [partition_key(worker, number) for number in range(partitions)]
    found = dict(
        connection.execute(
            f"""WITH RECURSIVE tenants (key) AS (
                SELECT min(tenant_key) FROM jobs
                UNION ALL SELECT (SELECT min(tenant_key) FROM jobs WHERE tenant_key > tenants.key) FROM tenants
                WHERE tenants.key IS NOT NULL)
            SELECT jobs.status, count(*) FROM tenants CROSS JOIN jobs INDEXED BY {ALWAYS_THERE} ON jobs.tenant_key = tenants.key
            WHERE jobs.status IN (?, ?, ?) AND jobs.source_key IN ({",".join("?" * partitions)}) GROUP BY jobs.status""",
            [*(STATUS_NUMBERS[status] for status in _UNFINISHED), *sources],
        ).fetchall()
    )
    running = int(found.pop(STATUS_NUMBERS[JobStatus.RUNNING], 0))
    return sum(found.values()), running


def matches(raw: dict[str, object], wanted: JobFilter) -> bool:
    """Whether a job is what the filter asks for: two names with one hash are told apart here."""
    context = raw.get("ctx")
    given = context if isinstance(context, dict) else {}
    return (
        raw.get("tenant", DEFAULT_TENANT) == wanted.tenant
        and wanted.worker_name in (None, raw.get("workerName"))
        and wanted.user_id in (None, given.get("userId"))
        and wanted.conversation_id in (None, given.get("conversationId"))
    )
