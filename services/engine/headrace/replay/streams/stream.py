"""Replays of many jobs: those of a span through today's code, in this process, each beside what was recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from headrace.core.comparison import Comparison, Outcome, Verdict
from headrace.errors import ConfigurationError
from headrace.replay.history import WHY_DAMAGED, History, RecordedJob, Wanted, outcome_of, was_ended_by_its_code
from headrace.replay.recorded.wanted import matches
from headrace.replay.streams.pacing import Batches, Pacing, run_paced
from headrace.replay.streams.summary import Replayed, Summary
from headrace.replay_errors import NothingInCode


class Rerun(Protocol):
    """What came of a recorded job when it was run again."""

    @property
    def recorded(self) -> Outcome | None: ...
    @property
    def replayed(self) -> Outcome: ...
    @property
    def comparison(self) -> Comparison: ...


class Reruns(Protocol):
    """Runs recorded jobs again; `headrace.replay.Rerunner` does."""

    async def rerun(self, job: RecordedJob) -> Rerun: ...

    def refusal(self, job: RecordedJob) -> Rerun | None:
        """What comes of a job whose arguments the code does not take; None where it takes them. The job is not run."""


class StoredHistory(History, Protocol):
    """A history that can tell how many jobs it has without reading all of them."""

    async def count(self, wanted: Wanted) -> int:
        """About how many jobs are in the span, of these workers, whatever their fields are."""

    def check_fields(self, fields: Collection[str]) -> None:
        """Raises ArgumentsInvalid where nobody can choose jobs by one of the fields, which are given by their paths."""

    async def count_left(self, wanted: Wanted) -> Mapping[str, int]:
        """How many of the jobs that are wanted are there, by worker; without those of which there are none."""


@dataclass(slots=True)
class StreamReplay:
    """A replay of many jobs, and how far it is.

    Attributes:
        summary: of those that were run, or left out.
        read: how many jobs of the span and of these workers were read so far, whatever their fields are.
        found: how many of them are wanted.
        all_found: whether there are no more.
        heard: called with each job that was run, or left out.
        limits: how many jobs of a worker run at a time at most, by its name.
        sandbox: the namespace in which it runs, while that is there; None in this process.
    """

    history: History
    reruns: Reruns
    wanted: Wanted
    pacing: Pacing = field(default_factory=Pacing)
    heard: Callable[[Replayed], None] | None = None
    summary: Summary = field(default_factory=Summary)
    read: int = 0
    found: int = 0
    all_found: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    sandbox: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether all jobs that are wanted were run, or left out."""
        return self.all_found and self.summary.jobs == self.found

    async def run(self) -> Summary:
        """Runs all of them in this process, but for those that `passes_over` leaves out.

        Raises:
            HistoryGone: the span begins before what is left of the log.
            BrokerError: the brokers cannot be used.
        """
        await run_paced(self.jobs(), self._run_or_pass_over, self.pacing, self.limits)
        return self.summary

    async def _run_or_pass_over(self, job: RecordedJob) -> None:
        if not self.passes_over(job):
            await self.rerun(job)

    async def jobs(self) -> Batches:
        """The jobs that are wanted, counted as they are read."""
        fields = self.wanted.fields
        # All of them are asked for, so that those that are not wanted are counted, too: it is the work that is done.
        async with aclosing(self.history.jobs(replace(self.wanted, fields={}))) as batches:
            async for batch in batches:
                self.read += len(batch)
                chosen = [job for job in batch if matches(job, fields)] if fields else batch
                self.found += len(chosen)
                if chosen:
                    yield chosen
        self.all_found = True

    def expected(self, total: int | None) -> int | None:
        """About how many jobs are to be run in all, by the share that was wanted so far; None where that cannot be known yet.

        Args:
            total: how many are to be read, if that is known.
        """
        if self.all_found:
            return self.found
        if total is None or not self.wanted.fields:
            return total
        return round(max(total, self.read) * self.found / self.read) if self.read else None

    async def rerun(self, job: RecordedJob) -> Rerun:
        """Runs one of them, and counts what came of it."""
        rerun = await self.reruns.rerun(job)
        self._count_rerun(job, rerun)
        return rerun

    def passes_over(self, job: RecordedJob) -> bool:
        """Whether one of them is not to be run, as nothing could be compared with what was recorded of it. It is counted then.

        What was cancelled may have hung, and what ended its process would end this one: many jobs do not hang on such a one.
        That today's code does not take its arguments is told all the same.
        """
        if was_ended_by_its_code(job):
            return False
        if (refused := self.reruns.refusal(job)) is not None:
            self._count_rerun(job, refused)
        else:
            self.leave_out(job, None, WHY_DAMAGED if job.damaged else "")
        return True

    def _count_rerun(self, job: RecordedJob, rerun: Rerun) -> None:
        self._count(Replayed(job.id, str(job.record["workerName"]), rerun.comparison, rerun.recorded, rerun.replayed))

    def leave_out(self, job: RecordedJob, outcome: Outcome | None, reason: str) -> None:
        """Counts one of them as not comparable: its attempt was not run to its end.

        Args:
            outcome: what came of it in place of that; None where it was not begun.
            reason: why, where what was recorded does not tell that.
        """
        comparison = Comparison(Verdict.NOT_COMPARABLE, reason=reason)
        self._count(Replayed(job.id, str(job.record["workerName"]), comparison, outcome_of(job), outcome))

    def _count(self, replayed: Replayed) -> None:
        self.summary.add(replayed)
        if self.heard is not None:
            self.heard(replayed)


async def left_out(
    history: StoredHistory, wanted: Wanted, in_code: Collection[str], recorded: Collection[str]
) -> Mapping[str, int]:
    """How many of the jobs that are wanted nobody can run, since their worker is not in the code; by worker.

    Raises BrokerError.
    """
    missing = () if wanted.workers else set(recorded) - set(in_code)
    return await history.count_left(replace(wanted, workers=sorted(missing))) if missing else {}


def wanted_workers(
    named: Collection[str], in_code: Collection[str], recorded: Collection[str], left_out: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """The workers whose jobs are to be run: those named, or those that are both in the code and in what was recorded.

    Args:
        left_out: what `left_out` gives.

    Raises:
        ConfigurationError: one that is named is not in the code.
        NothingInCode: there is none at all.
    """
    if missing := sorted(set(named) - set(in_code)):
        raise ConfigurationError(
            f"No worker of the code that was loaded is named {missing[0]!r}. Loaded are: {', '.join(sorted(in_code)) or 'none'}."
        )
    wanted = tuple(sorted(named or set(in_code) & set(recorded)))
    if not wanted:
        raise NothingInCode(
            f"Of the workers that were loaded ({', '.join(sorted(in_code)) or 'none'}) none has recorded jobs. Recorded are those"
            f" of: {', '.join(sorted(recorded)) or 'none'}.",
            left_out or {},
            recorded,
        )
    return wanted
