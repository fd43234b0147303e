"""How long a lease holds, by the clocks of its holder and of whoever waits for it (rules H1 and O1 of the protocol)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from headrace.core.ownership import NO_OFFSET, PartitionLedger

# As fractions of the term, so that a shorter one keeps the same distances: 3, 20, 30 and 35 s of the usual 25.
_RENEWED = 0.12
_ENDING = 0.8
_OVER = 1.2
_OVER_BY_LOG = 1.4


class Moment(NamedTuple):
    """A reading of two clocks, in seconds.

    Attributes:
        steady: counts on from the start of the machine, also while that is suspended.
        wall: the time of day, which may be set.
    """

    steady: float
    wall: float


def elapsed(since: Moment, now: Moment) -> float:
    """Seconds by the clock that went further: a wall clock that jumped ahead ends a lease too."""
    return max(now.steady - since.steady, now.wall - since.wall)


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """The times of a lease, in seconds.

    Attributes:
        term: how long it holds without being renewed, from before the last acknowledged record was sent.
    """

    term: float = 25.0

    @property
    def renewal(self) -> float:
        """How often it is renewed."""
        return self.term * _RENEWED

    @property
    def ending(self) -> float:
        """When the holder begins to stop its jobs, so that nothing of it runs when the term is over."""
        return self.term * _ENDING


class HeldLease:
    """A lease as its holder sees it.

    Args:
        sent: just before the claim was sent whose acknowledgement has come.
    """

    __slots__ = ("_sent", "timing")

    def __init__(self, timing: LeaseTiming, sent: Moment) -> None:
        self.timing = timing
        self._sent = sent

    def renewed(self, sent: Moment) -> None:
        """A renewal is acknowledged that was sent just after this moment."""
        self._sent = sent

    def is_held(self, now: Moment) -> bool:
        """Whether attempts may start and go on, and acknowledgements count. Once it is not, it never is again (rule H5)."""
        return elapsed(self._sent, now) < self.timing.ending

    def remaining(self, now: Moment) -> float:
        """Seconds after which nothing of the holder may run any more, unless it is renewed."""
        return self.timing.term - elapsed(self._sent, now)


class LeaseWatch:
    """Somebody else's lease, as whoever wants the partition sees it: when may it be claimed?"""

    __slots__ = ("_last_lease", "_since")

    def __init__(self) -> None:
        self._last_lease = NO_OFFSET
        self._since = 0.0

    def is_over(self, ledger: PartitionLedger, asked_at: float, log_time: int | None, *, seen_at: float | None = None) -> bool:
        """Whether the partition may be claimed.

        Args:
            ledger: holds every lease record that stood in the log at `asked_at`.
            asked_at: by a clock of the waiter that does not count suspension, in seconds.
            log_time: the time of a record, in milliseconds, that the waiter has written and that the ledger has been read up to,
                as the broker wrote it down; None when there is none.
            seen_at: when the ledger was read as far as it is, by the same clock as `asked_at`: it may hold records that were
                written after that, and a lease counts from when its last record was seen at the earliest. The same time as
                `asked_at` when left out.
        """
        if ledger.epoch == NO_OFFSET or ledger.released:
            return True
        if ledger.last_lease != self._last_lease:
            self._last_lease, self._since = ledger.last_lease, asked_at if seen_at is None else seen_at
        if asked_at - self._since >= ledger.term_seconds * _OVER:
            return True
        return log_time is not None and log_time - ledger.held_at >= ledger.term_seconds * _OVER_BY_LOG * 1000
