"""What records of `job-state` say of jobs, read in the order of the log: which count, and which are void."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from headrace.core.ownership import PartitionLedger, supersedes
from headrace.core.records import CHECKPOINT_PREFIX, LEASE_PREFIX, SnapshotHeaders, parse_lease_key, parse_snapshot_headers
from headrace.errors import RecordUndecodable
from headrace.leases import take_lease
from headrace.ports import Record

logger = logging.getLogger(__name__)

# What a record can be in its values, whoever wrote it; anything else is a fault of this code.
UNUSABLE = (RecordUndecodable, KeyError, TypeError, ValueError, AttributeError)


class Seen(NamedTuple):
    """A snapshot that was read, and whether it is void: the last words of one who did not hold its partition any more."""

    headers: SnapshotHeaders
    void: bool


class Claims:
    """The claims of the job partitions whose state stands in one partition of `job-state`, as far as that was read.

    Whoever begins in the middle of the log knows a lease by its next renewal, which comes within seconds.

    Attributes:
        damaged: how many records could not be read, by kind.
    """

    def __init__(self) -> None:
        self._ledgers: dict[tuple[str, int], PartitionLedger] = {}
        self.damaged: Counter[str] = Counter()

    def see(self, record: Record) -> Seen | None:
        """Takes in a record. None for all that is no snapshot, tombstones included."""
        key = record.key or b""
        if key.startswith(CHECKPOINT_PREFIX) or record.value is None:
            return None
        if key.startswith(LEASE_PREFIX):
            self._take_lease(record, key)
            return None
        headers = parse_snapshot_headers(record.headers)
        if headers is None:
            self.damaged["snapshot"] += 1
            return None
        if headers.outdone is not None:
            return Seen(headers, False)
        ledger = self._ledgers.get(headers[:2])
        return Seen(headers, ledger is not None and ledger.is_void(headers.version.epoch))

    def _take_lease(self, record: Record, key: bytes) -> None:
        lease = parse_lease_key(key)
        if lease is None:
            self.damaged["lease"] += 1
            return
        about = (lease.worker, lease.partition)
        ledger = self._ledgers.get(about)
        if ledger is None:
            ledger = self._ledgers[about] = PartitionLedger()
        try:
            take_lease(ledger, record)
        except UNUSABLE:
            self.damaged["lease"] += 1


@dataclass(slots=True)
class Standing:
    """The newest valid snapshot of a job, of those that were offered.

    Attributes:
        headers, record: None before the first.
    """

    headers: SnapshotHeaders | None = None
    record: Record | None = None

    def offer(self, headers: SnapshotHeaders, record: Record) -> bool:
        """Takes in a snapshot that is not void; tells whether it takes the place of the one before."""
        known = self.headers
        if known is not None and not supersedes(headers.version, known.version, known.status, headers.outdone):
            return False
        self.headers, self.record = headers, record
        return True
