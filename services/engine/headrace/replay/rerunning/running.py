"""An attempt that is run again: it is held to its time, and told when that is over."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from headrace.abstract_worker import AbstractWorker, run_attempt, runs_in_loop
from headrace.job_context import JobContext
from headrace.replay.rerunning.waiting import WaitedHistory

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

_STUBBORN_SECONDS: Final = 10.0
_MOMENT_SECONDS: Final = 0.5


class StillRunning(Exception):
    """Nothing was raised here: it stands for where a function was when its time was over, and goes on."""

    def __init__(self) -> None:
        super().__init__("it stood here when its time was over, and goes on in its thread")


class OwnThreads(Executor):
    """What one attempt has run in threads, and whether any of that goes on.

    Args:
        threads: where it runs. Once these are shut down, only this tells of the functions that go on in them.

    Attributes:
        refused: why a function got no thread, if so: whatever the attempt makes of that says nothing of its code.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._at_work: dict[int, None] = {}
        self.refused: RuntimeError | None = None

    @property
    def are_at_work(self) -> bool:
        """Whether a function of the attempt runs."""
        return bool(self._at_work)

    def frames(self) -> TracebackType | None:
        """Where the first of its functions stands that runs; the frames themselves go on."""
        with self._lock:
            at_work = next(iter(self._at_work), None)
        frame, frames = None if at_work is None else sys._current_frames().get(at_work), None
        while frame is not None and frame.f_code is not OwnThreads._call.__code__:
            frames = TracebackType(frames, frame, frame.f_lasti, frame.f_lineno)
            frame = frame.f_back
        # Else it has just ended, and these are none of its frames.
        return frames if at_work in self._at_work else None

    def submit(
        self, function: Callable[ParametersT, ResultT], /, *args: ParametersT.args, **options: ParametersT.kwargs
    ) -> Future[ResultT]:
        """See `DaemonThreads.submit`."""
        try:
            return self._threads.submit(self._call, lambda: function(*args, **options))
        except RuntimeError as error:
            self.refused = error
            raise

    def _call(self, function: Callable[[], ResultT]) -> ResultT:
        thread = threading.get_ident()
        with self._lock:
            self._at_work[thread] = None
        try:
            return function()
        finally:
            with self._lock:
                del self._at_work[thread]


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
        """What it returns, what it raises, and how many seconds it might have taken, if it took more.

        For a function that goes on in its thread after that, `StillRunning` tells where it stands.
        """
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
        result, error = self._task.result() if self._task.done() else (None, self._still_running())
        return result, error, seconds

    def _still_running(self) -> StillRunning | None:
        frames = self.threads.frames()
        return None if frames is None else StillRunning().with_traceback(frames)


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
