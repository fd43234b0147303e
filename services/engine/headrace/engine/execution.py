"""Executes one attempt: calls the worker with its arguments and its context, and holds it to its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from headrace.engine.partition import Work
from headrace.engine.timeouts import Timeouts
from headrace.job_context import JobContext, JobServices
from headrace.worker import AbstractWorker


class Execution:
    """Executes the attempts of one worker.

    Args:
        services: what the jobs may reach.
        over: called when an attempt has ended, with what it returned and what it raised, in the task that ran it.
    """

    def __init__(
        self, worker: AbstractWorker[Any], services: JobServices, over: Callable[[Work, Any, BaseException | None], None]
    ) -> None:
        self._worker = worker
        self._services = replace(services, cancelled=self._is_cancelled)
        self._over = over
        # A Job is made for those alone who look at it.
        self._overridden = type(worker).process_job is not AbstractWorker.process_job
        # What `process_job` does with a coroutine function, without a coroutine around it.
        self._in_loop = worker._runs_in_loop
        self._timeout = worker.timeout
        self._timeouts = Timeouts(worker.name, cancels=self._in_loop)

    async def run(self, work: Work) -> None:
        """Runs a job to its end. What it raises is handed on, also an attempt to end the process: it costs that job alone."""
        result: Any = None
        error: BaseException | None = None
        if self._timeout is not None or "attemptTimeout" in work.record:
            self._begin_timeout(work)
        try:
            ctx = self._context(work)
            if self._overridden:
                result = await self._worker.process_job(ctx.job, ctx)
            elif self._in_loop:
                result = await self._worker.run(work.arguments, ctx)
            else:
                result = await self._worker._process(ctx)
        except GeneratorExit:
            raise  # the event loop is closed, and nothing can be written any more
        except BaseException as raised:
            error = raised
        self._over(work, result, error)

    def late_after(self, work: Work) -> float | None:
        """The attempt is over: the seconds that it should have taken at most, if it took more."""
        return self._timeouts.end(work) if self._timeouts.limits else None

    def _is_cancelled(self, work: Work) -> bool:
        """Whether an attempt is to end; asked from any thread."""
        return work.cancelled or self._timeouts.is_late(work)

    def _begin_timeout(self, work: Work) -> None:
        seconds = work.record.get("attemptTimeout") or self._timeout
        if seconds is not None:
            self._timeouts.begin(work, seconds)

    def _context(self, work: Work) -> JobContext:
        number = work.state.fields["attempt"]
        token = (work.partition.writer.epoch, number)
        ctx = JobContext(work, attempt=number, services=self._services, fencing_token=token)
        ctx._arguments = work.arguments
        return ctx
