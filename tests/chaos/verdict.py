"""What became of the jobs of a chaos run, judged by its ledger and by the log alone. Nothing here does I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil

from chaos.ledger import SECOND, Accepted, Entry, Fault, Poisoned, Signalled, Tick

AFTER_THAW_SECONDS = 0.5
LONG_SECONDS = 40.0
LONG_FREEZE_SECONDS = 40.0
KINDS = (
    *("kill engine", "kill supervisor", "freeze engine", "freeze supervisor", "freeze both"),
    *("kill broker", "restart broker", "rolling restart", "scale up", "scale down"),
)
FREEZES = frozenset({"freeze engine", "freeze supervisor", "freeze both"})


@dataclass(frozen=True, slots=True)
class Minimums:
    """How much must happen for a run to prove anything.

    Attributes:
        kinds: how many kinds of faults there must be.
        freezes: how many freezes over 40 s.
    """

    jobs: int
    long_jobs: int
    faults: int
    kinds: int
    freezes: int

    @classmethod
    def of(cls, minutes: float) -> Minimums:
        """In proportion to 10,000 jobs, 50 long ones, 15 faults of every kind and three long freezes in five minutes."""

        def share(count: int) -> int:
            return ceil(count * minutes / 5 - 1e-9)

        return cls(share(10_000), share(50), share(15), min(len(KINDS), share(len(KINDS))), share(3))


@dataclass(frozen=True, slots=True)
class Queued:
    """A job's record in its queue. `key` is its ordering key."""

    job: str
    worker: str
    partition: int
    offset: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job stands in `job-state`: its status, and how each attempt ended, by number."""

    status: str
    attempts: Mapping[int, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What the log says.

    Attributes:
        queued: every record of the queues; a job that was enqueued twice has two.
        outcomes: by job id; a job that nobody has begun has none.
        begun_again: what was written of jobs after they had ended.
        done_twice: jobs of which more than one record was taken for a job of its own.
        given_up: jobs of which `dead-letters` says that they took too many processes with them.
    """

    queued: Sequence[Queued]
    outcomes: Mapping[str, Outcome]
    begun_again: Sequence[str] = ()
    done_twice: Sequence[str] = ()
    given_up: frozenset[str] = frozenset()


@dataclass(slots=True)
class Attempt:
    """An execution, as its ticks show it. Times are in nanoseconds."""

    token: tuple[int, int]
    number: int
    pid: int
    begun: int
    last: int
    ended: bool = False
    ticks: list[int] = field(default_factory=list)

    @property
    def order(self) -> tuple[tuple[int, int], int]:
        return self.token, self.begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a run. Lists hold what went wrong, a line each.

    Attributes:
        accepted: jobs whose acceptance was acknowledged.
        unconfirmed: jobs in the log whose acknowledgement the sender never got.
        duplicates: records of jobs beyond the first of each.
        executed_again: jobs that were executed more than once.
        repeated: executions of a job beyond its first, by what ended the one before.
        done_twice: jobs that were asked for more than once, and done for more than one of these requests.
        failed: jobs that failed and killed no process, or were cancelled: no job of these workers fails by itself.
        poison: jobs that killed their processes, and ended.
        poison_kept: those among them that did not end as failed and with a dead letter.
        misbehaved: what processes were seen to do that they must not.
        after_thaw: ticks of superseded attempts within 500 ms of the end of a freeze.
        longest_stall: seconds in which no job ticked anywhere.
    """

    accepted: int
    unconfirmed: int
    duplicates: int
    ended: int
    statuses: Mapping[str, int]
    long_jobs: int
    lost: Sequence[str]
    executed_again: int
    repeated: Mapping[str, int]
    overlaps: Sequence[str]
    after_thaw: int
    out_of_order: Sequence[str]
    finished_again: Sequence[str]
    done_twice: Sequence[str]
    failed: Sequence[str]
    poison: int
    poison_kept: Sequence[str]
    misbehaved: Sequence[str]
    longest_stall: float
    faults: Mapping[str, int]
    long_freezes: int
    shortfalls: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether nothing was broken, and enough happened to say so."""
        by_jobs = (self.lost, self.overlaps, self.out_of_order, self.finished_again, self.done_twice, self.failed)
        return not any(by_jobs) and not self.poison_kept and not self.misbehaved and not self.shortfalls


def judge(entries: Iterable[Entry], log: LogFacts, minimums: Minimums, misbehaved: Sequence[str] = ()) -> Verdict:
    """Judges a run that is over, and in which there was time enough for all jobs to end.

    Args:
        misbehaved: what neither ledger nor log tell: processes that live on, or end, where they must not.
    """
    evidence = _Evidence.of(entries)
    ids = {record.job for record in log.queued}
    ended = {job for job in ids | evidence.accepted if (outcome := log.outcomes.get(job)) is not None and outcome.has_ended}
    lost = [_lost(job, ids, log) for job in sorted((ids | evidence.accepted) - ended)]
    overlaps, after_thaw = _overlaps(evidence)
    long_jobs = sum(
        any(each.ended and each.last - each.begun >= LONG_SECONDS * SECOND for each in evidence.attempts.get(job, ()))
        for job in ended
    )
    long_freezes = sum(fault.kind in FREEZES and fault.seconds > LONG_FREEZE_SECONDS for fault in evidence.faults)
    kinds = Counter(fault.kind for fault in evidence.faults)
    done = Minimums(len(ended), long_jobs, len(evidence.faults), len(kinds), long_freezes)
    return Verdict(
        accepted=len(evidence.accepted),
        unconfirmed=len(ids - evidence.accepted),
        duplicates=len(log.queued) - len(ids),
        ended=len(ended),
        statuses=dict(Counter(log.outcomes[job].status for job in ended)),
        long_jobs=long_jobs,
        lost=lost,
        executed_again=sum(len(attempts) > 1 for attempts in evidence.attempts.values()),
        repeated=_repeated(evidence, log),
        overlaps=overlaps,
        after_thaw=after_thaw,
        out_of_order=_out_of_order(evidence, log),
        finished_again=list(log.begun_again),
        done_twice=list(log.done_twice),
        failed=[job for job in sorted(ended - evidence.poison) if log.outcomes[job].status != "completed"],
        poison=len(ended & evidence.poison),
        poison_kept=[_kept(job, log) for job in sorted(ended & evidence.poison) if not _is_given_up(job, log)],
        misbehaved=list(misbehaved),
        longest_stall=evidence.longest_stall(),
        faults={kind: kinds[kind] for kind in KINDS},
        long_freezes=long_freezes,
        shortfalls=_shortfalls(done, minimums),
    )


@dataclass(slots=True)
class _Evidence:
    """The ledger, sorted by what it is about.

    Attributes:
        attempts: of each job, in the order in which their starts were written down.
        signals: what each process was sent, in the order of time.
    """

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    signals: dict[int, list[Signalled]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    poisoned: dict[int, int] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    signs: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> _Evidence:
        made = cls()
        attempts: dict[str, dict[tuple[tuple[int, int], int, int], Attempt]] = defaultdict(dict)
        for entry in entries:
            match entry:
                case Tick():
                    made.signs.append(entry.at)
                    each = attempts[entry.job].setdefault(
                        (entry.token, entry.attempt, entry.pid),
                        Attempt(entry.token, entry.attempt, entry.pid, entry.at, entry.at),
                    )
                    each.ticks.append(entry.at)
                    each.begun, each.last = min(each.begun, entry.at), max(each.last, entry.at)
                    each.ended |= entry.kind == "end"
                case Accepted():
                    made.accepted.add(entry.job)
                case Signalled():
                    made.signals[entry.pid].append(entry)
                case Fault():
                    made.faults.append(entry)
                case Poisoned():
                    made.poisoned[entry.pid] = entry.at
                    made.poison.add(entry.job)
        made.attempts = {job: sorted(of_job.values(), key=lambda each: each.order) for job, of_job in attempts.items()}
        made.signs.sort()
        return made

    def thawing(self, pid: int, at: int) -> bool:
        """Whether a process had gone on after a freeze for less than 500 ms."""
        return any(
            signal.name == "SIGCONT" and signal.at <= at <= signal.at + AFTER_THAW_SECONDS * SECOND
            for signal in self.signals.get(pid, ())
        )

    def longest_stall(self) -> float:
        gaps = (after - before for before, after in pairwise(self.signs))
        return max(gaps, default=0) / SECOND


def _lost(job: str, ids: set[str], log: LogFacts) -> str:
    if job not in ids:
        return f"{job}: its record is not in the log"
    outcome = log.outcomes.get(job)
    return f"{job}: {outcome.status if outcome else 'queued'}, {len(outcome.attempts) if outcome else 0} attempts"


def _is_given_up(job: str, log: LogFacts) -> bool:
    """Whether a job that has ended did so as one must that kills its process at every attempt."""
    return log.outcomes[job].status == "failed" and job in log.given_up


def _kept(job: str, log: LogFacts) -> str:
    return f"{job}: {log.outcomes[job].status}, with{'' if job in log.given_up else 'out'} a dead letter"


def _overlaps(evidence: _Evidence) -> tuple[list[str], int]:
    """Attempts that ticked after a newer one of their job had begun, and how many such ticks came right after a thaw."""
    found, after_thaw = [], 0
    for job, attempts in evidence.attempts.items():
        for index, older in enumerate(attempts):
            newer = min(attempts[index + 1 :], key=lambda each: each.begun, default=None)
            if newer is None or newer.begun >= older.last:
                continue
            late = [at for at in older.ticks if at > newer.begun]
            thawing = [at for at in late if evidence.thawing(older.pid, at)]
            after_thaw += len(thawing)
            if len(late) > len(thawing):
                count, seconds = len(late) - len(thawing), (older.last - newer.begun) / SECOND
                found.append(
                    f"{job}: attempt {older.number} {older.token} in process {older.pid} ticked {count} times, up to "
                    f"{seconds:.3f} s, after attempt {newer.number} {newer.token} had begun in process {newer.pid}"
                )
    return found, after_thaw


def _repeated(evidence: _Evidence, log: LogFacts) -> dict[str, int]:
    """How many executions followed another one of their job, by what ended that."""
    reasons: Counter[str] = Counter()
    for job, attempts in evidence.attempts.items():
        outcome = log.outcomes.get(job)
        for older, newer in pairwise(attempts):
            status = outcome.attempts.get(older.number, "") if outcome else ""
            reasons[_reason(evidence, older, newer, status)] += 1
    return dict(reasons.most_common())


_BY_SIGNAL = {"SIGKILL": "its process was killed", "SIGTERM": "its process was stopped", "SIGSTOP": "its process was frozen"}


def _reason(evidence: _Evidence, older: Attempt, newer: Attempt, status: str) -> str:
    if status == "failed":
        return "it had failed, and was retried"
    suffix = ", after its work was done" if older.ended else ""
    for signal in reversed(evidence.signals.get(older.pid, ())):
        # What came before the attempt did nothing to it, but a process may be told to stop and run on for the grace.
        if older.begun <= signal.at <= newer.begun and signal.name in _BY_SIGNAL:
            return _BY_SIGNAL[signal.name] + suffix
    poisoned = evidence.poisoned.get(older.pid)
    if poisoned is not None and older.begun <= poisoned <= newer.begun:
        return "a poison job killed its process" + suffix
    return (f"{status or 'unknown'}: a lost lease, a rebalance or a broker that was away") + suffix


def _out_of_order(evidence: _Evidence, log: LogFacts) -> list[str]:
    """Jobs that began before one of the same key that stands before them was over."""
    lanes: dict[tuple[str, int, str], dict[str, int]] = defaultdict(dict)
    for record in log.queued:
        if record.key is not None:
            lane = lanes[record.worker, record.partition, record.key]
            lane[record.job] = min(record.offset, lane.get(record.job, record.offset))
    found = []
    for (worker, _, key), offsets in lanes.items():
        before: tuple[int, str] | None = None
        for job in sorted(offsets, key=offsets.__getitem__):
            attempts = evidence.attempts.get(job, ())
            ticks = [at for each in attempts for at in each.ticks if not evidence.thawing(each.pid, at)]
            if not ticks:
                continue
            if before is not None and min(ticks) < before[0]:
                seconds = (before[0] - min(ticks)) / SECOND
                found.append(
                    f"{job} of {worker}, key {key}, began {seconds:.3f} s before {before[1]} was over, which stands before it"
                )
            if before is None or max(ticks) > before[0]:
                before = max(ticks), job
    return found


def _shortfalls(done: Minimums, wanted: Minimums) -> list[str]:
    named = {
        "jobs": "jobs ended",
        "long_jobs": f"jobs of more than {LONG_SECONDS:g} s",
        "faults": "faults",
        "kinds": "kinds of faults",
        "freezes": f"freezes over {LONG_FREEZE_SECONDS:g} s",
    }
    return [
        f"{getattr(done, name)} {what}, and {getattr(wanted, name)} are needed"
        for name, what in named.items()
        if getattr(done, name) < getattr(wanted, name)
    ]
