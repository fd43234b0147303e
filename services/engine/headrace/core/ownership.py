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
    """The claims of one job partition, as far as they were read.

    Attributes:
        epoch: offset of the newest valid claim; -1 before the first.
        last_lease: offset of the newest valid lease record; what a new claim names as its `previous`.
        holder: the instance that wrote the newest valid claim.
    """

    epoch: int = NO_OFFSET
    last_lease: int = NO_OFFSET
    holder: str | None = None

    def claim(self, offset: int, previous: int, instance_id: str) -> bool:
        """Takes in a claim, and tells whether it is valid.

        It is void if a valid lease record stands between `previous` and itself: its writer did not know of it (rule C2, a
        compare-and-set on the log). A void claim fences nobody.
        """
        if self.last_lease > previous:
            return False
        self.epoch = self.last_lease = offset
        self.holder = instance_id
        return True

    def is_void(self, epoch: int) -> bool:
        """Whether a record of this epoch, met now, is void: the last words of a predecessor (rule F1)."""
        return epoch < self.epoch


def supersedes(new: Version, old: Version, old_status: JobStatus | str) -> bool:
    """Whether a valid snapshot takes the place of the one known so far (rule F2).

    The highest version wins, and within an epoch nothing follows a terminal status.
    """
    if new.epoch == old.epoch and old_status in TERMINAL:
        return False
    return new >= old
