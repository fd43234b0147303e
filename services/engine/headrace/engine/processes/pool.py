"""The child processes of one worker: made when they are needed, kept warm, and replaced when they die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

from headrace.core.snapshots import accepted
from headrace.engine.partition import Work
from headrace.engine.processes.connection import ChildProcess
from headrace.engine.processes.naming import reference_of
from headrace.errors import ConfigurationError, WorkerProcessDied
from headrace.job_context import JobContext
from headrace.worker import AbstractWorker

_logger = logging.getLogger(__name__)

# Its modules are imported anew, on a machine that may be busy.
_START_SECONDS = 120.0


class ProcessPool:
    """Runs attempts of one worker, each in a child process for as long as it takes.

    There are as many processes as ever were needed at a time; that is bounded by how many attempts run.
    """

    def __init__(self, worker: AbstractWorker[Any]) -> None:
        self._worker = worker
        self._idle: list[ChildProcess] = []
        self._all: set[ChildProcess] = set()

    @cached_property
    def reference(self) -> str:
        """The name by which a child imports the worker.

        Raises:
            ConfigurationError: it has none.
        """
        return reference_of(self._worker)

    def can_run(self) -> bool:
        """Whether a child process can import the worker; if not, a warning says what to do."""
        try:
            return bool(self.reference)
        except ConfigurationError as error:
            _logger.warning("%s", error)
            return False

    async def run(self, work: Work, ctx: JobContext, *, alone: bool, begun: Callable[[], None]) -> Any:
        """Runs an attempt to its end. Cancelled, it returns when the process is gone.

        Args:
            alone: whether the process is for this attempt only, and ends with it.
            begun: called when the process is there, and the attempt begins.

        Raises:
            BaseException: whatever it raised.
            WorkerProcessDied: its process died.
        """
        child = await self._take(fresh=alone)
        try:
            begun()
            answer = await child.call(_call(work, ctx), ctx.progress)
        except GeneratorExit:
            child.kill()
            raise
        except BaseException:
            # Whatever it is, the attempt may run on in that process, and its answer would be taken for another's.
            await self._destroy(child)
            raise
        await self._give_back(child, alone=alone)
        if answer.error is not None:
            raise answer.error
        return answer.result

    async def close(self) -> None:
        """Ends all processes."""
        await asyncio.gather(*(child.end() for child in list(self._all)), return_exceptions=True)
        for child in self._all:
            child.close()
        self._all.clear()
        self._idle.clear()

    async def _take(self, *, fresh: bool) -> ChildProcess:
        while self._idle and not fresh:
            child = self._idle.pop()
            if not child.has_ended:
                return child
            self._forget(child)
        child = ChildProcess()
        self._all.add(child)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child.prepare(self.reference)
        except TimeoutError:
            await self._destroy(child)
            raise WorkerProcessDied(None, f"was not ready within {_START_SECONDS:g} s") from None
        except GeneratorExit:
            child.kill()
            raise
        except BaseException:
            await self._destroy(child)
            raise
        return child

    async def _give_back(self, child: ChildProcess, *, alone: bool) -> None:
        if child.has_ended:
            self._forget(child)
        elif alone:
            await self._destroy(child)
        else:
            self._idle.append(child)

    async def _destroy(self, child: ChildProcess) -> None:
        child.kill()
        try:
            await child.gone()
        finally:
            self._forget(child)

    def _forget(self, child: ChildProcess) -> None:
        self._all.discard(child)
        child.close()


def _call(work: Work, ctx: JobContext) -> dict[str, Any]:
    topic, partition = work.partition.source
    job = {
        **accepted(work.record),
        **work.state.fields,
        "source": {"topic": topic, "partition": partition, "offset": work.offset},
    }
    return {"job": job, "attempt": ctx.attempt, "token": ctx.fencing_token}
