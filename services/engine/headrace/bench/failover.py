"""How long work stands still when engines are restarted and killed, on real processes under a steady load."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from headrace.bench.engine_processes import Notes, SupervisedEngine
from headrace.bench.failover_worker import Failover
from headrace.bench.workload import new_workload
from headrace.client import Client
from headrace.errors import HeadraceError
from headrace.settings import Settings

_WORKER = "headrace.bench.failover_worker"
_ENGINES = 3
_PATIENCE_SECONDS = 150.0
_SETTLE_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_NEVER = float("inf")
# Jobs as agents have them: most are soon over, some wait for seconds.
_SECONDS = (0.05, 0.05, 0.5, 0.5, 0.8, 0.8, 0.8, 1.0, 2.0, 15.0)

RESTART_P99_SECONDS = 5.0
KILLED_SECONDS = 8.0
MACHINE_SECONDS = 90.0


@dataclass(slots=True)
class _Load:
    """Jobs that come at a steady pace.

    Attributes:
        called: when each was accepted, by its id.
        seconds: how long each takes.
    """

    client: Client
    notes: Notes
    per_second: float
    called: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _random: Random = field(default_factory=lambda: Random(7))

    async def run(self) -> None:
        """Enqueues until it is cancelled."""
        worker, start, number = Failover(), time.monotonic(), 0
        while True:
            await asyncio.sleep(max(0.0, start + number / self.per_second - time.monotonic()))
            number += 1
            seconds = self._random.choice(_SECONDS)
            job = await self.client.enqueue(worker, {"file": str(self.notes.file), "seconds": seconds})
            self.called[job.id], self.seconds[job.id] = time.time(), seconds


async def measure_failover(
    settings: Settings,
    *,
    rounds: int = 2,
    per_second: float = 30.0,
    grace: float = 2.0,
    machine: bool = False,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Restarts and kills three engines while jobs come at a steady pace.

    Args:
        rounds: how often each engine is killed.
        grace: seconds that running attempts get when an engine is restarted. Jobs of its partitions that have not begun wait for
            them, and so for the grace where attempts take longer.
        machine: whether a supervisor is killed with its engine, too, as a machine that is gone: this takes a minute and more.

    Returns seconds, and whether all is within what is aimed at. `restart_...`: from SIGTERM, or from the acceptance of a job that
    came later, to the job's start, of all that waited for it while an engine was replaced; and how many attempts that would take
    less than half the grace were running in it, and ended. `killed_...`: from kill -9 of an engine to the next start of each job
    that ran in it. `machine_...`: the same, when its supervisor is killed with it.
    """
    workload = new_workload(settings)
    with tempfile.TemporaryDirectory(prefix="headrace-failover-") as folder:
        bench = _Bench(workload.settings, Path(folder), grace, say)
        try:
            async with Client(workload.settings) as client:
                return await bench.measure(client, rounds, per_second, machine)
        finally:
            await asyncio.to_thread(bench.remove)
            await workload.remove()


class _Bench:
    def __init__(self, settings: Settings, folder: Path, grace: float, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._grace = grace
        self._folder = folder
        self._say = say
        self._notes = Notes(folder / "notes.txt")
        self._engines: list[SupervisedEngine] = []

    def remove(self) -> None:
        """Ends what is left."""
        for engine in self._engines:
            engine.terminate()
        for engine in self._engines:
            engine.remove()

    async def measure(self, client: Client, rounds: int, per_second: float, machine: bool) -> dict[str, Any]:
        for number in range(_ENGINES):
            self._engines.append(self._new_engine(number))
        await self._until(lambda: all(engine.has_started for engine in self._engines), "the engines start")
        load = _Load(client, self._notes, per_second)
        loading = asyncio.create_task(load.run())
        try:
            await self._until(lambda: len(self._processes()) == _ENGINES, "all engines run jobs")
            await asyncio.sleep(_SETTLE_SECONDS)
            figures = await self._restart_all(load)
            figures |= await self._kill_each(rounds)
            if machine:
                figures |= await self._lose_machine()
            loading.cancel()
            await self._until(lambda: not self._unended(load), "all jobs end")
            await self._check_attempts(client, load, figures)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        figures["passed"] = all(value for name, value in figures.items() if name.endswith("_passed"))
        return figures

    # --- what is done ---------------------------------------------------------------------------------------------------

    async def _restart_all(self, load: _Load) -> dict[str, Any]:
        """One engine after another ends in order, and another takes its place."""
        waits: list[float] = []
        short: set[tuple[str, int]] = set()
        for number, leaving in enumerate(list(self._engines)):
            running = self._notes.running(leaving.process_id).values()
            short |= {(noted.job_id, noted.attempt) for noted in running if load.seconds[noted.job_id] < self._grace / 2}
            at = time.time()
            leaving.terminate()
            await self._until(partial(self._has_ended, leaving), "an engine ends")
            self._engines[number] = self._new_engine(number)
            await self._until(partial(self._has_started, self._engines[number]), "an engine starts")
            await asyncio.sleep(_SETTLE_SECONDS)
            found = await self._starts(load, at, time.time() - 1)
            waits += found
            self._say(
                f"restart of engine {number + 1}: {len(found)} jobs waited {max(found):.2f} s at most; {len(running)} ran in it"
            )
        ended = {(noted.job_id, noted.attempt) for noted in self._notes.all() if noted.event == "end"}
        return {
            **_spread("restart", waits),
            "restart_grace_seconds": self._grace,
            "restart_passed": _percentile(waits, 99) <= RESTART_P99_SECONDS,
            "restart_short_attempts": len(short),
            "restart_short_attempts_ended": len(short & ended),
            "restart_short_passed": bool(short) and short <= ended,
        }

    async def _starts(self, load: _Load, since: float, until: float) -> list[float]:
        """How long each job waited that was to start after `since`, of those that were accepted before `until`."""
        concerned = [job_id for job_id, called in load.called.items() if called < until and self._began(job_id) > since]
        await self._until(lambda: all(self._began(job_id) < _NEVER for job_id in concerned), "jobs start")
        return [self._began(job_id) - max(since, load.called[job_id]) for job_id in concerned]

    async def _kill_each(self, rounds: int) -> dict[str, Any]:
        waits: list[float] = []
        for number in range(rounds * _ENGINES):
            pid = await self._busy_engine()
            at = time.time()
            os.kill(pid, signal.SIGKILL)
            found = await self._next_starts(pid, at)
            waits += found
            self._say(f"kill {number + 1}: {len(found)} jobs ran again after {max(found):.2f} s at most")
            await asyncio.sleep(_SETTLE_SECONDS)
        return {**_spread("killed", waits), "killed_passed": max(waits) <= KILLED_SECONDS}

    async def _lose_machine(self) -> dict[str, Any]:
        pid = await self._busy_engine()
        [noted, *_] = self._notes.running(pid).values()
        engine = next(engine for engine in self._engines if engine.process_id == noted.parent_id)
        at = time.time()
        engine.kill_with_machine(pid)
        waits = await self._next_starts(pid, at)
        self._say(f"supervisor and engine killed: {len(waits)} jobs ran again after {max(waits):.2f} s at most")
        return {**_spread("machine", waits), "machine_passed": max(waits) <= MACHINE_SECONDS}

    async def _next_starts(self, pid: int, at: float) -> list[float]:
        """Seconds until the jobs that a dead process ran begin again."""
        left = self._notes.running(pid)

        def again() -> list[float]:
            begins = self._notes.begins()
            return [begins[key].at - at for noted in left.values() if (key := (noted.job_id, noted.attempt + 1)) in begins]

        # The end of one that was over just then may be written, and nothing be left to run again.
        await self._until(lambda: len(again()) >= len(left) or time.time() - at > _PATIENCE_SECONDS - 1, "jobs run again")
        return again()

    async def _check_attempts(self, client: Client, load: _Load, figures: dict[str, Any]) -> None:
        """No job failed, whatever was done to its engines."""
        again = {noted.job_id for noted in self._notes.all() if noted.attempt > 1}
        jobs = [job for job in [await client.get_job(job_id) for job_id in sorted(again)] if job is not None]
        failed = [job for job in jobs if job.status != "completed"]
        figures |= {
            "jobs": len(load.called),
            "jobs_run_again": len(again),
            "jobs_not_completed": len(failed),
            "jobs_passed": not failed,
        }

    # --- looking --------------------------------------------------------------------------------------------------------

    def _new_engine(self, number: int) -> SupervisedEngine:
        return SupervisedEngine(self._settings, _WORKER, self._folder / f"engine-{number + 1}.log", "--grace", str(self._grace))

    @staticmethod
    def _has_ended(engine: SupervisedEngine) -> bool:
        return engine.exit_code is not None

    @staticmethod
    def _has_started(engine: SupervisedEngine) -> bool:
        return engine.has_started

    def _processes(self) -> set[int]:
        """The engines that have run a job, those that live."""
        return {noted.process_id for noted in self._notes.all() if _lives(noted.process_id)}

    def _began(self, job_id: str) -> float:
        noted = self._notes.begins().get((job_id, 1))
        return noted.at if noted is not None else _NEVER

    def _unended(self, load: _Load) -> set[str]:
        return load.called.keys() - {noted.job_id for noted in self._notes.all() if noted.event == "end"}

    async def _busy_engine(self) -> int:
        """An engine that runs at least two jobs that take a while still."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid in sorted(self._processes()) if len(self._notes.running(pid)) >= 2]
            return bool(found)

        await self._until(look, "an engine has work")
        return found[0]

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise HeadraceError(f"Within {_PATIENCE_SECONDS:g} s it did not happen that {what}.")
            await asyncio.sleep(_LOOK_SECONDS)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _spread(name: str, seconds: Collection[float]) -> dict[str, Any]:
    return {
        f"{name}_jobs": len(seconds),
        f"{name}_seconds_p50": round(statistics.median(seconds), 2),
        f"{name}_seconds_p99": round(_percentile(list(seconds), 99), 2),
        f"{name}_seconds_max": round(max(seconds), 2),
    }


def _percentile(seconds: Sequence[float], percent: int) -> float:
    """The smallest of them that so many percent do not exceed."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
