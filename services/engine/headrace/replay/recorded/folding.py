"""What records of `job-state` say of jobs, read in the order of the log: which count, and which are void."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from headrace.core.ownership import PartitionLedger, Version, supersedes
from headrace.core.records import (
    CHECKPOINT_PREFIX,
    LEASE_PREFIX,
    REPEAT_HEADER,
    SOURCE_HEADER,
    STATUS_HEADER,
    VERSION_HEADER,
    parse_lease_key,
    parse_version,
    source_prefix,
)
from headrace.core.status import JobStatus
from headrace.errors import RecordUndecodable
from headrace.leases import take_lease
from headrace.ports import UnplacedRecord
from headrace.replay.history import RecordedJob

# What a record can be in its values, whoever wrote it; anything else is a fault of this code.
UNUSABLE = (RecordUndecodable, KeyError, TypeError, ValueError, AttributeError)
STATUSES: Final = {status.encode(): status.value for status in JobStatus}

Place = bytes
"""Where a job record stands, as the headers of its snapshots have it: worker, partition and offset."""


def place_of(worker: str, partition: int, offset: int) -> Place:
    """The place of a job record."""
    return b"%b%d" % (source_prefix(worker, partition), offset)


def place_of_job(job: RecordedJob) -> Place:
    """The place of a job's record, which is one of the job's worker."""
    return place_of(job.record["workerName"], job.source.partition, job.offset)


class Seen(NamedTuple):
    """A snapshot that was read.

    Attributes:
        place: of the job's record.
        outdone: where a janitor wrote it once more; see `SnapshotHeaders.outdone`.
        void: whether it is one of the last words of an engine that did not hold the job any more.
    """

    place: Place
    version: Version
    status: str
    outdone: Version | None
    void: bool

    @property
    def repeated(self) -> bool:
        """Whether a janitor wrote it."""
        return self.outdone is not None


class Claims:
    """The claims of the job partitions whose state stands in one partition of `job-state`, as far as that was read.

    Whoever begins in the middle of the log knows a lease by its next renewal, which comes within seconds.

    Attributes:
        ledgers: by what the places of a job partition begin with.
        damaged: how many records could not be read, by kind.
    """

    def __init__(self) -> None:
        self.ledgers: dict[bytes, PartitionLedger] = {}
        self.damaged: Counter[str] = Counter()

    def see(self, record: UnplacedRecord) -> Seen | None:
        """Takes in a record. None for all that is no snapshot, tombstones included.

        This is asked of every record of the log: what an engine writes is taken apart without a further call.
        """
        headers, outdone = record.headers, None
        if record.value is None:
            return None
        if len(headers) == 3 and headers[0][0] == SOURCE_HEADER and headers[1][0] == VERSION_HEADER:
            place, version, status = headers[0][1], headers[1][1], headers[2][1]
        elif self._is_of_engines(record):
            return None
        else:
            found = dict(headers)
            place, version, status = (found.get(name, b"") for name in (SOURCE_HEADER, VERSION_HEADER, STATUS_HEADER))
            outdone = found.get(REPEAT_HEADER)
        try:
            parsed, told = parse_version(version), STATUSES[status]
            if outdone is not None:
                return Seen(place, parsed, told, parse_version(outdone), False)
            ledger = self.ledgers.get(place[: place.rindex(b"/") + 1])
        except UNUSABLE:
            self.damaged["snapshot"] += 1
            return None
        void = ledger is not None and parsed[0] != ledger.epoch and ledger.is_void(parsed[0])
        return Seen(place, parsed, told, None, void)

    def _is_of_engines(self, record: UnplacedRecord) -> bool:
        """Takes in a record of leases, or a checkpoint; tells whether it was one."""
        key = record.key or b""
        if not key.startswith(LEASE_PREFIX):
            return key.startswith(CHECKPOINT_PREFIX)
        lease = parse_lease_key(key)
        if lease is None:
            self.damaged["lease"] += 1
            return True
        about = source_prefix(lease.worker, lease.partition)
        ledger = self.ledgers.get(about)
        if ledger is None:
            ledger = self.ledgers[about] = PartitionLedger()
        try:
            take_lease(ledger, record)
        except UNUSABLE:
            self.damaged["lease"] += 1
        return True


@dataclass(slots=True)
class Standing:
    """The newest valid snapshot of a job, of those that were offered.

    Attributes:
        version, newest: of the snapshot, and its record; None before the first.
        status: that it tells; empty before the first.
    """

    version: Version | None = field(default=None, init=False)
    status: str = field(default="", init=False)
    newest: UnplacedRecord | None = field(default=None, init=False)

    def offer(self, seen: Seen, record: UnplacedRecord) -> bool:
        """Takes in a snapshot that is not void; tells whether it takes the place of the one before."""
        if self.version is not None and not supersedes(seen.version, self.version, self.status, seen.outdone):
            return False
        self.version, self.status, self.newest = seen.version, seen.status, record
        return True
