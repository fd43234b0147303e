"""Executes one attempt: calls the worker with its arguments and its context, and holds it to its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from headrace.abstract_worker import AbstractWorker, overrides_process_job, run_attempt, runs_in_loop
from headrace.engine.means import AttemptProcesses, Means
from headrace.engine.partition import Work
from headrace.engine.states import State
from headrace.engine.timeouts import Timeouts
from headrace.job_context import JobContext, JobServices


class Execution:
    """Executes the attempts of one worker.

    Args:
        services: what the jobs may reach.
        over: called when an attempt has ended, with what it returned and what it raised, in the task that ran it.
        means: what else the engine lends it.
    """

    def __init__(
        self,
        worker: AbstractWorker[Any],
        services: JobServices,
        over: Callable[[Work, Any, BaseException | None], None],
        means: Means,
    ) -> None:
        self._worker = worker
        self._services = replace(services, cancelled=self._is_cancelled)
        self._over = over
        self._processes = means.processes
        self._overridden = overrides_process_job(worker)
        self._in_loop = runs_in_loop(worker)
        self._apart = worker.executor == "process" and means.processes is not None
        self._timeout = worker.timeout
        self._timeouts = Timeouts(worker.name, means)

    async def run(self, work: Work) -> None:
        """Runs a job to its end. What it raises is handed on, also an attempt to end the process: it costs that job alone."""
        result: Any = None
        error: BaseException | None = None
        try:
            # Where the process must be made first, the time begins when it is there.
            processes = self._processes_for(work) if self._apart or work.original is not None else None
            if processes is None and (self._timeout is not None or "attemptTimeout" in work.record):
                self._begin_timeout(work, cancels=self._in_loop)
            ctx = self._context(work)
            if processes is not None:
                begun = partial(self._begin_timeout, work, cancels=True)
                result = await processes.run(work, ctx, alone=work.original is not None, begun=begun)
            elif self._in_loop and not self._overridden:
                # What `run_attempt` does with a coroutine function, without a coroutine around it.
                result = await self._worker.run(work.arguments, ctx)
            else:
                result = await run_attempt(self._worker, ctx)
        except GeneratorExit as raised:
            if not _is_run(work):
                raise  # the event loop is closed, and nothing can be written any more
            error = raised
        except BaseException as raised:
            error = raised
        self._over(work, result, error)

    def isolate(self, work: Work) -> None:
        """Notes down whether a job that is to run in a process of its own does: whose death counts is told by that (rule X1)."""
        isolated = self._processes is not None and self._processes.can_run()
        work.state = State({**work.state.fields, "isolated": isolated})

    def late_after(self, work: Work) -> float | None:
        """The attempt is over: the seconds that it should have taken at most, if it took more."""
        return self._timeouts.end(work) if self._timeouts.limits else None

    def overrun(self, work: Work) -> float | None:
        """The seconds that an attempt should have taken at most that takes more, and runs on."""
        return self._timeouts.overrun(work)

    def is_stuck(self, work: Work) -> bool:
        """Whether a running attempt has been given up: only the end of the process ends it."""
        return self._timeouts.is_stuck(work)

    def _is_cancelled(self, work: Work) -> bool:
        """Whether an attempt is to end; asked from any thread. Under a lost claim nothing that it does counts any more."""
        return work.cancelled or not work.partition.live or self._timeouts.overrun(work) is not None

    def _processes_for(self, work: Work) -> AttemptProcesses | None:
        """Where an attempt runs apart from this process. A worker that cannot be had there gets its last chance here."""
        if self._processes is None or (work.original is not None and not self._apart and not self._processes.can_run()):
            return None
        return self._processes

    def _begin_timeout(self, work: Work, *, cancels: bool) -> None:
        seconds = work.record.get("attemptTimeout") or self._timeout
        if seconds is not None:
            self._timeouts.begin(work, seconds, cancels=cancels)

    def _context(self, work: Work) -> JobContext:
        fields = work.state.fields
        number, started_at = fields["attempt"], fields["attempts"][-1]["startedAt"]
        token = (work.partition.writer.epoch, number)
        return JobContext(
            work,
            attempt=number,
            services=self._services,
            fencing_token=token,
            started_at=started_at,
            arguments=work.arguments,
        )


def _is_run(work: Work) -> bool:
    """Whether the task of an attempt is at work, and not just being closed."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return False
    return task is not None and work.task in (None, task)
