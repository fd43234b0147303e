"""The records of `recordings`: what their keys and headers say."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from headrace.core.partitions import key_partition
from headrace.core.records import source_header
from headrace.models import Job, RecordingHeaders
from headrace.ports import Header, RecordingKey


class RecordingPlace(NamedTuple):
    """Which attempt of which job recorded something, and what."""

    job_id: str
    attempt: int
    key: RecordingKey


def recording_key(job_id: str, attempt: int, key: RecordingKey) -> bytes:
    """Key of a record. Each part is percent-encoded, so that a slash in one cannot make it another.

    What failed before there was an answer has its own number behind that of the answer.
    """
    failure = "" if key.failure is None else f"/{key.failure}"
    return f"{quote(job_id, safe='')}/{attempt}/{quote(key.name, safe='')}/{key.number}{failure}".encode()


def parse_recording_key(key: bytes | None) -> RecordingPlace | None:
    """What the key of a record says, or None for any other key."""
    parts = (key or b"").split(b"/")
    if len(parts) not in (4, 5) or not all(each.isdigit() for each in (parts[1], *parts[3:])):
        return None
    job_id, name = (unquote(part.decode(errors="replace")) for part in (parts[0], parts[2]))
    failure = int(parts[4]) if len(parts) == 5 else None
    return RecordingPlace(job_id, int(parts[1]), RecordingKey(name, int(parts[3]), failure))


def job_part(job_id: str) -> bytes:
    """The first part of the keys of all that a job recorded."""
    return quote(job_id, safe="").encode()


def recording_partition(job_id: str, count: int) -> int:
    """The partition, of so many, of all that a job recorded."""
    return key_partition(job_id, count)


def recording_headers(job: Job) -> tuple[Header, ...]:
    """The headers of all that a job records."""
    described, source = _described(job.tenant, job.worker_name), job.source
    return described if source is None else (*described, source_header(job.worker_name, source.partition, source.offset))


@lru_cache(maxsize=1_024)
def _described(tenant: str, worker_name: str) -> tuple[Header, ...]:
    described = RecordingHeaders(tenant=tenant, worker_name=worker_name)
    return tuple((name, str(value).encode()) for name, value in described.to_wire().items())
