"""Whose word counts: the rules by which every reader of `job-state` tells valid records from void ones.

`PartitionLedger` follows the claims of one job partition through its partition of `job-state`, in the order of the log. All
readers (a recovering engine, a view) use it, so that all come to the same end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from headrace.core.status import TERMINAL, JobStatus

NO_OFFSET = -1


class Version(NamedTuple):
    """The order among a job's snapshots.

    Attributes:
        epoch: offset of the claim under which the snapshot was written.
        attempt: number of the attempt, from 1; 0 for a job that ended without a start.
        sequence: number of the snapshot within the attempt.
    """

    epoch: int
    attempt: int
    sequence: int


# What the row of a job has that was accepted, and of which no engine has written yet.
ACCEPTED = Version(NO_OFFSET, 0, 0)


@dataclass(slots=True)
class PartitionLedger:
    """The lease records of one job partition, as far as they were read.

    Attributes:
        epoch: offset of the newest valid claim; -1 before the first.
        last_lease: offset of the newest valid claim, renewal or release; what a new claim names as its `previous`. Releases
            count, since compaction may leave nothing else of a lease: so who reads what it left compares with the same offset.
        holder: name of the lease by its newest valid claim; it tells which instance has it.
        previous: what that claim named as the lease record before it; the claim itself, once its holder has written under it.
        held_at: time of the newest valid claim or renewal, in milliseconds, as the broker wrote it down.
        term_seconds: how long the holder keeps the lease without renewing it.
        released: whether the holder gave the lease back, or its supervisor did so for it.
        died: whether that supervisor saw the holder's process die.
    """

    epoch: int = NO_OFFSET
    last_lease: int = NO_OFFSET
    holder: str | None = None
    previous: int = NO_OFFSET
    held_at: int = 0
    term_seconds: float = 0.0
    released: bool = False
    died: bool = False

    def claim(self, offset: int, previous: int, name: str, *, at: int = 0, term_seconds: float = 0.0) -> bool:
        """Takes in a claim, and tells whether it is valid.

        It is void if a valid lease record, be it a release, stands between `previous` and itself: its writer did not know of it
        (rule C2, a compare-and-set on the log). A void claim fences nobody.
        """
        if self.last_lease > previous:
            return False
        self.epoch = self.last_lease = offset
        self.previous = previous
        self.holder, self.held_at, self.term_seconds = name, at, term_seconds
        self.released = self.died = False
        return True

    def renewal(self, offset: int, epoch: int, name: str, *, at: int = 0, term_seconds: float = 0.0) -> bool:
        """Takes in a renewal, and tells whether it is valid: one of an epoch that was superseded, or released, is void.

        Only who has read back a valid claim renews it. So a renewal speaks for its claim where compaction took that away.
        """
        if self.is_void(epoch) or (epoch == self.epoch and self.released):
            return False
        self.epoch, self.last_lease = epoch, offset
        self.previous = epoch  # that its claim is valid needs no other proof
        self.holder, self.held_at, self.term_seconds = name, at, term_seconds
        self.released = self.died = False
        return True

    def release(self, offset: int, epoch: int, name: str, *, died: bool = False) -> bool:
        """Takes in a release, and tells whether it is valid: it is void once the epoch was superseded."""
        if self.is_void(epoch):
            return False
        self.died = died or (self.died and epoch == self.epoch)
        self.epoch, self.last_lease = epoch, offset
        self.holder, self.released = name, True
        self.previous = epoch
        return True

    def repeat(self, truth: PartitionLedger, as_of: int) -> bool:
        """Takes in what the janitor says of a lease; tells whether it was news.

        It is none for who has read all that the janitor had: a repeat neither prolongs a lease nor voids a claim. For who reads
        what compaction left it holds against everything older, such as a void claim of which nothing else tells that it is void.

        Args:
            as_of: the offset up to which the janitor had read.
        """
        if self.last_lease >= as_of or self == truth:
            return False
        for name in self.__slots__:
            setattr(self, name, getattr(truth, name))
        return True

    def is_void(self, epoch: int) -> bool:
        """Whether a record of this epoch, met now, is void: the last words of a predecessor (rule F1).

        Only who holds a valid claim writes under it. So a record whose epoch lies between the newest claim and the lease record
        that this claim named proves that the claim was void: the one that it did not know of was taken away by compaction.
        """
        if self.previous < epoch < self.epoch:
            self.epoch = self.last_lease = epoch
            self.previous, self.holder, self.released, self.died = epoch, None, False, False
            return False
        return epoch < self.epoch


def supersedes(new: Version, old: Version, old_status: JobStatus | str, outdone: Version | None = None) -> bool:
    """Whether a valid snapshot takes the place of the one known so far (rule F2).

    The highest version wins, and within an epoch nothing follows a terminal status.

    Args:
        outdone: of a repeat: up to this version, what is higher than it is void. Only who reads what compaction left can have
            taken that for valid.
    """
    if outdone is not None and new < old <= outdone:
        return True
    if new.epoch == old.epoch and old_status in TERMINAL:
        return False
    return new >= old
