"""How a process of headrace runs its event loop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from headrace.core.lease import Moment

ResultT = TypeVar("ResultT")

# An engine holds thousands of jobs at a time, all of which end soon. With Python's own thresholds the collector walks
# through them again and again and finds nothing: half of an engine's processor time went there.
_COLLECTOR_THRESHOLDS = (100_000, 20, 50)

# glibc's names for what `mallopt` sets (malloc.h), and how much freed memory a process may keep.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 32 * 1024 * 1024


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a whole process: as `asyncio.run`, on uvloop where there is one, with memory management that fits an engine."""
    _keep_freed_memory()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


class StopRequested(Exception):
    """A signal asked for the end before the work was done."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP inside an event loop: the first asks for an orderly end, each further one to hurry.

    A context manager, so that signals are taken from before the start to after the end. A SIGHUP that the process was
    started to ignore, as `nohup` has it, stays ignored.

    Attributes:
        on_first: called when the end is asked for.
        on_further: called when it is asked for again.
    """

    def __init__(self) -> None:
        self.on_first: list[Callable[[], None]] = []
        self.on_further: list[Callable[[], None]] = []
        self._requested = asyncio.Event()
        self._numbers: list[signal.Signals] = []

    def __enter__(self) -> Self:
        self._numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._numbers.append(signal.SIGHUP)
        for number in self._numbers:
            asyncio.get_running_loop().add_signal_handler(number, self.request)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in self._numbers:
            asyncio.get_running_loop().remove_signal_handler(number)

    def request(self) -> None:
        """Asks for the end, as a signal does."""
        actions = self.on_further if self._requested.is_set() else self.on_first
        self._requested.set()
        for action in actions:
            action()

    async def unless_requested(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Does the work to its end, or until the end is asked for: then it is cancelled, and waited for.

        Raises:
            StopRequested: the end was asked for first.
        """
        requested = asyncio.create_task(self._requested.wait())
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({requested, task}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise StopRequested
        finally:
            for each in (requested, task):
                each.cancel()
            await asyncio.gather(requested, task, return_exceptions=True)


async def until_done(task: asyncio.Task[Any]) -> asyncio.CancelledError | None:
    """Waits for a task to its end, although whoever waits is cancelled meanwhile: what has begun to end is to end in order.

    Returns the cancellation, for the caller to raise when what came of the task has been seen to; the task itself goes on, and
    has ended in every case.
    """
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


@asynccontextmanager
async def ended_in_order(context: AbstractAsyncContextManager[ResultT]) -> AsyncIterator[ResultT]:
    """A context for a block. Its end goes on when whoever has left the block is cancelled: that is raised afterwards."""
    entered = await context.__aenter__()
    error: BaseException | None = None
    try:
        yield entered
    except BaseException as raised:
        error = raised
        raise
    finally:
        ending = asyncio.create_task(_end(context, error))
        cancelled = await until_done(ending)
        ending.result()
        if cancelled is not None:
            raise cancelled


async def _end(context: AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
    await context.__aexit__(None if error is None else type(error), error, None if error is None else error.__traceback__)


def leave_threads_behind(exit_code: int = 0) -> NoReturn:
    """Ends the process while plain functions run on in threads, which nothing but its end can stop.

    To be called inside of the event loop, when everything else has ended in order. Python waits for the threads of an executor,
    though not for those of `DaemonThreads`, and the end of the loop for coroutines that do not heed being cancelled.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _keep_freed_memory() -> None:
    """Tells glibc to keep what is freed for the next batch.

    Batches of half a megabyte come and go many times a second. Given back to the system each time, their pages must be zeroed
    and mapped anew: two faults for every job, an eighth of the time that it costs.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, size in ((_M_MMAP_THRESHOLD, _KEPT_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_TOP_PAD, _KEPT_BYTES // 8)):
        mallopt(ctypes.c_int(option), ctypes.c_int(size))


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def wall_clock() -> int:
    """The time of day, in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def system_clock() -> Moment:
    """The clocks by which leases are held. On Linux the steady one counts on while the machine is suspended."""
    steady = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
    return Moment(steady, time.time())
