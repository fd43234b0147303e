"""What a seed draws: how many engines, which jobs, how slow the network is, and what goes wrong how often."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random


class FaultKind(StrEnum):
    """What goes wrong in a run. Each seed has some of them."""

    ACKNOWLEDGEMENT_LOST = "acknowledgement lost"
    ACKNOWLEDGEMENT_LATE = "acknowledgement late"
    APPEND_REFUSED = "append refused"
    APPEND_DELAYED = "append delayed"
    LANDS_LATE = "landed long after"
    CUT_OFF = "process cut off"
    EVICTED = "evicted, not told"
    CLAIM_DISPUTED = "evicted with a claim under way"
    REQUESTS_REFUSED = "requests refused"
    READS_STALL = "reads stall"
    CRASH = "process killed"
    FREEZE_SHORT = "frozen for less than the term"
    FREEZE_LONG = "frozen for longer than the term"
    FROZEN_SENDING = "frozen with writes under way"
    LATE_THEN_CUT = "acknowledged late, and then cut off"
    SUSPENDED = "machine suspended"
    CLOCK_AHEAD = "wall clock jumped ahead"
    CLOCK_BACK = "wall clock jumped back"
    BROKER_CLOCK = "broker's clock jumped"
    COMPACTION = "compaction"
    JOIN = "engine joins"
    LEAVE = "engine leaves"
    ALL_STOP = "all engines stop"
    KILLED_IN_TIME = "killed by its supervisor when its lease was over"
    POISONED = "killed by a job of its own"


DRAWN = frozenset(FaultKind) - {FaultKind.KILLED_IN_TIME, FaultKind.POISONED}
"""Those that come by themselves; the others follow from what else happens."""


# How often each is drawn, where most are 1.
WEIGHTS = {
    FaultKind.CRASH: 2.0,
    FaultKind.FREEZE_LONG: 2.0,
    FaultKind.LANDS_LATE: 2.0,
    FaultKind.CUT_OFF: 1.5,
    FaultKind.CLAIM_DISPUTED: 1.5,
    FaultKind.COMPACTION: 0.7,
    FaultKind.REQUESTS_REFUSED: 0.5,
    FaultKind.ALL_STOP: 0.3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run. Times are in seconds of virtual time.

    Attributes:
        seconds: how long jobs come and things go wrong. Then there is peace, until all jobs have ended or `peace` is over.
        engines: how many are wanted.
        lease: the term of a lease.
        latency: the usual and the longest time that a message takes.
        fault_interval: the mean time between two faults.
        faults: what goes wrong.
        jobs: how many there are, about.
        keys: how many ordering keys there are.
        long_jobs: the share of the jobs that take longer than ten seconds.
        cancelled_jobs: the share of those that somebody cancels.
        failing_jobs: the share of those of which attempts fail.
        poison: the share of those that take their process with them.
        supervised: whether engines have supervisors, and jobs in child processes; else an engine that is gone is just gone.
    """

    seed: int
    seconds: float = 900.0
    peace: float = 600.0
    engines: int = 3
    partitions: int = 3
    concurrency: int = 10
    lease: float = 25.0
    by_log_time: bool = True
    session_timeout: float = 45.0
    latency: tuple[float, float] = (0.002, 0.5)
    fault_interval: float = 20.0
    faults: frozenset[FaultKind] = DRAWN
    jobs: int = 200
    keys: int = 4
    long_jobs: float = 0.06
    cancelled_jobs: float = 0.1
    failing_jobs: float = 0.12
    poison: float = 0.0
    supervised: bool = False

    @classmethod
    def of(cls, seed: int) -> Scenario:
        """The scenario that a seed draws."""
        random = Random(f"scenario {seed}")
        faults = frozenset(kind for kind in FaultKind if kind in DRAWN and random.random() < 0.6)
        if random.random() < 0.5:
            # Then what one engine wrote down of the time of day can be held against another's.
            faults -= {FaultKind.CLOCK_AHEAD, FaultKind.CLOCK_BACK}
        return cls(
            seed=seed,
            seconds=random.choice((400.0, 600.0, 900.0)),
            engines=random.randint(2, 4),
            partitions=random.randint(1, 4),
            concurrency=random.choice((1, 2, 3, 10)),
            lease=random.choice((10.0, 25.0, 25.0)),
            by_log_time=random.random() < 0.7,
            session_timeout=random.choice((10.0, 20.0, 45.0)),
            latency=(random.choice((0.001, 0.01, 0.05)), random.choice((0.1, 0.5, 3.0))),
            fault_interval=random.choice((6.0, 12.0, 25.0)),
            faults=faults or frozenset({FaultKind.CRASH}),
            jobs=random.choice((60, 100, 180)),
            keys=random.randint(1, 6),
            long_jobs=random.choice((0.03, 0.1, 0.2)),
            supervised=(supervised := Random(f"supervised {seed}").random() < 0.5),
            # Only a supervisor can say that a process has died: without one such a job would take one after another with it.
            poison=Random(f"poisoned {seed}").choice((0.0, 0.01, 0.03)) if supervised else 0.0,
        )
