"""What is to be written to `job-state` so that compaction leaves what counts (rules J1 and J2 of the ownership protocol).

Compaction keeps the last record of each key, whoever wrote it. The janitor reads a partition of `job-state` in its order, as any
reader does, and finds the keys over whose winner something else stands. It remembers of millions of jobs those few alone: a
snapshot can stand over the winner only if it is void, or was written by a janitor, since a holder's own come in their order.

Compaction may also take away what makes a claim void, a renewal as a rule, before it takes away the claim: then its epoch hides
what the true holder wrote after it. Of that, too, the janitor writes what counts again, since a repeat is never void.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from headrace.core.ownership import NO_OFFSET, PartitionLedger, Version, supersedes
from headrace.core.records import Removal, SnapshotHeaders, lease_key

RecordT = TypeVar("RecordT")

NOTHING = Version(NO_OFFSET, -1, -1)

JobPartition = tuple[str, int]
"""A worker's name and the number of a partition of its queue."""


class Top(NamedTuple):
    """The last record of a key of leases or checkpoints.

    Attributes:
        speaks_for: of a lease the offset of the valid lease record that it is or repeats, of a checkpoint its epoch; -1 if void.
        at: when it was written, in seconds.
    """

    speaks_for: int
    at: float


class LeaseRepeated(NamedTuple):
    """What counts of a lease is to be written again."""

    partition: JobPartition
    ledger: PartitionLedger


class KeyRemoved(NamedTuple):
    """The key is to have a tombstone.

    Attributes:
        removal: what its header tells, where the key is a job's.
        of: worker, partition and offset of the job's record.
    """

    key: bytes
    removal: Removal | None = None
    of: tuple[str, int, int] | None = None


class LeaseRead(NamedTuple):
    """What a lease record is that has been taken into its ledger.

    Attributes:
        speaks_for: the offset of the valid lease record that it is, or repeats; -1 if it is void; None for a tombstone.
        named: what it names as the lease record before it, if it is a void claim; None for anything else.
    """

    speaks_for: int | None
    named: int | None = None


class VoidClaims:
    """The void claims of one job partition over which nothing stands yet."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[bytes, int] = {}

    def note(self, key: bytes, read: LeaseRead) -> None:
        """A lease record was read."""
        if read.named is not None:
            self._named[key] = read.named
        elif self._named:
            self._named.pop(key, None)

    def hide(self, epoch: int) -> bool:
        """Whether a valid snapshot of this epoch is void for who takes one of them for valid.

        One of a later epoch than the lease record that the claim names proves that the claim is void; see
        `PartitionLedger.is_void`.
        """
        return bool(self._named) and any(epoch <= named for named in self._named.values())


@dataclass(slots=True)
class _Held:
    """What was read of one job partition's leases."""

    ledger: PartitionLedger = field(default_factory=PartitionLedger)
    leases: dict[bytes, Top] = field(default_factory=dict)
    void_claims: VoidClaims = field(default_factory=VoidClaims)
    checkpoints: dict[bytes, Top] = field(default_factory=dict)


class Keeper:
    """What the janitor knows of one partition of `job-state`, having read it from its start up to some place.

    Times are by any clock of the caller, in seconds.

    Args:
        most_suspects: how many keys are remembered at most that have to be looked into; what comes then is met again in the next
            reading from the start.
    """

    def __init__(self, *, most_suspects: int = 100_000) -> None:
        self._held: dict[JobPartition, _Held] = {}
        self._suspects: dict[bytes, float] = {}
        # What was written and has not been read back: the version, and whether another snapshot of the job came before it.
        self._expected: dict[bytes, tuple[Version, bool]] = {}
        self._most_suspects = most_suspects
        self.overlooked = 0

    @property
    def job_partitions(self) -> list[JobPartition]:
        """Those that have leases here."""
        return list(self._held)

    def ledger(self, partition: JobPartition) -> PartitionLedger:
        """The claims of a job partition, for a lease record to be taken into."""
        return self._of(partition).ledger

    def _of(self, partition: JobPartition) -> _Held:
        held = self._held.get(partition)
        if held is None:
            held = self._held[partition] = _Held()
        return held

    # --- reading ------------------------------------------------------------------------------------------------------------

    def lease(self, partition: JobPartition, key: bytes, read: LeaseRead, at: float) -> None:
        """A lease record has been taken into the ledger."""
        held = self._of(partition)
        held.void_claims.note(key, read)
        if read.speaks_for is None:
            held.leases.pop(key, None)
        else:
            held.leases[key] = Top(read.speaks_for, at)

    def checkpoint(self, partition: JobPartition, key: bytes, epoch: int | None, at: float) -> None:
        """A checkpoint of this epoch, or a tombstone in its place, was read."""
        held = self._of(partition)
        if epoch is None:
            held.checkpoints.pop(key, None)
        else:
            held.checkpoints[key] = Top(NO_OFFSET if held.ledger.is_void(epoch) else epoch, at)

    def snapshot(self, key: bytes, headers: SnapshotHeaders, at: float) -> None:
        """A snapshot was read."""
        held, epoch = self._of((headers.worker, headers.partition)), headers.version.epoch
        if headers.repeated:
            if self._expected and self._is_expected(key, headers.version):
                return
        elif not held.ledger.is_void(epoch):
            if self._expected and key in self._expected:
                self._expected[key] = self._expected[key][0], True
            if not held.void_claims.hide(epoch):
                return
        self._suspect(key, at)

    def tombstone(self, key: bytes, removal: Removal | None, at: float) -> None:
        """A tombstone of a job was read. What ended long ago may be removed by anybody; of what was void the state may follow."""
        if removal is not None and removal.reason == "void" and not self._is_expected(key, removal.version):
            self._suspect(key, at)

    def _is_expected(self, key: bytes, version: Version) -> bool:
        expected = self._expected.get(key)
        if expected is None or expected[0] != version:
            return False
        del self._expected[key]
        return not expected[1]

    def _suspect(self, key: bytes, at: float) -> None:
        if key in self._suspects or len(self._suspects) < self._most_suspects:
            self._suspects[key] = at
        else:
            self.overlooked += 1

    # --- what is to be done ---------------------------------------------------------------------------------------------------

    def due(self, before: float) -> Iterator[LeaseRepeated | KeyRemoved]:
        """What is to be written of leases and checkpoints, in this order, by what was written before a time.

        Void claims go first, and older epochs before newer ones: so a reader of what is left never finds a lease without the one
        that ended it.
        """
        for partition, held in self._held.items():
            if held.ledger.holder is None:
                continue  # it is known by what it wrote of jobs alone: its lease record will come
            yield from self._leases_due(partition, held, before)
            yield from _checkpoints_due(held, before)

    def _leases_due(self, partition: JobPartition, held: _Held, before: float) -> Iterator[LeaseRepeated | KeyRemoved]:
        ledger = held.ledger
        assert ledger.holder is not None
        own = lease_key(*partition, ledger.holder)
        others = sorted((top, key) for key, top in held.leases.items() if key != own and top.at <= before)
        for _, key in others:
            yield KeyRemoved(key)
        top = held.leases.get(own)
        # A void claim may make the winner seem void to who reads the log without what stood before both.
        misled = any(other.speaks_for == NO_OFFSET for other, _ in others)
        if top is None or misled or (top.speaks_for != ledger.last_lease and top.at <= before):
            yield LeaseRepeated(partition, ledger)

    def suspects(self, before: float, most: int) -> list[bytes]:
        """Keys of jobs over whose winner something else may stand, by what was written before a time; at most so many."""
        settled = (key for key, at in self._suspects.items() if at <= before)
        return [key for key, _ in zip(settled, range(most), strict=False)]

    def settle(self, keys: Collection[bytes], written: Mapping[bytes, Version]) -> None:
        """These keys have been looked into, and what had to be written of them is written.

        Args:
            written: the versions of what was, a repeat or a removal.
        """
        for key in keys:
            self._suspects.pop(key, None)
        self._expected.update({key: (version, False) for key, version in written.items()})


def _checkpoints_due(held: _Held, before: float) -> Iterator[KeyRemoved]:
    """An old epoch's checkpoints are needed until the new one has its own: a commit may still point to one of them."""
    epoch = held.ledger.epoch
    if all(top.speaks_for != epoch for top in held.checkpoints.values()):
        return
    for key, top in sorted(held.checkpoints.items()):
        if top.speaks_for != epoch and top.at <= before:
            yield KeyRemoved(key)


@dataclass(slots=True)
class _Found(Generic[RecordT]):
    """What was found of one key.

    Attributes:
        top: the headers of its last record; None if that is a tombstone.
        void: the highest version of those that are void.
        stands: whether the last record is the winner, or a repeat of it.
        hidden: whether that may be void for who reads what compaction leaves.
    """

    top: SnapshotHeaders | None = None
    void: Version = NOTHING
    stands: bool = False
    hidden: bool = False
    winner: tuple[SnapshotHeaders, RecordT] | None = None


class Winner(NamedTuple, Generic[RecordT]):
    """A snapshot that is to be written again: as it was read, its version, and what it outdoes."""

    record: RecordT
    version: Version
    outdone: Version


class Inquiry(Generic[RecordT]):
    """Finds the winners of a few keys, by a reading of their partition of `job-state` from its start to some place.

    Attributes:
        keys: to look for.
        ledgers: the claims, as this reading has them.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._found: dict[bytes, _Found[RecordT]] = {key: _Found() for key in keys}
        self.ledgers: dict[JobPartition, PartitionLedger] = {}
        self._void_claims: defaultdict[JobPartition, VoidClaims] = defaultdict(VoidClaims)

    @property
    def keys(self) -> Collection[bytes]:
        return self._found.keys()

    @property
    def job_partitions(self) -> set[JobPartition]:
        """Those that the winners are of."""
        return {found.winner[0][:2] for found in self._found.values() if found.winner is not None}

    def ledger(self, partition: JobPartition) -> PartitionLedger:
        """The claims of a job partition, for a lease record to be taken into."""
        return self.ledgers.setdefault(partition, PartitionLedger())

    def lease(self, partition: JobPartition, key: bytes, read: LeaseRead) -> None:
        """A lease record has been taken into the ledger."""
        self._void_claims[partition].note(key, read)

    def snapshot(self, key: bytes, headers: SnapshotHeaders, record: RecordT) -> None:
        """A snapshot with one of the keys was read."""
        found = self._found[key]
        found.top, winner = headers, found.winner
        partition, epoch = (headers.worker, headers.partition), headers.version.epoch
        found.hidden = not headers.repeated and self._void_claims[partition].hide(epoch)
        if not headers.repeated and self.ledger(partition).is_void(epoch):
            found.stands, found.void = False, max(found.void, headers.version)
            return
        # Of two jobs with one id the later has the key; a repeat is never of another job than the one that won.
        same = winner is not None and winner[0][:3] == headers[:3]
        if winner is None or (
            supersedes(headers.version, winner[0].version, winner[0].status, headers.outdone) if same else not headers.repeated
        ):
            found.winner, found.stands = (headers, record), True
        else:
            found.stands = same and headers.version == winner[0].version

    def tombstone(self, key: bytes, removal: Removal | None) -> None:
        """A tombstone of one of the keys was read."""
        found = self._found[key]
        found.top, found.stands = None, False
        if removal is not None and removal.reason == "ended" and (winner := found.winner) is not None:
            found.winner = None if winner[0].version <= removal.version else winner

    def repeats(self, starts: Mapping[JobPartition, int]) -> dict[bytes, Winner[RecordT]]:
        """The winners that are to be written again (J1).

        Args:
            starts: where the queue's partitions begin: of what stood before, the snapshots are removed, and not repeated.
        """
        return {
            key: Winner(found.winner[1], found.winner[0].version, max(found.void, found.winner[0].version))
            for key, found in self._found.items()
            if found.winner is not None and (found.hidden or not found.stands) and not is_gone(found.winner[0], starts)
        }

    def removals(self, starts: Mapping[JobPartition, int]) -> list[KeyRemoved]:
        """The keys that are to have tombstones: nothing of them counts, or their job's record is deleted (J2)."""
        removed = []
        for key, found in self._found.items():
            if (top := found.top) is None:
                continue
            if found.winner is None:
                removed.append(KeyRemoved(key, Removal("void", top.version), top[:3]))
            elif is_gone(found.winner[0], starts):
                removed.append(KeyRemoved(key, Removal("ended", max(top.version, found.winner[0].version)), top[:3]))
        return removed


def is_gone(headers: SnapshotHeaders, starts: Mapping[JobPartition, int]) -> bool:
    """Whether the record of a snapshot's job is deleted from the queue: then its snapshots are to be removed, too (J2)."""
    return headers.offset < starts.get((headers.worker, headers.partition), 0)
