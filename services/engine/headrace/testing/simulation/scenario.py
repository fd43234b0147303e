"""What a seed draws: how many engines, which jobs, how slow the network is, and what goes wrong how often."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from headrace.core.rate import RateLimit
from headrace.testing.simulation.kinds import DRAWN, THEMES, WEIGHTS, FaultKind, Theme

__all__ = ["DRAWN", "WEIGHTS", "FaultKind", "Scenario", "Theme"]

_USUAL_LEASE = 25.0
# Of so many seeds in a row, so many are small: in these most is found in the least time.
_IN_A_ROW, _SMALL = 5, 4
# Of these it matters what compaction leaves of a job.
_WHAT_IS_LEFT = frozenset({Theme.COMPACTION, Theme.FREEZES})
_SMALL_THEMES = [theme for theme in Theme if theme is not Theme.EVERYTHING]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run. Times are in seconds of virtual time.

    Attributes:
        theme: what it is about.
        pace: by how much all times are shorter than they would be with a lease of the usual term: how long jobs run, for how
            long something goes wrong, how often is looked for what, and when somebody gives up.
        seconds: how long jobs come and things go wrong. Then there is peace, until all jobs have ended or `peace` is over.
        engines: how many are wanted.
        lease: the term of a lease.
        latency: the usual and the longest time that a message takes.
        fault_interval: the mean time between two faults.
        faults: what goes wrong.
        jobs: how many there are, about.
        keys: how many ordering keys there are.
        keyed_jobs: the share of the jobs that have one.
        strangers: the share of the records of the queue that are no jobs.
        long_jobs: the share of the jobs that take long: from ten seconds up to three terms of a lease.
        cancelled_jobs: the share of those that somebody cancels.
        failing_jobs: the share of those of which attempts fail.
        poison: the share of those that take their process with them.
        pauses: whether somebody pauses the worker now and then.
        rate_limit: of the worker.
        retention: after how long a job that has ended is deleted; before that, its state has to outlast compaction.
        supervised: whether engines have supervisors, and jobs in child processes; else an engine that is gone is just gone.
    """

    seed: int
    theme: Theme = Theme.EVERYTHING
    pace: float = 1.0
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
    keyed_jobs: float = 0.35
    strangers: float = 0.03
    long_jobs: float = 0.06
    cancelled_jobs: float = 0.1
    failing_jobs: float = 0.12
    poison: float = 0.0
    pauses: bool = False
    rate_limit: RateLimit | None = None
    retention: float = 30.0
    supervised: bool = False

    @classmethod
    def of(cls, seed: int) -> Scenario:
        """The scenario that a seed draws: a small one about one theme, each in its turn, or a large one."""
        row, number = divmod(seed, _IN_A_ROW)
        if number < _SMALL:
            return _small(seed, _SMALL_THEMES[(row * _SMALL + number) % len(_SMALL_THEMES)])
        return _large(seed)


def _small(seed: int, theme: Theme) -> Scenario:
    """Few engines and jobs for a short time, and few things that go wrong, but these often."""
    random = Random(f"scenario {seed}")
    lease = random.choice((5.0, 6.0, 8.0))
    supervised = theme is Theme.SUPERVISORS or random.random() < 0.15
    jobs = random.choice((20, 30, 45))
    return Scenario(
        seed=seed,
        theme=theme,
        pace=lease / _USUAL_LEASE,
        seconds=lease * random.uniform(15.0, 25.0),
        peace=lease * 24.0,
        engines=random.choice((2, 2, 2, 3)),
        partitions=random.choice((1, 1, 2)),
        concurrency=random.choice((1, 2, 3, 10)),
        lease=lease,
        by_log_time=random.random() < 0.7,
        session_timeout=lease * random.choice((0.4, 0.8, 1.8)),
        latency=(random.choice((0.001, 0.005, 0.01)), lease * random.choice((0.005, 0.02, 0.1))),
        fault_interval=lease * random.choice((0.25, 0.5, 1.0)),
        faults=THEMES[theme],
        jobs=jobs,
        keys=random.randint(1, 4),
        keyed_jobs=random.choice((0.2, 0.5, 0.9)),
        strangers=random.choice((0.03, 0.15)),
        long_jobs=random.choice((0.1, 0.25, 0.4)),
        cancelled_jobs=random.choice((0.1, 0.1, 0.3)),
        failing_jobs=random.choice((0.0, 0.12, 0.25)),
        supervised=supervised,
        # Only a supervisor can say that a process has died: without one such a job would take one after another with it.
        poison=random.choice((0.0, 0.03, 0.1)) if supervised else 0.0,
        pauses=random.random() < 0.25,
        rate_limit=RateLimit(random.choice((2, 4, 8)), lease / 2) if random.random() < 0.2 else None,
        retention=lease * (100.0 if theme in _WHAT_IS_LEFT and random.random() < 0.7 else 1.2),
    )


def _large(seed: int) -> Scenario:
    random = Random(f"scenario {seed}")
    faults = frozenset(kind for kind in FaultKind if kind in DRAWN and random.random() < 0.6)
    if random.random() < 0.5:
        # Then what one engine wrote down of the time of day can be held against another's.
        faults -= {FaultKind.CLOCK_AHEAD, FaultKind.CLOCK_BACK}
    return Scenario(
        seed=seed,
        seconds=random.choice((300.0, 450.0)),
        engines=random.randint(2, 4),
        partitions=random.randint(1, 4),
        concurrency=random.choice((1, 2, 3, 10)),
        lease=random.choice((18.0, 25.0, 25.0)),
        by_log_time=random.random() < 0.7,
        session_timeout=random.choice((10.0, 20.0, 45.0)),
        latency=(random.choice((0.001, 0.01, 0.05)), random.choice((0.1, 0.5, 3.0))),
        fault_interval=random.choice((6.0, 12.0, 25.0)),
        faults=faults or frozenset({FaultKind.CRASH}),
        jobs=random.choice((60, 100, 140)),
        keys=random.randint(1, 6),
        long_jobs=random.choice((0.03, 0.1, 0.2)),
        supervised=(supervised := random.random() < 0.5),
        poison=random.choice((0.0, 0.01, 0.03)) if supervised else 0.0,
        pauses=random.random() < 0.25,
        rate_limit=RateLimit(random.choice((3, 10)), 10.0) if random.random() < 0.2 else None,
    )
