"""Runs attempts of recorded jobs again, in this process, through the workers' code as an engine does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import orjson

from headrace.abstract_worker import AbstractWorker, runs_in_loop
from headrace.core.comparison import Comparison, Outcome, Verdict, compare
from headrace.core.status import JobStatus
from headrace.engine.admission import NotAdmitted, admit_arguments
from headrace.engine.failure import Conclusion, conclude
from headrace.engine.worker_ends import close_worker
from headrace.errors import WorkerUnknown
from headrace.job_context import JobContext, JobServices
from headrace.memory.bound import BoundMemory
from headrace.models import Job
from headrace.replay.exports.redaction import redacted_outcome
from headrace.replay.history import WHY_DAMAGED, History, RecordedJob
from headrace.replay.recorded.refused import RefusedJob
from headrace.replay.rerunning.answers import PastAnswers
from headrace.replay.rerunning.attempts import PastAttempt
from headrace.replay.rerunning.code import by_name
from headrace.replay.rerunning.effects import CapturedChildren, Effects
from headrace.replay.rerunning.past_memory import PastMemory
from headrace.replay.rerunning.running import RunningAttempt
from headrace.replay.rerunning.waiting import WaitedHistory
from headrace.replay_errors import JobNotReplayable, ThreadsExhausted
from headrace.threads import DaemonThreads

ARGUMENTS_INVALID: Final = "arguments_invalid"
_MOST_READ_AHEAD: Final = 50_000
"""So many records of a partition of `memory` are read for a job that names a conversation, and may never ask for its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOptions:
    """How jobs are run again.

    Attributes:
        live: whether what a job did not record, and asks for by `ctx.recorded`, is asked for outside, which has effects there.
        threads: plain functions that run at a time. Those that were left behind do not count: others take their threads' place.
        keep_raised: whether a `Rerun` keeps the exception itself, with all that its frames hold.
    """

    live: bool = False
    threads: int = 32
    keep_raised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """What came of an attempt of a recorded job when it was run again.

    Attributes:
        attempt: its number.
        recorded: what had come of it; None where it had not ended, or was interrupted.
        replayed: what comes of it now, where no other attempt follows. What is redacted in the recorded job is so here, too.
        error: why it failed, as the job's record would have it: type, message and traceback; None if it did not.
        effects: what it would have done.
        raised: the exception that `error` describes, where it is kept.
    """

    job: RecordedJob
    attempt: int
    recorded: Outcome | None
    replayed: Outcome
    comparison: Comparison
    effects: Effects
    error: Mapping[str, str] | None = None
    raised: BaseException | None = None


class Rerunner:
    """Runs recorded jobs again. An async context manager; any number of jobs may run at a time.

    Workers run as in an engine: `async def` in the event loop, plain functions in threads. Those with `executor = "process"` run
    in a thread, too, so that a debugger reaches them, and what they do through their context is captured.

    Args:
        history: what was recorded.
        workers: today's code. They are closed at the end.

    Raises:
        ConfigurationError: two workers have one name.
    """

    def __init__(self, history: History, workers: Iterable[AbstractWorker[Any]], options: RerunOptions | None = None) -> None:
        self._history = history
        self._workers = by_name(workers)
        self._options = options or RerunOptions()
        # Whoever has a place gets a thread at once, a new one where others were left behind: nobody waits for it on the clock.
        self._places = asyncio.Semaphore(self._options.threads)
        self._threads = DaemonThreads("headrace-replay")
        self._children: CapturedChildren | None = None
        self._use_memory: set[str] = set()
        self._asking = asyncio.Lock()
        self._left_behind: set[RunningAttempt] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown()
        await asyncio.gather(*(close_worker(worker) for worker in self._workers.values()))

    @property
    def workers(self) -> Mapping[str, AbstractWorker[Any]]:
        """The workers, by name."""
        return self._workers

    @property
    def left_behind(self) -> int:
        """How many attempts went on after their time, and still do, also when this was left.

        What runs in a thread ends by itself or with the process, and holds neither `asyncio.run` nor the end of Python. A
        coroutine that takes no notice of being cancelled does.
        """
        self._left_behind = {each for each in self._left_behind if each.goes_on}
        return len(self._left_behind)

    async def rerun(self, job: RecordedJob, *, attempt: int | None = None) -> Rerun:
        """Runs an attempt of a job again, with the arguments, the context, the ids and the time that it had.

        Args:
            attempt: its number; that of the final one when None.

        Raises:
            WorkerUnknown: none of the workers has the job's name.
            AttemptUnknown: the job has no such attempt, or nothing is left of it.
            JobNotReplayable: its record is none of a job, so that an engine refused it.
            BrokerError: what was recorded cannot be read. One that the worker raises by itself is the attempt's own.
            ThreadsExhausted: there is no thread for a plain function.
        """
        if isinstance(job, RefusedJob):
            raise JobNotReplayable(job.why_not_replayed)
        worker = self._worker_of(job)
        past, effects = PastAttempt(job, attempt), Effects()
        try:
            arguments = admit_arguments(worker, job.record["args"])
        except NotAdmitted as refused:
            return self._refused(past, refused)
        # Before the attempt begins: it did not have to wait for any of this.
        await self._captured_children()
        waited = WaitedHistory(self._history)
        await waited.read_ahead(job, past.number)
        uses_memory = job.record["workerName"] in self._use_memory
        await waited.read_memory_ahead(job, at_most=None if uses_memory else _MOST_READ_AHEAD)
        seconds = past.recorded_job.record.get("attemptTimeout") or worker.timeout
        running = RunningAttempt(worker, seconds, waited, self._threads)
        ctx = JobContext(
            past,
            attempt=past.number,
            services=self._services(past, effects, running, waited),
            fencing_token=past.token,
            started_at=past.started_at,
            arguments=arguments,
        )
        async with nullcontext() if runs_in_loop(worker) else self._places:
            begun = time.perf_counter()
            try:
                result, raised, late_after = await running.run(ctx)
            finally:
                if running.goes_on and not running.is_ending:
                    self._left_behind.add(running)
            took = max(0.0, time.perf_counter() - begun - waited.seconds)
        if waited.failure is not None:
            raise waited.failure
        if running.threads.refused is not None:
            raise self._exhausted(running.threads.refused)
        return self._told(past, effects, conclude(result, raised, late_after), took)

    def refusal(self, job: RecordedJob) -> Rerun | None:
        """What comes of a job whose arguments today's code does not take; None where it takes them. The job is not run.

        Raises WorkerUnknown, AttemptUnknown.
        """
        past = PastAttempt(job)
        try:
            admit_arguments(self._worker_of(job), job.record["args"])
        except NotAdmitted as refused:
            return self._refused(past, refused)
        return None

    def _refused(self, past: PastAttempt, refused: NotAdmitted) -> Rerun:
        error = {"type": refused.reason, "message": refused.message}
        return self._told(past, Effects(), Conclusion(JobStatus.FAILED, error=error), None)

    def _worker_of(self, job: RecordedJob) -> AbstractWorker[Any]:
        name = job.record["workerName"]
        worker = self._workers.get(name)
        if worker is None:
            loaded = ", ".join(sorted(self._workers)) or "none"
            raise WorkerUnknown(
                f"Job {job.id} is of worker {name!r}, which is not in the code that was loaded. Loaded are: {loaded}. Name the"
                " module that has it."
            )
        return worker

    def _exhausted(self, refused: RuntimeError) -> ThreadsExhausted:
        return ThreadsExhausted(
            f"No thread is left for the functions of workers ({refused}): {self.left_behind} of earlier jobs go on after their"
            " time. Have them look at `ctx.cancelled`, replay fewer jobs at a time, or allow this process more threads."
        )

    def _services(self, past: PastAttempt, effects: Effects, running: RunningAttempt, history: WaitedHistory) -> JobServices:
        options = self._options

        def memory(job: Job) -> BoundMemory:
            self._use_memory.add(job.worker_name)
            store = PastMemory(lambda conversation: history.memory_at(conversation, past.beginning), effects)
            return BoundMemory(store, job.tenant, job.id)

        async def enqueue(request: Any) -> Job:
            child = await (await self._captured_children()).enqueue(request, past.began)
            effects.enqueued.append(child)
            return child

        return JobServices(
            now=lambda: past.began,
            memory=memory,
            executor=running.threads,
            report=effects.report,
            cancelled=running.is_over,
            enqueue=enqueue,
            loop=asyncio.get_running_loop(),
            recordings=lambda _, attempt: PastAnswers(history, past.recorded_job, attempt, effects, live=options.live),
            replaying=True,
        )

    async def _captured_children(self) -> CapturedChildren:
        if self._children is not None:
            return self._children
        async with self._asking:
            if self._children is None:
                own = {name: worker.definition() for name, worker in self._workers.items()}
                self._children = CapturedChildren({**await self._history.worker_definitions(), **own})
            return self._children

    def _told(self, past: PastAttempt, effects: Effects, conclusion: Conclusion, seconds: float | None) -> Rerun:
        error = conclusion.error or {}
        result = None if conclusion.result is None else orjson.loads(orjson.dumps(conclusion.result))
        made = Outcome(conclusion.status, result, error.get("type"), error.get("message"), seconds)
        # What was taken out of the one is no difference to the other.
        hidden = past.recorded_job.redacted
        replayed = redacted_outcome(made, hidden)
        outcome = past.outcome
        recorded = None if outcome is None else redacted_outcome(outcome, hidden)
        comparison = compare(recorded, past.told(replayed))
        if error.get("type") == ARGUMENTS_INVALID and (recorded is None or recorded.error_type != ARGUMENTS_INVALID):
            comparison = Comparison(Verdict.ARGUMENTS_REFUSED)
        if comparison.verdict in _BY_WHAT_IS_MISSING and (missing := _missing(effects)) is not None:
            comparison = Comparison(Verdict.NOT_COMPARABLE, reason=missing)
        if past.recorded_job.damaged and comparison.verdict is Verdict.NOT_COMPARABLE:
            comparison = Comparison(Verdict.NOT_COMPARABLE, reason=WHY_DAMAGED)
        return Rerun(
            job=past.recorded_job,
            attempt=past.number,
            recorded=recorded,
            replayed=replayed,
            comparison=comparison,
            effects=effects,
            error=conclusion.error,
            raised=conclusion.cause if self._options.keep_raised else None,
        )


_BY_WHAT_IS_MISSING: Final = frozenset({Verdict.DIFFERENT, Verdict.NEWLY_FAILING, Verdict.NEWLY_FIXED})
"""What may come of it that something was not recorded: nobody knows what the code makes of an answer. It may also catch that it
gets none, and end well by that alone.
"""


def _missing(effects: Effects) -> str | None:
    if effects.not_recorded:
        key = effects.not_recorded[0]
        return f"today's code asks for {key.name!r}, number {key.number}, which was not recorded: --live asks outside for it"
    if effects.memory_unknown:
        where = effects.memory_unknown[0]
        return f"the memory of conversation {where.conversation_id!r} of user {where.user_id!r} is not in the export"
    return None
