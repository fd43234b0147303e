"""Engines as real processes: killed, stopped, started side by side. No accepted job is lost, no finished one runs again."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from headrace import Client, Job, Settings
from support.engines import EngineProcess, committed, ended, engine_process, eventually, snapshots_of

# Each attempt says so in a file of its own, outside of Kafka; a job waits for as long as a file is missing.
WORKERS = """
import asyncio
import os
import time
from pathlib import Path

from headrace import worker

HERE = Path(__file__).parent


def note(what):
    with (HERE / "ran.txt").open("a") as file:
        file.write(what + "\\n")


@worker(category="test", concurrency=50)
async def step(args, ctx):
    note(f"begin {args['name']} {ctx.attempt} {os.getpid()}")
    while args.get("until") and not (HERE / args["until"]).exists():
        await asyncio.sleep(0.02)
    note(f"end {args['name']} {ctx.attempt} {os.getpid()}")
    return {"attempt": ctx.attempt}


@worker(category="test")
def block(args, ctx):
    note(f"begin {args['name']} {ctx.attempt} {os.getpid()}")
    while not (HERE / args["until"]).exists():
        time.sleep(0.02)
    note(f"end {args['name']} {ctx.attempt} {os.getpid()}")
"""


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    """A module with the workers of these tests, in a folder of its own."""
    file = tmp_path / "my_workers.py"
    file.write_text(WORKERS)
    return file


def ran(workers: Path, *, event: str = "begin") -> list[tuple[str, int]]:
    """What ran, as (name, attempt), in the order of time."""
    file = workers.parent / "ran.txt"
    if not file.exists():
        return []
    lines = [line.split() for line in file.read_text().splitlines()]
    return [(name, int(attempt)) for what, name, attempt, _ in lines if what == event]


def processes(workers: Path) -> set[str]:
    """The ids of the processes that ran something."""
    return {line.split()[3] for line in (workers.parent / "ran.txt").read_text().splitlines()}


async def has_begun(workers: Path, name: str, attempt: int = 1) -> None:
    async def look() -> bool:
        return (name, attempt) in ran(workers)

    await eventually(look)


async def enqueue(client: Client, name: str, until: str | None = None, worker: str = "step") -> Job:
    async def defined() -> bool:
        return worker in await client.worker_definitions()

    await eventually(defined)
    return await client.enqueue(worker, {"name": name, "until": until})


def check_interrupted(job: Job) -> None:
    """That its last attempt has completed it, and each before was interrupted: a short lease may cost one more."""
    assert job.status == "completed" and job.attempt >= 2
    statuses = [(attempt.attempt, attempt.status) for attempt in job.attempts]
    assert statuses == [*((number, "interrupted") for number in range(1, job.attempt)), (job.attempt, "completed")]


async def test_after_kill_9_finished_jobs_stay_finished_and_the_others_run_again(settings: Settings, workers: Path) -> None:
    never = {"HEADRACE_ENGINE_COMMIT_INTERVAL_SECONDS": "3600"}
    quick = {"HEADRACE_ENGINE_SESSION_TIMEOUT_SECONDS": "6", "HEADRACE_ENGINE_LEASE_SECONDS": "5"}
    async with Client(settings) as client:
        with engine_process(settings, workers, **never, **quick) as first:
            finished = [await enqueue(client, f"finished-{n}") for n in range(20)]
            for job in finished:
                assert (await ended(client, job)).status == "completed"
            running = await enqueue(client, "running", until="go")
            await has_begun(workers, "running")
            first.kill()
        assert sum((await committed(settings, "step")).values()) == 0, "nothing was committed: only the log knows what ended"
        (workers.parent / "go").touch()
        with engine_process(settings, workers) as second:
            again = await ended(client, running)
            late = await ended(client, await enqueue(client, "late"))
            assert second.terminate() == 0
    check_interrupted(again)
    assert again.result == {"attempt": again.attempt}
    assert late.status == "completed"
    counted = Counter(name for name, _ in ran(workers))
    assert counted == {**{f"finished-{n}": 1 for n in range(20)}, "running": again.attempt, "late": 1}
    snapshots = await snapshots_of(settings, running.id)
    assert snapshots[0]["epoch"] < snapshots[-1]["epoch"], "the new owner wrote under a claim of its own"


async def test_sigterm_lets_running_jobs_end_and_starts_no_more(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, HEADRACE_ENGINE_CONCURRENCY="1") as engine:
            job = await enqueue(client, "in-flight", until="go")
            await has_begun(workers, "in-flight")
            engine.process.send_signal(signal.SIGTERM)
            await _stopping(engine)
            waiting = await client.enqueue("step", {"name": "waiting"})
            (workers.parent / "go").touch()
            assert engine.process.wait(30) == 0
        done = await ended(client, job)
        assert (done.status, done.attempt) == ("completed", 1)
        assert ran(workers) == [("in-flight", 1)], "nothing new started after SIGTERM"
        assert sum((await committed(settings, "step")).values()) == 1, "what ended was committed"
        with engine_process(settings, workers) as second:
            assert (await ended(client, waiting)).attempt == 1
            assert second.terminate() == 0


async def _stopping(engine: EngineProcess) -> None:
    async def look() -> bool:
        return "stops" in engine.log.read_text()

    await eventually(look)


@pytest.mark.parametrize("worker", ["step", "block"])
async def test_what_outlives_the_grace_is_interrupted_and_has_not_failed(settings: Settings, workers: Path, worker: str) -> None:
    async with Client(settings) as client:
        # A thread that runs on keeps its lease, which the next engine waits for.
        with engine_process(settings, workers, "--grace", "0.3", HEADRACE_ENGINE_LEASE_SECONDS="5") as engine:
            job = await enqueue(client, "long", until="go", worker=worker)
            await has_begun(workers, "long")
            assert engine.terminate(within=20) == 0
        (workers.parent / "go").touch()
        with engine_process(settings, workers) as second:
            done = await ended(client, job)
            assert second.terminate() == 0
    check_interrupted(done)
    assert done.error is None


async def test_engines_share_the_work_and_take_over_from_one_that_leaves(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers) as first, engine_process(settings, workers) as second:
            probes = count()

            async def both_have_partitions() -> bool:
                await ended(client, await enqueue(client, f"probe-{next(probes)}"))
                return len(processes(workers)) == 2

            await eventually(both_have_partitions)

            async def both_are_live() -> bool:
                return [each.live_instances for each in await client.list_workers()] == [2, 2]

            await eventually(both_are_live)
            early = await client.enqueue_many("step", [{"name": f"early-{n}"} for n in range(200)])
            for job in early:
                assert (await ended(client, job)).status == "completed"
            assert second.terminate() == 0
            late = await client.enqueue_many("step", [{"name": f"late-{n}"} for n in range(100)])
            for job in late:
                assert (await ended(client, job)).status == "completed"
            assert first.terminate() == 0

        async def defined_and_not_live() -> bool:
            return [each.live_instances for each in await client.list_workers()] == [0, 0]

        await eventually(defined_and_not_live)  # definitions outlive their engines
    counted = Counter(name for name, _ in ran(workers))
    assert set(counted.values()) == {1}, "in calm waters every job runs once"


async def test_work_in_flight_goes_on_when_its_partition_comes_back(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, HEADRACE_ENGINE_PARTITIONS="1") as first:
            job = await enqueue(client, "long", until="go")
            await has_begun(workers, "long")
            # A second member of the group makes a rebalance, which takes the only partition away for a moment.
            with engine_process(settings, workers, HEADRACE_ENGINE_PARTITIONS="1") as second:

                async def both_live() -> bool:
                    return all(each.live_instances == 2 for each in await client.list_workers())

                await eventually(both_live)
                other = await client.enqueue("step", {"name": "other"})
                assert (await ended(client, other)).status == "completed"
                (workers.parent / "go").touch()
                done = await ended(client, job)
                assert second.terminate() == 0
            assert first.terminate() == 0
    runs = [each for each in ran(workers) if each[0] == "long"]
    assert len(runs) == done.attempt
    assert done.status == "completed"
    assert done.attempt == 1 or done.attempts[0].status == "interrupted"


async def test_an_import_path_that_leads_nowhere_is_said_and_exit_2(settings: Settings, workers: Path) -> None:
    engine = EngineProcess(settings, workers.parent / "missing.py")
    assert await asyncio.to_thread(engine.process.wait, 30) == 2
    assert "'missing' cannot be imported" in engine.log.read_text()
    (workers.parent / "empty.py").write_text("NOTHING = 1\n")
    engine = EngineProcess(settings, workers.parent / "empty.py")
    assert await asyncio.to_thread(engine.process.wait, 30) == 2
    assert "has no worker" in engine.log.read_text()
