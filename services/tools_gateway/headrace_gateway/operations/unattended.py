"""Tells the operator of jobs that are accepted for a worker that no engine runs: their receipts say nothing of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from headrace import HeadraceError
from headrace_gateway.operations.jobs import Jobs

logger = logging.getLogger(__name__)

SAID_EVERY_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
"""How often it is looked, at most, whether an engine runs a worker of which jobs are accepted."""


class _Accepted:
    """The jobs of one worker since the last look."""

    __slots__ = ("jobs", "later", "look_at")

    def __init__(self) -> None:
        self.jobs = 0
        self.look_at = float("-inf")
        self.later: asyncio.Task[None] | None = None


class Unattended:
    """Warns in the log, once a minute for each worker, with how many jobs were accepted meanwhile.

    Args:
        jobs: says which workers are run.
        clock: seconds that only ever rise.
    """

    def __init__(self, jobs: Jobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._clock = clock
        self._accepted: dict[str, _Accepted] = {}

    async def accepted(self, worker: str) -> None:
        """A job of the worker was accepted. It raises nothing."""
        accepted = self._accepted.get(worker)
        if accepted is None:
            accepted = self._accepted[worker] = _Accepted()
        accepted.jobs += 1
        if self._clock() >= accepted.look_at:
            await self._look(worker, accepted)
        elif accepted.later is None:
            # Maybe no other job is accepted by then.
            accepted.later = asyncio.create_task(self._look_later(worker, accepted), name=f"unattended-{worker}")

    async def stop(self) -> None:
        """Tells of what was not told of yet."""
        for worker, accepted in self._accepted.items():
            if accepted.later is not None:
                accepted.later.cancel()
                accepted.later = None
            if accepted.jobs:
                await self._look(worker, accepted)

    async def _look_later(self, worker: str, accepted: _Accepted) -> None:
        await asyncio.sleep(accepted.look_at - self._clock())
        accepted.later = None
        await self._look(worker, accepted)

    async def _look(self, worker: str, accepted: _Accepted) -> None:
        now = self._clock()
        accepted.look_at = now + LOOK_SECONDS
        try:
            runs = any(each.name == worker and each.live_instances for each in await self._jobs.list_workers())
        except HeadraceError:
            return
        if not runs:
            accepted.look_at = now + SAID_EVERY_SECONDS
            logger.warning(
                "No engine runs the worker %r: its jobs wait until one does. Accepted since this was last looked at: %d.",
                worker,
                accepted.jobs,
            )
        accepted.jobs = 0
