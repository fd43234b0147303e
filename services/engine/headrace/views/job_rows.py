"""Between a job on the wire and its row: what is indexed, what lists show, and what only a single job's answer has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from headrace.codec import encode_foreign
from headrace.core.ownership import Version
from headrace.core.status import JobStatus
from headrace.core.timestamps import parse_timestamp
from headrace.models import DEFAULT_TENANT
from headrace.views.database import Schema

ARGUMENTS_LISTED_BYTES: Final = 4 * 1024
CONTEXT_LISTED_BYTES: Final = 4 * 1024
STORED_WHOLE_BYTES: Final = 4 * 1024
"""A job that is no longer than this is stored as it came; of a longer one, what lists leave out is stored apart."""

LEVELS_TOLD: Final = 200
"""What of a job is nested deeper is left out of every answer. Pydantic and orjson write some 250 levels, and read more."""

ARGUMENTS_OMITTED: Final = "argsOmitted"
CONTEXT_OMITTED: Final = "ctxOmitted"

STATUSES: Final = tuple(JobStatus)
STATUS_NUMBERS: Final[Mapping[str, int]] = {status: number for number, status in enumerate(STATUSES)}

# `id` is 16 bytes for a UUID and text for any other. Each `..._key` is a hash of the tenant and the name, so that an index entry
# is short and one tenant's rows never lie among another's. Indexes under whose names very many jobs may stand have the status in
# them: jobs of any status are merged from one range for each. `body` is what lists show; `arguments` and `details` are what they
# leave out of a long one, and stand behind it, so that a list does not read them. `jobs_accepted` has only the jobs of which no
# engine has written yet.
SCHEMA: Final = Schema(
    name="jobs",
    version=4,
    # Tombstones stay in the log for a day: a view that slept for longer may have missed some.
    oldest_seconds=20 * 3600.0,
    statements=(
        "CREATE TABLE jobs (place INTEGER PRIMARY KEY, id NOT NULL, status INTEGER NOT NULL, created INTEGER NOT NULL,"
        " epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, sequence INTEGER NOT NULL,"
        " source_key INTEGER, source_offset INTEGER,"
        " tenant_key INTEGER NOT NULL, worker_key INTEGER NOT NULL, user_key INTEGER, conversation_key INTEGER,"
        " body BLOB NOT NULL, arguments BLOB, details BLOB)",
        "CREATE UNIQUE INDEX jobs_by_id ON jobs (id)",
        "CREATE INDEX jobs_by_tenant ON jobs (tenant_key, status, created, id)",
        "CREATE INDEX jobs_accepted ON jobs (source_key, source_offset) WHERE epoch < 0",
        "CREATE TABLE ledgers (worker TEXT, partition INTEGER, epoch INTEGER NOT NULL, last_lease INTEGER NOT NULL,"
        " holder TEXT, previous INTEGER NOT NULL, released INTEGER NOT NULL, PRIMARY KEY (worker, partition)) WITHOUT ROWID",
    ),
)

# Their entries lie all over the index: to sort a million at once takes seconds, to put them in one by one a minute. So they are
# made when `job-state` was read for the first time; until then `jobs_by_tenant` serves every filter, if slowly.
LATE_INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS jobs_by_worker ON jobs (worker_key, status, created, id)",
    "CREATE INDEX IF NOT EXISTS jobs_by_user ON jobs (user_key, status, created, id) WHERE user_key IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS jobs_by_conversation ON jobs (conversation_key, created, id) WHERE conversation_key IS NOT NULL",
)

JobKey = bytes | str
_LARGEST: Final = 2**63 - 1


class JobRow(NamedTuple):
    """A row of `jobs`, without its place."""

    id: JobKey
    status: int
    created: int
    epoch: int
    attempt: int
    sequence: int
    source_key: int | None
    source_offset: int | None
    tenant_key: int
    worker_key: int
    user_key: int | None
    conversation_key: int | None
    body: bytes
    arguments: bytes | None
    details: bytes | None

    @property
    def version(self) -> Version:
        return Version(self.epoch, self.attempt, self.sequence)


def job_key(job_id: str) -> JobKey:
    """A job's id as the table has it: a UUID in its usual form takes 16 bytes, any other id stays text."""
    if len(job_id) == 36 and job_id[8] == job_id[13] == job_id[18] == job_id[23] == "-":
        digits = job_id.replace("-", "")
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            return job_id
        if raw.hex() == digits and len(raw) == 16:
            return raw
    return job_id


@lru_cache(maxsize=65_536)
def name_key(kind: str, tenant: str, name: str = "") -> int:
    """What stands in the indexes for a name of a tenant: 64 bits of a hash."""
    text = f"{kind}\x1f{len(tenant)}\x1f{tenant}{name}"
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big", signed=True)


@lru_cache(maxsize=4_096)
def partition_key(worker: str, partition: int) -> int:
    """What stands in the table for a partition of a worker's topic."""
    return name_key("partition", worker, str(partition))


class Origin(NamedTuple):
    """Where a job's record stands: a partition of its worker's topic, and an offset."""

    worker: str
    partition: int
    offset: int


def row_of(raw: dict[str, Any], version: Version, status: int, origin: Origin | None, value: bytes | None = None) -> JobRow:
    """The row of a job from its JSON object, which is used up by it.

    Args:
        raw: the job on the wire.
        version: of the snapshot, or `ACCEPTED`.
        status: its number in `STATUSES`.
        origin: where the job's record stands, if that is known.
        value: the bytes of `raw`, if there are any: they are taken for `body` where nothing of them is left out.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a field that the table needs is missing or is not what it should be.
    """
    tenant, context = raw.get("tenant", DEFAULT_TENANT), raw.get("ctx") or {}
    user, conversation = context.get("userId"), context.get("conversationId")
    offset = None if origin is None else origin.offset
    if version.epoch > _LARGEST or version.attempt > _LARGEST or version.sequence > _LARGEST or (offset or 0) > _LARGEST:
        raise ValueError("a number in its headers is out of range")
    key, created, worker = job_key(raw["id"]), parse_timestamp(raw["createdAt"]), raw["workerName"]
    body, arguments, details = encode_foreign(raw) if value is None else value, None, None
    if len(body) > STORED_WHOLE_BYTES:
        body, arguments, details = _set_aside(raw)
    return JobRow(
        key,
        status,
        created,
        *version,
        None if origin is None else partition_key(origin.worker, origin.partition),
        offset,
        name_key("tenant", tenant),
        name_key("worker", tenant, worker),
        None if user is None else name_key("user", tenant, user),
        None if conversation is None else name_key("conversation", tenant, conversation),
        body,
        arguments,
        details,
    )


def _set_aside(raw: dict[str, Any]) -> tuple[bytes, bytes | None, bytes | None]:
    """Parts a job into what lists show of it, its arguments, and the other fields that are too long to be read for a list."""
    details: dict[str, Any] = {name: raw[name] for name in ("result", "error", "attempts") if name in raw}
    arguments: bytes | None = None
    if "args" in raw and len(given := encode_foreign(raw["args"])) > ARGUMENTS_LISTED_BYTES:
        arguments = given
        del raw["args"]
    context = raw.get("ctx")
    if context and len(encode_foreign(context)) > CONTEXT_LISTED_BYTES:
        details["ctx"] = context
        raw["ctx"] = {name: context[name] for name in ("userId", "conversationId", "source") if name in context}
        raw[CONTEXT_OMITTED] = True
    return encode_foreign(_as_listed(raw)), arguments, encode_foreign(details) if details else None


def _as_listed(raw: dict[str, Any]) -> dict[str, Any]:
    raw.pop("result", None)
    if "error" in raw:
        raw["error"] = _without_traceback(raw["error"])
    if any("error" in attempt for attempt in raw.get("attempts", ())):
        raw["attempts"] = [
            {**attempt, "error": _without_traceback(attempt["error"])} if "error" in attempt else attempt
            for attempt in raw["attempts"]
        ]
    if raw.get("args") is None:
        raw[ARGUMENTS_OMITTED] = True
    return raw


def _without_traceback(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if error is None else {name: value for name, value in error.items() if name != "traceback"}


def listed(body: bytes) -> dict[str, Any]:
    """A job as lists show it."""
    return _shallow(_as_listed(orjson.loads(body)), body)


def whole(body: bytes, arguments: bytes | None, details: bytes | None) -> dict[str, Any]:
    """A job with all that is known of it."""
    raw: dict[str, Any] = orjson.loads(body)
    if details is not None:
        raw.update(orjson.loads(details))
        raw.pop(CONTEXT_OMITTED, None)
    if arguments is not None:
        raw["args"] = orjson.loads(arguments)
    raw.pop(ARGUMENTS_OMITTED, None)
    return _shallow(raw, body, arguments or b"", details or b"")


def _shallow(raw: dict[str, Any], *parts: bytes) -> dict[str, Any]:
    """A job without what is nested so deep that nobody could write it: that must not take the whole answer with it.

    Args:
        parts: the JSON of it.
    """
    if sum(part.count(b"{") + part.count(b"[") for part in parts) <= LEVELS_TOLD:
        return raw
    for name in [name for name, value in raw.items() if _is_deeper(value, LEVELS_TOLD)]:
        value = raw.pop(name)
        raw[f"{name}Omitted"] = True
        if name == "ctx" and isinstance(value, dict):
            raw[name] = {each: value[each] for each in ("userId", "conversationId", "source") if each in value}
    return raw


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more levels than so many."""
    level = [value]
    for _ in range(levels + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return True
