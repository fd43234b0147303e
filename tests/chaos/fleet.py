"""Engines as processes, as an operator has them: started, asked to end, killed and frozen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.ledger import Ledger, Signalled, SignalName, now
from chaos.workload import WORKERS

POLL_SECONDS = 0.05
# Of a running attempt after SIGTERM; long jobs are interrupted.
GRACE_SECONDS = 5.0
END_SECONDS = 45.0
# What ends so long after a signal does so for another reason.
EXPLAINED_SECONDS = 60.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def _ended_with_us() -> None:
    """In a child before its program runs: it is killed when the run's own process is, however that ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def spawn(arguments: Iterable[str], environment: Mapping[str, str], output: Path) -> subprocess.Popen[bytes]:
    """A process in a session of its own that runs a module of Python, and does not outlive this one."""
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=_ended_with_us,  # noqa: PLW1509 - nothing else runs in this process when it is called
        )


@dataclass(eq=False)
class Unit:
    """A `headrace engine`: a supervisor and the engine below it, which is missing for a moment when it has died.

    Attributes:
        busy: whether a fault is under way here.
        expected_to_end: whether its end was asked for, or caused, by this run.
        seen: every process that was an engine of it; known: those that were when it was last looked at.
    """

    name: str
    process: subprocess.Popen[bytes]
    busy: bool = False
    expected_to_end: bool = False
    seen: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def engines(self) -> list[int]:
        """The processes of its engines."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    words = child.cmdline()
                    if "headrace" in words and "engine" in words:  # the folder that all of it runs in may be named so, too
                        found.append(child.pid)
        self.seen.update(found)
        return found

    def everything(self) -> list[int]:
        """The unit's process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        return [self.pid]


class Fleet:
    """All units of a run.

    Attributes:
        units: those that run, and those whose end is under way.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path, ledger: Ledger) -> None:
        self.units: list[Unit] = []
        self._environment = environment
        self._folder = folder
        self._ledger = ledger
        self._names = itertools.count(1)
        self._signalled: dict[int, float] = {}

    def start(self) -> Unit:
        name = f"engine-{next(self._names)}"
        workers = [f"chaos.workload:{worker.__name__}" for worker in WORKERS]
        arguments = ["headrace", "engine", *workers, "--no-shipped", "--grace", f"{GRACE_SECONDS:g}"]
        unit = Unit(name, spawn(arguments, self._environment, self._folder / f"{name}.log"))
        self.units.append(unit)
        return unit

    def free(self) -> list[Unit]:
        """The units that run and are left alone at the moment."""
        return [unit for unit in self.units if unit.running and not unit.busy]

    def send(self, pid: int, name: SignalName) -> bool:
        """Sends a signal, and notes it; whether there was such a process."""
        # Noted first: what the process does between the signal and the note would seem to have no reason.
        self._ledger.note(Signalled(now(), pid, name))
        self._signalled[pid] = time.monotonic()
        try:
            os.kill(pid, signal.Signals[name])
        except ProcessLookupError:
            return False
        return True

    def vanished(self, unit: Unit) -> list[int]:
        """The engines of a unit that have ended since the last call, and that no signal of this run explains."""
        now_there = set(unit.engines())
        gone = unit.known - now_there
        unit.known = now_there
        if unit.expected_to_end:
            return []
        # An engine that was frozen is killed by its supervisor when its lease is over.
        explained_since = time.monotonic() - EXPLAINED_SECONDS
        return [pid for pid in gone if self._signalled.get(pid, explained_since) <= explained_since]

    def kill_supervisor(self, unit: Unit) -> None:
        """Kills the unit's own process, with which its engines have to end."""
        unit.expected_to_end = True
        for pid in unit.engines():
            self._ledger.note(Signalled(now(), pid, "SIGKILL"))
        self.send(unit.pid, "SIGKILL")

    async def stop(self, unit: Unit, *, within: float = END_SECONDS) -> bool:
        """Asks a unit to end by SIGTERM; whether it did in time. It is gone in any case."""
        unit.expected_to_end = True
        engines = unit.engines()
        self.send(unit.pid, "SIGTERM")
        for pid in engines:  # told by the supervisor
            self._ledger.note(Signalled(now(), pid, "SIGTERM"))
        ended = await self.gone(unit, within=within)
        if not ended:
            for pid in unit.everything():
                self.send(pid, "SIGKILL")
            await self.gone(unit, within=10)
        self.forget(unit)
        return ended

    async def gone(self, unit: Unit, *, within: float) -> bool:
        """Waits until a unit's process has ended; whether it did in time."""
        deadline = asyncio.get_running_loop().time() + within
        while unit.running:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def orphans(self, unit: Unit, *, within: float) -> list[int]:
        """The engines of a dead unit that live on after so many seconds."""
        deadline = asyncio.get_running_loop().time() + within
        while left := [pid for pid in unit.seen if _is_engine(pid)]:
            if asyncio.get_running_loop().time() >= deadline:
                return left
            await asyncio.sleep(POLL_SECONDS)
        return []

    def forget(self, unit: Unit) -> None:
        if unit in self.units:
            self.units.remove(unit)

    def end_all(self) -> None:
        """Kills whatever is left of any unit."""
        left = {pid for unit in self.units for pid in (*unit.everything(), *(each for each in unit.seen if _is_engine(each)))}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for unit in self.units:
            unit.process.wait(30)
        self.units.clear()


def _is_engine(pid: int) -> bool:
    """Whether the process lives and is one of these; ids are given again."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "chaos.workload" in " ".join(process.cmdline())
    return False


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended; one that is frozen lives."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
