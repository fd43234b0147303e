"""Runs many seeds, side by side in processes: what comes of each depends on the seed alone."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import FrameType

from headrace.testing.simulation.run import Report, simulate
from headrace.testing.simulation.scenario import Scenario

# Of a processor's time: however busy the machine is.
HANG_SECONDS = 60

_PR_SET_PDEATHSIG = 1


class _Hangs(KeyboardInterrupt):
    """A run goes on without its time passing. An event loop lets pass what is no such interrupt."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one seed.

    Attributes:
        report: None where the run hung: it went on for too long.
        seconds: how long it took, by the clock on the wall.
    """

    seed: int
    report: Report | None
    seconds: float


def run_seed(seed: int, hang_seconds: float = HANG_SECONDS, *, to_the_end: bool = True) -> Result:
    """Runs one seed, in this process. One that computes for longer than `hang_seconds` hangs, where a system tells (SIGPROF)."""
    began = time.monotonic()
    alarm = getattr(signal, "SIGPROF", None)
    if alarm is not None:
        signal.signal(alarm, _give_up)
        # More than once: a job may take it for an error of its own.
        signal.setitimer(signal.ITIMER_PROF, hang_seconds, 1.0)
    try:
        report: Report | None = simulate(Scenario.of(seed), to_the_end=to_the_end)
    except _Hangs:
        report = None
    finally:
        if alarm is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return Result(seed, report, time.monotonic() - began)


def run_seeds(seeds: Iterable[int], processes: int) -> Iterator[Result]:
    """What came of each seed, in their order, so many at a time."""
    wanted = list(seeds)
    if processes == 1 or len(wanted) == 1:
        yield from map(run_seed, wanted)
        return
    with process_pool(min(processes, len(wanted))) as pool:
        yield from pool.map(run_seed, wanted)


def process_pool(processes: int) -> ProcessPoolExecutor:
    """So many processes, which end with this one, however that ends (on Linux). To be used in the main thread alone."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with, (os.getpid(),))


def _end_with(parent: int) -> None:
    # A process of a pool whose owner was killed would wait for work for ever: its siblings hold the other end of its queue.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended meanwhile


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise _Hangs
