"""An attempt that is run again: it is held to its time, and told when that is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, TypeVar

from headrace.job_context import JobContext
from headrace.replay.rerunning.waiting import WaitedHistory
from headrace.worker import AbstractWorker, run_attempt, runs_in_loop

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

_STUBBORN_SECONDS: Final = 10.0
_MOMENT_SECONDS: Final = 0.5


class OwnThreads(Executor):
    """What one attempt has run in threads, and whether any of that goes on.

    Args:
        threads: where it runs. Once these are shut down, only this tells of the functions that go on in them.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._under_way = 0

    @property
    def are_at_work(self) -> bool:
        """Whether a function of the attempt runs."""
        return self._under_way > 0

    def submit(
        self, function: Callable[ParametersT, ResultT], /, *args: ParametersT.args, **options: ParametersT.kwargs
    ) -> Future[ResultT]:
        """See `DaemonThreads.submit`."""

        def call() -> ResultT:
            self._count(1)
            try:
                return function(*args, **options)
            finally:
                self._count(-1)

        return self._threads.submit(call)

    def _count(self, change: int) -> None:
        with self._lock:
            self._under_way += change


class RunningAttempt:
    """An attempt that runs.

    Args:
        seconds: it may take, but for what is waited for the history.
        threads: where plain functions run.

    Attributes:
        is_ending: whether it was cancelled with whoever waits for it, and will end by that.
        threads: those of this attempt.
    """

    __slots__ = ("_cancels", "_is_over", "_seconds", "_task", "_waited", "_worker", "is_ending", "threads")

    def __init__(self, worker: AbstractWorker[Any], seconds: float | None, waited: WaitedHistory, threads: Executor) -> None:
        self._worker = worker
        self._seconds = seconds
        self._waited = waited
        self._cancels = runs_in_loop(worker)
        self._is_over = False
        self.is_ending = False
        self.threads = OwnThreads(threads)
        self._task: asyncio.Task[tuple[Any, BaseException | None]]

    @property
    def goes_on(self) -> bool:
        """Whether anything of it runs."""
        return not self._task.done() or self.threads.are_at_work

    def is_over(self, _: object) -> bool:
        """Whether the attempt is to end, since its time is over; asked from any thread."""
        return self._is_over

    async def run(self, ctx: JobContext) -> tuple[Any, BaseException | None, float | None]:
        """What it returns, what it raises, and how many seconds it might have taken, if it took more."""
        # A task of its own, as in an engine: it can be cancelled, and what it sets in a context variable is not seen by another.
        self._task = asyncio.create_task(_caught(self._worker, ctx))
        try:
            if self._seconds is not None:
                return await self._in_time(self._seconds)
            if self._cancels:
                return await self._to_its_end()
            await asyncio.wait((self._task,))
            return *self._task.result(), None
        except asyncio.CancelledError:
            self._is_over = True
            self._task.cancel()
            self.is_ending = self._cancels
            raise

    async def _to_its_end(self) -> tuple[Any, BaseException | None, float | None]:
        """Waits for a coroutine, which is cancelled with whoever waits; it costs less than `asyncio.wait`."""
        own = asyncio.current_task()
        assert own is not None
        before = own.cancelling()
        result, error = await self._task
        if own.cancelling() > before:
            raise asyncio.CancelledError  # it was caught in there
        return result, error, None

    async def _in_time(self, seconds: float) -> tuple[Any, BaseException | None, float | None]:
        waited_for, begun = (self._task,), time.perf_counter()
        # What is read of the history takes time that the job did not need then.
        while (left := seconds - (time.perf_counter() - begun - self._waited.seconds)) > 0:
            await asyncio.wait(waited_for, timeout=left)
            if self._task.done():
                return *self._task.result(), None
        self._is_over = True
        if self._cancels:
            self._task.cancel()
        # A function in a thread cannot be stopped: it may look at `ctx.cancelled`, and is left behind if it does not.
        await asyncio.wait(waited_for, timeout=_STUBBORN_SECONDS if self._cancels else _MOMENT_SECONDS)
        result, error = self._task.result() if self._task.done() else (None, None)
        return result, error, seconds


async def _caught(worker: AbstractWorker[Any], ctx: JobContext) -> tuple[Any, BaseException | None]:
    """What an attempt returns, and what it raises, also an attempt to end the process."""
    try:
        return await run_attempt(worker, ctx), None
    except GeneratorExit as error:
        if not _is_at_work():
            raise  # the event loop is closed
        return None, error
    except BaseException as error:
        return None, error


def _is_at_work() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no event loop runs
        return False
