"""How long work stands still when engines are restarted and killed, on real processes under a steady load."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from headrace.bench.engine_processes import Noted, Notes, SupervisedEngine
from headrace.bench.failover_worker import Failover, FailoverLong
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
# Jobs as agents have them: most are soon over, some wait for seconds. Those that take long by their nature have their own worker.
_SECONDS = (0.05, 0.05, 0.5, 0.5, 0.8, 0.8, 0.8, 1.0, 2.0)
_LONG_SECONDS = (15.0, 45.0)
_LONG_PER_SECOND = 0.5
# Of attempts that take no longer than this part of the grace it is certain that they end within it.
_SHORT = 0.8

RESTART_P99_SECONDS = 5.0
KILLED_SECONDS = 8.0
MACHINE_SECONDS = 90.0
# What happens, the name of its figures, the one that counts, and what that is aimed to be at most.
_AIMS = (
    ("an engine ended in order", "restart", "p99", RESTART_P99_SECONDS),
    ("an engine was killed", "killed", "max", KILLED_SECONDS),
    ("a machine was lost, supervisor and engine", "machine", "max", MACHINE_SECONDS),
)


@dataclass(slots=True)
class _Load:
    """Jobs of one worker that come at a steady pace.

    Attributes:
        choice: of how many seconds they take.
        called: when each was accepted, by its id.
        seconds: how long each takes.
        places: the partition of the queue in which each stands.
        refused: how many were not accepted in time.
    """

    client: Client
    notes: Notes
    worker: Failover
    per_second: float
    choice: Sequence[float]
    called: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    _random: Random = field(default_factory=lambda: Random(7))

    async def run(self) -> None:
        """Enqueues until it is cancelled."""
        start, number = time.monotonic(), 0
        while True:
            await asyncio.sleep(max(0.0, start + number / self.per_second - time.monotonic()))
            number += 1
            seconds = self._random.choice(self.choice)
            try:
                job = await self.client.enqueue(self.worker, {"file": str(self.notes.file), "seconds": seconds})
            except HeadraceError:
                self.refused += 1  # the brokers were too slow for a moment; the load goes on
                continue
            self.called[job.id], self.seconds[job.id] = time.time(), seconds
            if job.source is not None:
                self.places[job.id] = job.source.partition


async def measure_failover(
    settings: Settings,
    *,
    rounds: int = 2,
    per_second: float = 30.0,
    grace: float = 30.0,
    machine: bool = True,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Restarts and kills three engines while jobs come at a steady pace.

    Args:
        rounds: how often each engine is killed.
        grace: seconds that running attempts get when an engine is restarted.
        machine: whether a supervisor is killed with its engine, too, as a machine that is gone: this takes a minute and more.

    Returns seconds, and whether all is within what is aimed at. `restart_...`: from SIGTERM, or from the acceptance of a job that
    came later, to the job's start, of those that waited in a partition of the engine that ended until another ran it; their
    attempts take 2 s at most. `restart_long_...`: the same of a worker whose attempts take 15 and 45 s; a job of it waits for
    those that run in its partition, at most for the grace. `restart_short_attempts...`: how many attempts were running that take
    less than the grace, and how many of them ended. `killed_...`: from kill -9 of an engine to the next start of what ran
    in it. `machine_...`: the same, when its supervisor is killed with it.
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
        load = _Load(client, self._notes, Failover(), per_second, _SECONDS)
        long = _Load(client, self._notes, FailoverLong(), _LONG_PER_SECOND, _LONG_SECONDS)
        loading, loading_long = asyncio.create_task(load.run()), asyncio.create_task(long.run())
        try:
            await self._until(lambda: len(self._processes()) == _ENGINES, "all engines run jobs")
            await asyncio.sleep(_SETTLE_SECONDS)
            figures = await self._restart_all(load, long)
            # A job that three engines die of is a dead letter, and one that takes long may be there each time.
            loading_long.cancel()
            await self._until(lambda: not self._unended(long), "all long jobs end")
            figures |= await self._kill_each(rounds)
            if machine:
                figures |= await self._lose_machine()
            loading.cancel()
            await self._until(lambda: not self._unended(load), "all jobs end")
            await self._check_attempts(client, [load, long], figures)
        finally:
            for task in (loading, loading_long):
                task.cancel()
            await asyncio.gather(loading, loading_long, return_exceptions=True)
        figures["passed"] = all(value for name, value in figures.items() if name.endswith("_passed"))
        for verdict in verdicts(figures):
            self._say(verdict)
        return figures

    # --- what is done ---------------------------------------------------------------------------------------------------

    async def _restart_all(self, load: _Load, long: _Load) -> dict[str, Any]:
        """One engine after another ends in order, and another takes its place."""
        waits: list[float] = []
        long_waits: list[float] = []
        running: dict[tuple[str, int], float] = {}
        for number, leaving in enumerate(list(self._engines)):
            seconds = load.seconds | long.seconds
            # One may run before its acceptance is known here: of that it is not known how long it takes.
            there = [noted for noted in self._notes.running(leaving.process_id).values() if noted.job_id in seconds]
            running |= {(noted.job_id, noted.attempt): seconds[noted.job_id] for noted in there}
            at = time.time()
            leaving.terminate()
            await self._until(partial(self._has_ended, leaving), "an engine ends")
            self._engines[number] = self._new_engine(number)
            await self._until(partial(self._has_started, self._engines[number]), "an engine starts")
            await asyncio.sleep(_SETTLE_SECONDS)
            found, found_long = [await self._waits(each, leaving, at, time.time() - 1) for each in (load, long)]
            waits, long_waits = waits + found, long_waits + found_long
            self._say(
                f"restart of engine {number + 1}: {len(found)} jobs waited {max(found, default=0):.2f} s at most, "
                f"{len(found_long)} behind long ones {max(found_long, default=0):.2f} s; {len(there)} ran in it"
            )
        ended = {(noted.job_id, noted.attempt) for noted in self._notes.all() if noted.event == "end"}
        short = {attempt for attempt, seconds in running.items() if seconds < self._grace * _SHORT}
        return {
            **_spread("restart", waits),
            **_spread("restart_long", long_waits),
            "restart_grace_seconds": self._grace,
            "restart_passed": bool(waits) and _percentile(waits, 99) <= RESTART_P99_SECONDS,
            "restart_short_attempts": len(short),
            "restart_short_attempts_ended": len(short & ended),
            "restart_interrupted": len(running.keys() - ended),
            "restart_short_passed": bool(short) and short <= ended,
        }

    async def _waits(self, load: _Load, leaving: SupervisedEngine, at: float, until: float) -> list[float]:
        """How long each job waited that stood in a partition of an engine which was told to end, and started elsewhere.

        Those that came when another engine already ran the partition did not wait for it.
        """
        jobs = [job_id for job_id, called in load.called.items() if called < until]
        await self._until(lambda: all(self._began(job_id) < _NEVER for job_id in jobs), "jobs start")
        begins = [noted for (job_id, _), noted in self._notes.begins().items() if job_id in load.places]
        owners: dict[int, Noted] = {}
        went_on: dict[int, float] = {}
        for noted in sorted(begins, key=lambda noted: noted.at):
            place = load.places[noted.job_id]
            if noted.at < at:
                owners[place] = noted
            elif noted.parent_id != leaving.process_id:
                went_on.setdefault(place, noted.at)
        held = {place for place, noted in owners.items() if noted.parent_id == leaving.process_id}
        return [
            self._began(job_id) - max(at, load.called[job_id])
            for job_id in jobs
            if (place := load.places[job_id]) in held and self._began(job_id) > at and load.called[job_id] < went_on[place]
        ]

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

    async def _check_attempts(self, client: Client, loads: Sequence[_Load], figures: dict[str, Any]) -> None:
        """No job failed, whatever was done to its engines."""
        again = {noted.job_id for noted in self._notes.all() if noted.attempt > 1}
        jobs = [job for job in [await client.get_job(job_id) for job_id in sorted(again)] if job is not None]
        failed = [job for job in jobs if job.status != "completed"]
        figures |= {
            "jobs": sum(len(load.called) for load in loads),
            "jobs_not_accepted": sum(load.refused for load in loads),
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
        noted = self._notes.first_begin(job_id)
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


def verdicts(figures: Mapping[str, Any]) -> list[str]:
    """After how long work went on, for each thing that was done to engines, and whether that is what is aimed at, in words."""
    told = []
    for what, name, part, aim in _AIMS:
        if f"{name}_passed" not in figures:
            told.append(f"{what}: not measured")
        elif (seconds := figures.get(f"{name}_seconds_{part}")) is None:
            told.append(f"{what}: missed, as no job waited for it")
        else:
            word = "passed" if figures[f"{name}_passed"] else "missed"
            told.append(f"{what}: jobs went on after {seconds:.2f} s ({part}), the aim is {aim:g} s: {word}")
    return told


def _spread(name: str, seconds: Collection[float]) -> dict[str, Any]:
    if not seconds:
        return {f"{name}_jobs": 0}
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
