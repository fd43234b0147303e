"""Engines come and go while jobs run: what stays goes on, what moves runs again, and nothing runs twice at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import AbstractWorker, Client, Job, JobContext, Settings, WorkerEngine
from headrace.core.ownership import PartitionLedger
from headrace.core.records import parse_lease_key
from headrace.core.topics import Topics
from headrace.leases import take_lease
from support.engines import ended, engine_process, eventually, read_all, with_engine

PARTITIONS = 8
JOBS = 16
ENGINES = 4
PUTTING_AWAY_SECONDS = 0.4


class Running:
    """The attempts that run now in all engines of the test, and whether two of one job ever did at a time."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.starts: dict[str, list[int]] = defaultdict(list)
        self.overlaps: list[tuple[str, int]] = []

    def begin(self, name: str, attempt: int) -> None:
        if name in self.now:
            self.overlaps.append((name, attempt))
        self.now[name] = attempt
        self.starts[name].append(attempt)

    def end(self, name: str) -> None:
        del self.now[name]


class Patient(AbstractWorker[dict[str, Any]]):
    """Its long jobs run until the gate is open."""

    name = "patient"
    concurrency = 100

    def __init__(self, running: Running, gate: asyncio.Event) -> None:
        self._running, self._gate = running, gate

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        name = args["name"]
        self._running.begin(name, ctx.attempt)
        try:
            if args.get("long"):
                await self._gate.wait()
        except asyncio.CancelledError:
            # It puts its things away: whoever starts it anew too early meets it here.
            await asyncio.sleep(PUTTING_AWAY_SECONDS)
            raise
        finally:
            self._running.end(name)


@asynccontextmanager
async def another_engine(settings: Settings, worker: Patient) -> AsyncIterator[WorkerEngine]:
    engine = WorkerEngine(settings)
    engine.register_worker(worker)
    async with engine:
        yield engine


async def shared_out(engines: Sequence[WorkerEngine]) -> None:
    """Each engine runs its share of the partitions, and none is left out."""

    async def look() -> bool:
        shares = [len(group.ready) for engine in engines for group in engine.groups]
        return sum(shares) == PARTITIONS and min(shares) >= PARTITIONS // len(engines)

    await eventually(look, within=120)


async def claims(settings: Settings, worker: str) -> dict[int, list[str]]:
    """Who claimed each partition of the worker, in order: the valid claims alone."""
    ledgers: dict[int, PartitionLedger] = defaultdict(PartitionLedger)
    holders: dict[int, list[str]] = defaultdict(list)
    for record in await read_all(settings, Topics(settings.namespace).job_state):
        key = parse_lease_key(record.key or b"")
        if key is not None and key.worker == worker:
            take_lease(ledgers[key.partition], record)
            if ledgers[key.partition].epoch == record.offset and orjson.loads(record.value or b"{}").get("kind") == "claim":
                holders[key.partition].append(key.instance_id)
    return holders


def assert_only_what_moved_ran_again(jobs: Sequence[Job], holders: dict[int, list[str]]) -> None:
    """Each job began at most once under each claim of its partition, and no partition was claimed anew where it was."""
    for partition, owners in holders.items():
        assert all(one != next_one for one, next_one in pairwise(owners)), f"{partition} was claimed anew where it was: {owners}"
    for job in jobs:
        assert job.source is not None
        assert job.status == "completed"
        assert job.error is None
        statuses = [attempt.status for attempt in job.attempts]
        assert statuses == ["interrupted"] * (job.attempt - 1) + ["completed"]
        in_turn = iter(holders[job.source.partition])
        ran_at = [attempt.instance_id for attempt in job.attempts]
        # Each in turn; one that had the partition for a moment only may have started nothing.
        assert all(instance in in_turn for instance in ran_at), f"{ran_at} ran, and held it: {holders[job.source.partition]}"


async def test_from_one_engine_to_four_and_back_only_jobs_that_move_run_again(settings: Settings) -> None:
    settings = with_engine(settings, partitions=PARTITIONS, heartbeat_interval_seconds=0.3, grace_seconds=0.0)
    running, gate = Running(), asyncio.Event()
    worker = Patient(running, gate)
    short: list[Job] = []
    async with Client(settings) as client, another_engine(settings, worker) as first:
        await shared_out([first])
        long = [await client.enqueue(worker, {"name": f"long-{number}", "long": True}) for number in range(JOBS)]
        await eventually(lambda: _are_running(running, JOBS))
        async with AsyncExitStack() as others:
            engines = [first]
            while len(engines) < ENGINES:
                engines.append(await others.enter_async_context(another_engine(settings, worker)))
                short += [await client.enqueue(worker, {"name": f"short-{len(short) + n}"}) for n in range(PARTITIONS)]
                await shared_out(engines)
                await eventually(lambda: _are_running(running, JOBS))
            while len(engines) > 1:
                await engines.pop().stop()
                short += [await client.enqueue(worker, {"name": f"short-{len(short) + n}"}) for n in range(PARTITIONS)]
                await shared_out(engines)
                await eventually(lambda: _are_running(running, JOBS))
        gate.set()
        done = [await ended(client, job) for job in long]
        assert [(await ended(client, job)).status for job in short] == ["completed"] * len(short)
    holders = await claims(settings, worker.name)
    assert running.overlaps == []
    assert_only_what_moved_ran_again(done, holders)
    # Here each had the time to begin.
    assert [job.attempt for job in done] == [len(holders[job.source.partition]) for job in done if job.source]
    assert any(len(owners) == 1 for owners in holders.values()), "some stay where they are all the time"
    assert max(len(owners) for owners in holders.values()) > 1, "some move"
    assert {len(starts) for name, starts in running.starts.items() if name.startswith("short")} == {1}
    assert sum(name.startswith("short") for name in running.starts) == len(short)


async def _are_running(running: Running, count: int) -> bool:
    return sum(name.startswith("long") for name in running.now) == count


# --- the same with processes, and jobs of a minute ------------------------------------------------------------------------

WORKERS = """
import asyncio
import time
from pathlib import Path

from headrace import worker

HERE = Path(__file__).parent


@worker(category="test", concurrency=100)
async def minute(args, ctx):
    begun = time.monotonic()
    with (HERE / "ticks.txt").open("a", buffering=1) as file:
        while time.monotonic() - begun < args["seconds"]:
            file.write(f"{args['name']} {ctx.attempt}\\n")
            await asyncio.sleep(0.05)
"""


def ticks(workers: Path) -> dict[str, list[int]]:
    """The number of the attempt that ticked, for each tick of a job, in the order of time."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in (workers.parent / "ticks.txt").read_text().splitlines():
        name, attempt = line.split()
        found[name].append(int(attempt))
    return found


@pytest.mark.long
async def test_processes_are_scaled_up_and_down_under_jobs_of_a_minute(settings: Settings, tmp_path: Path) -> None:
    workers = tmp_path / "my_workers.py"
    workers.write_text(WORKERS)

    async def live(count: int) -> None:
        """So many engines run jobs: each has written a claim that counts, and the last one of some partition."""

        async def look() -> bool:
            return len({owners[-1] for owners in (await claims(settings, "minute")).values()}) == count

        await eventually(look, within=60)

    async with Client(settings) as client, AsyncExitStack() as stack:
        processes = [stack.enter_context(engine_process(settings, workers, "--grace", "0"))]

        async def defined() -> bool:
            return "minute" in await client.worker_definitions()

        await eventually(defined)
        await live(1)
        jobs = [await client.enqueue("minute", {"name": f"job-{number}", "seconds": 60}) for number in range(JOBS)]
        while len(processes) < ENGINES:
            processes.append(stack.enter_context(engine_process(settings, workers, "--grace", "0")))
            await live(len(processes))
        while len(processes) > 1:
            assert await asyncio.to_thread(processes.pop().terminate) == 0
            await live(len(processes))
        done = [await ended(client, job, within=150) for job in jobs]
        assert await asyncio.to_thread(processes[0].terminate) == 0
    assert_only_what_moved_ran_again(done, await claims(settings, "minute"))
    for attempts in ticks(workers).values():
        assert attempts == sorted(attempts), "an attempt ticked after the next one had begun"
