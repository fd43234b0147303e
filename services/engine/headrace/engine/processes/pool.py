"""The child processes of one worker: made when they are needed, kept warm, and replaced when they die."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.core.snapshots import accepted
from headrace.engine.partition import Work
from headrace.engine.processes.connection import ChildProcess
from headrace.engine.processes.naming import reference_of
from headrace.errors import ConfigurationError, WorkerProcessDied
from headrace.job_context import JobContext

_logger = logging.getLogger(__name__)

# Its modules are imported anew, on a machine that may be busy.
_START_SECONDS = 120.0
# Some 60 MB each.
_ALONE_AT_ONCE = 16


class ProcessRoom:
    """How many child processes an engine has at a time of what is not bounded by how many attempts run.

    When a busy engine has died twice, all that ran in it is isolated. Were those processes started in one moment, they would
    leave the engine no time to renew its leases; it would lose all attempts, and the next engine would do the same.

    Args:
        starting: those that start, which takes a processor each.
        alone: those that are for one attempt each.
    """

    def __init__(self, *, starting: int | None = None, alone: int = _ALONE_AT_ONCE) -> None:
        self.starting = asyncio.Semaphore(starting or os.cpu_count() or 1)
        self.alone = asyncio.Semaphore(alone)


def process_pools(room: ProcessRoom | None = None) -> Callable[[AbstractWorker[Any]], ProcessPool]:
    """Makes the pools of one engine's workers, which share the room."""
    return partial(ProcessPool, room=room or ProcessRoom())


class ProcessPool:
    """Runs attempts of one worker, each in a child process for as long as it takes.

    There are as many processes as ever were needed at a time; that is bounded by how many attempts run, and by the room.
    """

    def __init__(self, worker: AbstractWorker[Any], room: ProcessRoom) -> None:
        self._worker = worker
        self._room = room
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
        """Runs an attempt to its end, as soon as there is room. Cancelled, it returns when the process is gone.

        Args:
            alone: whether the process is for this attempt only, and ends with it.
            begun: called when the process is there, and the attempt begins.

        Raises:
            BaseException: whatever it raised.
            WorkerProcessDied: its process died.
        """
        if alone:
            async with self._room.alone:
                return await self._run(work, ctx, alone=True, begun=begun)
        return await self._run(work, ctx, alone=False, begun=begun)

    async def _run(self, work: Work, ctx: JobContext, *, alone: bool, begun: Callable[[], None]) -> Any:
        child = await self._take(fresh=alone)
        try:
            begun()
            answer = await child.call(_call(work, ctx), ctx.progress, ctx._recorder)
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
        async with self._room.starting:
            return await self._start()

    async def _start(self) -> ChildProcess:
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
    started_at = work.state.fields["attempts"][-1]["startedAt"]
    return {"job": job, "attempt": ctx.attempt, "token": ctx.fencing_token, "startedAt": started_at}
