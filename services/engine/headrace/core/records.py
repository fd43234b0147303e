"""Keys and headers of records: what a reader needs to know of a record before it looks at its value."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import quote

from headrace.core.ownership import Version

LEASE_PREFIX = b"lease/"
CHECKPOINT_PREFIX = b"checkpoint/"
DEFINITION_PREFIX = b"definition/"
INSTANCE_PREFIX = b"instance/"
CANCELLATION_PREFIX = b"job/"
PAUSE_PREFIX = b"worker/"

SOURCE_HEADER = "headrace-source"
VERSION_HEADER = "headrace-version"
STATUS_HEADER = "headrace-status"
REPEAT_HEADER = "headrace-repeat"
REMOVAL_HEADER = "headrace-removal"


def lease_name(instance_id: str, number: int) -> str:
    """What an instance calls the lease of a job partition that it claims for the so-manyth time, counted from 1.

    Every claim has a name of its own, and so a key: what is said of one never stands over what is said of another, of which
    compaction would leave nothing then. No claim has number 0.
    """
    return instance_id if number == 1 else f"{instance_id}.{number}"


def instance_of(lease: str) -> str:
    """The id of the instance that claimed a lease of this name; no dot is in it."""
    return lease.partition(".")[0]


class LeaseKey(NamedTuple):
    """Which lease a record of `job-state` is about.

    Attributes:
        lease: its name; see `lease_name`.
    """

    worker: str
    partition: int
    lease: str

    @property
    def instance_id(self) -> str:
        """Whose it is."""
        return instance_of(self.lease)


def lease_key(worker: str, partition: int, lease: str) -> bytes:
    """Key of the claim of a job partition that has this name, of its renewals and of its release."""
    return f"lease/{worker}/{partition}/{lease}".encode()


def parse_lease_key(key: bytes) -> LeaseKey | None:
    """The parts of a lease record's key, or None for any other key."""
    parts = key.split(b"/")
    if len(parts) != 4 or parts[0] != b"lease" or not parts[2].isdigit():
        return None
    return LeaseKey(parts[1].decode(errors="replace"), int(parts[2]), parts[3].decode(errors="replace"))


def checkpoint_key(worker: str, partition: int, lease: str) -> bytes:
    """Key of the checkpoints of one job partition under the lease of this name."""
    return f"checkpoint/{worker}/{partition}/{lease}".encode()


def parse_checkpoint_key(key: bytes) -> LeaseKey | None:
    """Under which lease a checkpoint was written by its key, or None for any other key."""
    return parse_lease_key(key.replace(CHECKPOINT_PREFIX, LEASE_PREFIX, 1)) if key.startswith(CHECKPOINT_PREFIX) else None


def checkpoint_prefix(worker: str, partition: int) -> bytes:
    """What the keys of all checkpoints of one job partition begin with."""
    return f"checkpoint/{worker}/{partition}/".encode()


def definition_key(worker: str) -> bytes:
    return DEFINITION_PREFIX + worker.encode()


def instance_key(instance_id: str) -> bytes:
    return INSTANCE_PREFIX + instance_id.encode()


def cancellation_key(tenant: str, job_id: str) -> bytes:
    """Key of the request to cancel a job. Each part is percent-encoded, so that a slash in one cannot make it another."""
    return b"%b%b/%b" % (CANCELLATION_PREFIX, quote(tenant, safe="").encode(), quote(job_id, safe="").encode())


def pause_key(worker: str) -> bytes:
    return PAUSE_PREFIX + worker.encode()


def memory_key(tenant: str, user_id: str, conversation_id: str, record_id: str) -> bytes:
    """Key of a record of `memory`. Each part is percent-encoded, so that a slash in one cannot make it another."""
    return "/".join(quote(part, safe="") for part in (tenant, user_id, conversation_id, record_id)).encode()


def conversation_key(tenant: str, user_id: str, conversation_id: str) -> str:
    """What decides the partition of `memory` in which all records of a conversation stand."""
    return "/".join(quote(part, safe="") for part in (tenant, user_id, conversation_id))


class SnapshotHeaders(NamedTuple):
    """What the headers of a snapshot tell: which job record it is about, its version and the job's status.

    Attributes:
        outdone: where the janitor wrote it, once more, the highest version that is void of what stood above the one that it
            repeats. A repeat is never void, and is as old as what it repeats.
    """

    worker: str
    partition: int
    offset: int
    version: Version
    status: str
    outdone: Version | None = None

    @property
    def repeated(self) -> bool:
        """Whether the janitor wrote it."""
        return self.outdone is not None


def source_prefix(worker: str, partition: int) -> bytes:
    """What the source headers of all jobs of a partition begin with; the offset follows."""
    return f"{worker}/{partition}/".encode()


def source_header(worker: str, partition: int, offset: int) -> tuple[str, bytes]:
    return SOURCE_HEADER, b"%b%d" % (source_prefix(worker, partition), offset)


def version_header(version: Version) -> tuple[str, bytes]:
    return VERSION_HEADER, b"%d/%d/%d" % version


def repeat_header(outdone: Version) -> tuple[str, bytes]:
    """The mark of a snapshot that the janitor writes again; see `SnapshotHeaders.outdone`."""
    return REPEAT_HEADER, b"%d/%d/%d" % outdone


def status_header(status: str) -> tuple[str, bytes]:
    return STATUS_HEADER, status.encode()


def parse_snapshot_headers(headers: Iterable[tuple[str, bytes]]) -> SnapshotHeaders | None:
    """The headers of a snapshot, or None if they are missing or damaged."""
    found = dict(headers)
    try:
        partition, _, offset = found[SOURCE_HEADER].rpartition(b"/")
        status, version = found[STATUS_HEADER].decode(), parse_version(found[VERSION_HEADER])
        outdone = parse_version(found[REPEAT_HEADER]) if REPEAT_HEADER in found else None
        return SnapshotHeaders(*_parse_partition(partition), int(offset), version, status, outdone)
    except (KeyError, ValueError, AttributeError):  # AttributeError: a header without a value
        return None


RemovalReason = Literal["void", "ended"]


class Removal(NamedTuple):
    """What the header of a tombstone tells that the janitor wrote.

    Attributes:
        reason: `void` where nothing of the job counted, `ended` where its record in the queue is deleted.
        version: of the newest snapshot that it removes; one with a higher version is not meant.
    """

    reason: RemovalReason
    version: Version


def removal_header(removal: Removal) -> tuple[str, bytes]:
    return REMOVAL_HEADER, b"%b/%d/%d/%d" % (removal.reason.encode(), *removal.version)


def parse_removal(headers: Iterable[tuple[str, bytes]]) -> Removal | None:
    """What the header of a tombstone tells, or None if it has none, or a damaged one."""
    for name, value in headers:
        if name == REMOVAL_HEADER:
            reason, _, version = (value or b"").partition(b"/")
            try:
                return Removal("void" if reason == b"void" else "ended", parse_version(version))
            except ValueError:
                return None
    return None


# The same few come again and again: a reader of millions of snapshots does not take them apart each time.
@lru_cache(maxsize=4_096)
def _parse_partition(text: bytes) -> tuple[str, int]:
    worker, partition = text.split(b"/")
    return worker.decode(), int(partition)


@lru_cache(maxsize=4_096)
def parse_version(text: bytes) -> Version:
    """The version in the header of a snapshot; raises ValueError where there is none in it."""
    epoch, attempt, sequence = text.split(b"/")
    return Version(int(epoch), int(attempt), int(sequence))
