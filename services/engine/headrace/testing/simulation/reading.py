"""What a reader of `job-state` makes of it, record by record, by the rules of the protocol alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from headrace.codec import decode_object
from headrace.core.ownership import PartitionLedger, Version, supersedes
from headrace.core.records import CHECKPOINT_PREFIX, SnapshotHeaders, parse_lease_key, parse_removal, parse_snapshot_headers
from headrace.core.status import TERMINAL, JobStatus
from headrace.errors import RecordUndecodable
from headrace.leases import take_lease
from headrace.ports import Record

JobPlace = tuple[int, int]
"""Where a job's record stands: partition and offset of the queue. No two jobs share it, whatever their ids."""


@dataclass(frozen=True, slots=True)
class JobState:
    """The newest valid snapshot of a job.

    Attributes:
        record_at: where it stands: partition of `job-state` and offset.
        crashes: how many processes died while the job ran in them, as it says itself.
        engine_deaths: how many engines died while it ran beside them, in a process of its own, as it says itself.
        isolated: whether its attempt has a process of its own.
    """

    version: Version
    status: str
    key: bytes
    record_at: tuple[int, int]
    crashes: int = 0
    engine_deaths: int = 0
    isolated: bool = False

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Reading:
    """What one record says.

    Attributes:
        place: the job, if it is a snapshot.
        void: whether it counts for nothing.
        state: how the job stands now, if the record counts and changed that.
        before: how it stood before.
        repeated: whether a janitor wrote it.
        deaths: how many processes had taken the job along before, and how many engines had died beside it; see
            `StateReader.deaths_of`.
    """

    place: JobPlace | None = None
    void: bool = False
    version: Version | None = None
    status: str = ""
    state: JobState | None = None
    before: JobState | None = None
    repeated: bool = False
    deaths: tuple[int, int] = (0, 0)

    @property
    def miscounted(self) -> str | None:
        """In words, where the job tells of other deaths than there were; asked of an attempt's beginning, or an end."""
        if self.state is None:
            return None
        told, counted = (self.state.crashes, self.state.engine_deaths), self.deaths
        # What died in a process of its own, its engine knows and no record tells before this one.
        if told == counted or (self.status != JobStatus.RUNNING and told[1] == counted[1]):
            return None
        return f"tells of {told[0]} deaths and {told[1]} beside it, and there were {counted[0]} and {counted[1]}"


@dataclass(slots=True)
class StateReader:
    """Reads `job-state` of one worker, each partition in its order.

    Attributes:
        ledgers: the claims, by partition of the queue.
        epochs: the offsets of all claims that were valid when they were met, by partition of the queue.
        jobs: how each job stands.
        void_claims: where lease records stand that were void when they were met.
        leases: where the last claim, renewal or release stands that counted, by partition of the queue.
        checkpoints: where the last checkpoint stands that counted.
        deaths: the epochs whose holders died, by their supervisors' word, by partition of the queue.
        void: how many records of each kind counted for nothing.
    """

    worker: str
    ledgers: dict[int, PartitionLedger] = field(default_factory=dict)
    epochs: dict[int, set[int]] = field(default_factory=dict)
    jobs: dict[JobPlace, JobState] = field(default_factory=dict)
    void_claims: set[tuple[int, int]] = field(default_factory=set)
    leases: dict[int, tuple[int, int]] = field(default_factory=dict)
    checkpoints: dict[int, tuple[int, int]] = field(default_factory=dict)
    deaths: dict[int, set[int]] = field(default_factory=dict)
    void: Counter[str] = field(default_factory=Counter)

    def deaths_of(self, place: JobPlace) -> tuple[int, int]:
        """How many processes have died while the job ran in them, and how many engines beside it.

        They are those that its state tells of, and the one after that.
        """
        state = self.jobs.get(place)
        if state is None:
            return 0, 0
        died = state.status == JobStatus.RUNNING and state.version.epoch in self.deaths.get(place[0], ())
        # The deaths of a process of its own its state tells of.
        return state.crashes + (died and not state.isolated), state.engine_deaths + (died and state.isolated)

    def read(self, record: Record) -> Reading:
        """Takes in a record."""
        lease = parse_lease_key(record.key or b"")
        if lease is not None:
            if lease.worker == self.worker:
                self._lease(lease.partition, record)
            return Reading()
        if (record.key or b"").startswith(CHECKPOINT_PREFIX):
            self._checkpoint(record)
            return Reading()
        if record.value is None:
            self._tombstone(record)
        headers = parse_snapshot_headers(record.headers)
        if headers is None or headers.worker != self.worker or record.value is None:
            return Reading()
        place = headers.partition, headers.offset
        before = self.jobs.get(place)
        if not headers.repeated and self._ledger(headers.partition).is_void(headers.version.epoch):
            self.void["snapshot"] += 1
            return Reading(place, True, headers.version, headers.status, None, before)
        if before is not None and not supersedes(headers.version, before.version, before.status, headers.outdone):
            return Reading(place, False, headers.version, headers.status, None, before, headers.repeated)
        state = _state_of(headers, record)
        deaths = self.deaths_of(place)
        self.jobs[place] = state
        return Reading(place, False, headers.version, headers.status, state, before, headers.repeated, deaths)

    def _tombstone(self, record: Record) -> None:
        removal = parse_removal(record.headers)
        if removal is not None and removal.reason == "void":
            self.jobs = {
                place: state for place, state in self.jobs.items() if state.key != record.key or state.version > removal.version
            }

    def newest_epoch(self, partition: int) -> int:
        """The newest valid claim of a partition of the queue; -1 before the first."""
        return self._ledger(partition).epoch

    def _ledger(self, partition: int) -> PartitionLedger:
        return self.ledgers.setdefault(partition, PartitionLedger())

    def _checkpoint(self, record: Record) -> None:
        if record.value is None:
            return
        raw = decode_object(record.value)
        if raw["workerName"] != self.worker:
            return
        if self._ledger(raw["partition"]).is_void(raw["epoch"]):
            self.void["checkpoint"] += 1
        else:
            self.checkpoints[raw["partition"]] = record.partition, record.offset

    def _lease(self, partition: int, record: Record) -> None:
        ledger = self._ledger(partition)
        epoch, last = ledger.epoch, ledger.last_lease
        try:
            valid = take_lease(ledger, record)
        except RecordUndecodable:
            return
        if valid and ledger.died:
            self.deaths.setdefault(partition, set()).add(ledger.epoch)
        if ledger.epoch != epoch:
            self.epochs.setdefault(partition, set()).add(ledger.epoch)
        if ledger.last_lease != last:
            self.leases[partition] = record.partition, record.offset
        elif not valid and record.value is not None:
            self.void["lease"] += 1
            self.void_claims.add((record.partition, record.offset))


def _state_of(headers: SnapshotHeaders, snapshot: Record) -> JobState:
    raw = decode_object(snapshot.value or b"")
    return JobState(
        version=headers.version,
        status=headers.status,
        key=snapshot.key or b"",
        record_at=(snapshot.partition, snapshot.offset),
        crashes=raw.get("crashes", 0),
        engine_deaths=raw.get("engineDeaths", 0),
        isolated=raw.get("isolated", False),
    )
