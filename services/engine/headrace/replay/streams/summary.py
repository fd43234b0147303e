"""What came of a replay of many jobs: how many were the same, and the worst of what was not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from headrace.codec import encode_foreign
from headrace.core.comparison import Comparison, Outcome, Verdict
from headrace.core.status import JobStatus
from headrace.core.texts import cut_in_the_middle
from headrace.errors import ConfigurationError
from headrace.replay.rerunning.differences import MISSING, differences

SLOWER: Final = "slower"
NOT_IN_CODE: Final = "not-in-code"
_SAME: Final = Verdict.SAME.value
CATEGORIES: Final = (
    _SAME,
    Verdict.DIFFERENT.value,
    Verdict.NEWLY_FAILING.value,
    Verdict.NEWLY_FIXED.value,
    SLOWER,
    Verdict.NOT_COMPARABLE.value,
    Verdict.ARGUMENTS_REFUSED.value,
    NOT_IN_CODE,
)
"""How the jobs of a replay are counted. One that was slower is counted so beside its verdict; one not in the code is not run."""

_MOST_KINDS: Final = 1_000
# Of a worker's jobs that are of none of so many.
_OTHERS: Final = "..."
_SHOWN_KINDS: Final = 5
_LISTED_JOBS: Final = 10_000
# On a busy machine most jobs are slower: they must not take the places of those that came to something else.
_LISTED_SLOWER: Final = 1_000
_LONGEST_VALUE: Final = 300
# Ids, digests, as of the `key` in a recording's name, addresses and numbers.
_CHANGING = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|\b[0-9a-fA-F]{32,}\b|\b0x[0-9a-fA-F]+\b|\d+")


@dataclass(frozen=True, slots=True)
class Replayed:
    """A job that was run again, or left out, beside what was recorded of it.

    Attributes:
        recorded: None where it had not ended.
        replayed: None where it was left out, as nothing could be compared with what was recorded.
    """

    job_id: str
    worker: str
    comparison: Comparison
    recorded: Outcome | None
    replayed: Outcome | None

    @property
    def categories(self) -> tuple[str, ...]:
        """Under which the job is counted."""
        verdict = str(self.comparison.verdict)
        return (verdict, SLOWER) if self.comparison.slower else (verdict,)


@dataclass(slots=True)
class Kind:
    """Jobs that have the same to tell.

    Attributes:
        what: that, of the one that is the example.
        weight: what the worst kinds have most of: jobs, or the seconds by which the example was slower.
    """

    worker: str
    what: str
    example: str
    count: int = 0
    weight: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"workerName": self.worker, "what": self.what, "jobs": self.count, "example": self.example}


class NotShown(NamedTuple):
    """What the worst of a category leave out.

    Attributes:
        kinds: how many.
        jobs: how many jobs are of these.
        are_all: whether there are no more: those beyond the thousandth are counted as one of each worker.
    """

    kinds: int
    jobs: int
    are_all: bool


@dataclass(slots=True)
class Summary:
    """Counts of a replay, kept while it goes on.

    Attributes:
        jobs: how many were run, or left out as nothing could be compared.
        counts: jobs of each category, in all and by worker.
        listed: what is not the same, job by job, up to a limit; without the results, which may be large.
        left_out: how many jobs that are not the same are not listed, since there are too many.
        left_behind: attempts that went on after their time, and still do when the replay is over; see `Rerunner.left_behind`.
        not_removed: why the replay's sandbox is still there although it was to be removed, and what to do; empty where it is not.
    """

    jobs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    by_worker: dict[str, Counter[str]] = field(default_factory=dict)
    listed: list[Replayed] = field(default_factory=list)
    left_out: int = 0
    left_behind: int = 0
    not_removed: str = ""
    _kinds: dict[str, dict[tuple[str, str], Kind]] = field(default_factory=dict)
    # How many are listed that are only slower, and how many others.
    _listed: Counter[bool] = field(default_factory=Counter)

    def add(self, replayed: Replayed) -> None:
        """Counts a job."""
        self.jobs += 1
        of_worker = self.by_worker.get(replayed.worker)
        if of_worker is None:
            of_worker = self.by_worker[replayed.worker] = Counter()
        if replayed.comparison.verdict is Verdict.SAME and not replayed.comparison.slower:
            self.counts[_SAME] += 1
            of_worker[_SAME] += 1
            return
        for category in replayed.categories:
            self.counts[category] += 1
            of_worker[category] += 1
            if category != _SAME:
                self._note(category, replayed)
        only_slower = replayed.comparison.verdict is Verdict.SAME
        if self._listed[only_slower] >= (_LISTED_SLOWER if only_slower else _LISTED_JOBS):
            self.left_out += 1
            return
        self._listed[only_slower] += 1
        self.listed.append(_without_results(replayed))

    def leave_out(self, jobs: Mapping[str, int]) -> None:
        """Counts jobs that are not run since their worker, by whose name they are given, is not in the code."""
        for worker, count in jobs.items():
            self.counts[NOT_IN_CODE] += count
            self.by_worker.setdefault(worker, Counter())[NOT_IN_CODE] += count

    @property
    def not_in_code(self) -> dict[str, int]:
        """How many jobs were left out by `leave_out`, by worker; the most first."""
        counts = {worker: counts[NOT_IN_CODE] for worker, counts in self.by_worker.items() if counts[NOT_IN_CODE]}
        return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))

    def jobs_of(self, workers: Collection[str]) -> int:
        """How many of `jobs` are of these workers."""
        return sum(
            counts.total() - counts[SLOWER] - counts[NOT_IN_CODE] for name, counts in self.by_worker.items() if name in workers
        )

    def worst(self, category: str) -> list[Kind]:
        """The kinds of a category that weigh most, the worst first."""
        kinds = self._kinds.get(category, {}).values()
        return sorted(kinds, key=lambda kind: kind.weight, reverse=True)[:_SHOWN_KINDS]

    def not_shown(self, category: str) -> NotShown:
        """What there is of a category beside its `worst`."""
        kinds = self._kinds.get(category, {})
        jobs = sum(kind.count for kind in kinds.values()) - sum(kind.count for kind in self.worst(category))
        has_others = any(what == _OTHERS for _, what in kinds)
        return NotShown(max(0, len(kinds) - _SHOWN_KINDS), jobs, are_all=not has_others)

    def any_of(self, categories: Collection[str]) -> bool:
        """Whether a job was counted under one of these."""
        return any(self.counts[category] for category in categories)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        not_shown = {category: each for category in CATEGORIES if (each := self.not_shown(category)).kinds}
        return {
            "jobs": self.jobs,
            "counts": _in_full(self.counts),
            "workers": {name: _in_full(counts) for name, counts in sorted(self.by_worker.items())},
            "worst": {category: [kind.to_json() for kind in worst] for category in CATEGORIES if (worst := self.worst(category))},
            "worstLeftOut": {
                category: {"kinds": each.kinds, "jobs": each.jobs, **({} if each.are_all else {"atLeast": True})}
                for category, each in not_shown.items()
            },
            "notSame": [_listed(each) for each in self.listed],
            "notSameLeftOut": self.left_out,
            "notRemoved": self.not_removed or None,
        }

    def _note(self, category: str, replayed: Replayed) -> None:
        kinds = self._kinds.setdefault(category, {})
        what = replayed.comparison.reason or _TOLD[category](replayed.recorded, replayed.replayed)
        alike = replayed.worker, "" if category == SLOWER else _CHANGING.sub("#", what)
        kind = kinds.get(alike)
        if kind is None:
            if len(kinds) >= _MOST_KINDS:
                alike, what = (replayed.worker, _OTHERS), "others"
            kind = kinds.setdefault(alike, Kind(replayed.worker, what, replayed.job_id))
        kind.count += 1
        if category != SLOWER:
            kind.weight = kind.count
        elif (weight := _seconds_lost(replayed)) > kind.weight:
            kind.weight, kind.what, kind.example = weight, what, replayed.job_id


def _without_results(replayed: Replayed) -> Replayed:
    recorded, today = (None if each is None else replace(each, result=None) for each in (replayed.recorded, replayed.replayed))
    return replace(replayed, recorded=recorded, replayed=today)


def _in_full(counts: Mapping[str, int]) -> dict[str, int]:
    return {category: counts.get(category, 0) for category in CATEGORIES}


def _listed(replayed: Replayed) -> dict[str, Any]:
    return {
        "id": replayed.job_id,
        "workerName": replayed.worker,
        "categories": list(replayed.categories),
        "recorded": _brief(replayed.recorded),
        "replayed": _brief(replayed.replayed),
        **({"reason": replayed.comparison.reason} if replayed.comparison.reason else {}),
    }


def _brief(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    error = None if outcome.error_type is None else {"type": outcome.error_type, "message": outcome.error_message or ""}
    return {"status": outcome.status.value, "error": error, "seconds": outcome.seconds}


def told_not_in_code(jobs: Mapping[str, int]) -> list[str]:
    """A line for each worker of which jobs were left out, since it is not in the code."""
    return [f"{count:,} {'job' if count == 1 else 'jobs'} of {worker}: not in the loaded code" for worker, count in jobs.items()]


def categories_from(text: str) -> frozenset[str]:
    """The categories of `--fail-on`, a list with commas between.

    Raises:
        ConfigurationError: there is none of that name, or none is named at all, as where a variable is not set.
    """
    names = frozenset(name for part in text.split(",") if (name := part.strip()))
    if not names:
        raise ConfigurationError(
            f"--fail-on {text!r} names no category, so that nothing would be checked: name some of {', '.join(CATEGORIES)}, or"
            " leave the option out."
        )
    if strange := sorted(names - set(CATEGORIES)):
        raise ConfigurationError(f"There is no category {strange[0]!r} in a replay's summary: there are {', '.join(CATEGORIES)}.")
    return names


# --- what is told of a job ----------------------------------------------------------------------------------------------


def _has_error(outcome: Outcome | None) -> bool:
    # Whoever wrote it may have left out either.
    return outcome is not None and (outcome.error_type is not None or outcome.error_message is not None)


def _error_of(outcome: Outcome | None) -> str:
    if outcome is None or not _has_error(outcome):
        return "no error"
    return " ".join(f"{outcome.error_type or 'an error'}: {outcome.error_message or ''}".split())


def _value(value: Any) -> str:
    """A part of a result, as JSON has it; it may be large."""
    return "nothing" if value is MISSING else cut_in_the_middle(encode_foreign(value).decode(), _LONGEST_VALUE)


def _difference(recorded: Outcome | None, replayed: Outcome | None) -> str:
    if _has_error(recorded) or _has_error(replayed):
        return f"{_error_of(recorded)} → {_error_of(replayed)}"
    first = next(iter(differences(_result_of(recorded), _result_of(replayed))))
    place = f"result.{first.path}" if first.path else "result"
    return f"{place}: {_value(first.recorded)} → {_value(first.replayed)}"


def _result_of(outcome: Outcome | None) -> Any:
    return None if outcome is None else outcome.result


def _why_not_comparable(recorded: Outcome | None, replayed: Outcome | None) -> str:
    if recorded is None:
        return "had not ended"
    if recorded.status is JobStatus.FAILED:
        return _error_of(recorded)
    if replayed is None or recorded.status is JobStatus.CANCELLED:
        return recorded.status.value
    return f"today {replayed.status.value}"


def _seconds(outcome: Outcome | None) -> float:
    return 0.0 if outcome is None else outcome.seconds or 0.0


def _slowness(recorded: Outcome | None, replayed: Outcome | None) -> str:
    return f"{_seconds(recorded):.3f} s → {_seconds(replayed):.3f} s"


def _seconds_lost(replayed: Replayed) -> float:
    return _seconds(replayed.replayed) - _seconds(replayed.recorded)


_TOLD: Final[Mapping[str, Callable[[Outcome | None, Outcome | None], str]]] = {
    Verdict.DIFFERENT.value: _difference,
    Verdict.NEWLY_FAILING.value: lambda _recorded, replayed: _error_of(replayed),
    Verdict.NEWLY_FIXED.value: lambda recorded, _replayed: _error_of(recorded),
    Verdict.ARGUMENTS_REFUSED.value: lambda _recorded, replayed: _error_of(replayed),
    Verdict.NOT_COMPARABLE.value: _why_not_comparable,
    SLOWER: _slowness,
}
