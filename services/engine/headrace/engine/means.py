"""What executing attempts needs of the engine around it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.abstract_worker import AbstractWorker
from headrace.core.snapshots import MostDeaths
from headrace.engine.guarding import UNGUARDED, Guard
from headrace.engine.partition import Work
from headrace.errors import EngineStuck
from headrace.job_context import JobContext
from headrace.settings import EngineSettings


class AttemptProcesses(Protocol):
    """Processes apart from the engine's, in which attempts of one worker can run."""

    def can_run(self) -> bool:
        """Whether attempts of the worker can run there."""

    async def run(self, work: Work, ctx: JobContext, *, alone: bool, begun: Callable[[], None]) -> Any:
        """Runs an attempt to its end. Cancelled, it returns when nothing of the attempt runs any more.

        Args:
            alone: whether the process is for this attempt only.
            begun: called when the attempt begins, which may be a while after the call.

        Raises:
            BaseException: whatever it raised.
            WorkerProcessDied: its process died.
        """

    async def close(self) -> None:
        """Ends all processes."""


def _nobody(_: EngineStuck) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Means:
    """What executing attempts of one worker needs of the engine.

    Attributes:
        processes: where those run that are not to run in the engine's own process.
        stuck_seconds: how long an attempt may go on after its time before `stuck` is called.
        stuck: called when only the end of the engine's process can end an attempt.
        most_deaths: how much may die with one job before it is given up.
        guard: ends the engine by a fault of its own.
    """

    processes: AttemptProcesses | None = None
    stuck_seconds: float = 300.0
    stuck: Callable[[EngineStuck], None] = _nobody
    most_deaths: MostDeaths = field(default_factory=MostDeaths)
    guard: Guard = UNGUARDED


def slots_of(worker: AbstractWorker[Any], settings: EngineSettings) -> int:
    """How many attempts of a worker run at a time in one engine; of those in processes, one for each processor unless it says."""
    if worker.concurrency is not None or worker.executor != "process":
        return worker.concurrency or settings.concurrency
    return min(settings.concurrency, os.cpu_count() or 1)
