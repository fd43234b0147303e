"""A job that takes its engine with it, on a real broker: it falls alone in the end, and its neighbours do not suffer for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import Client, Job, JobContext, Settings, worker
from support.engines import EngineProcess, ended, engine_process, eventually, with_engine

WORKERS = """
import os
import time
from pathlib import Path

from headrace import RetryPolicy, worker

HERE = Path(__file__).parent


@worker(category="test", order_by=("key",))
async def step(args, ctx):
    with (HERE / "ran.txt").open("a") as file:
        file.write(f"{args['name']} {ctx.attempt} {os.getpid()}\\n")
    if args.get("kills"):
        os.kill(os.getpid(), 9)
    return os.getpid()


@worker(category="test")
async def strike(args, ctx):
    # From its third attempt on it runs in a process of its own, and ends the one that has started it.
    with (HERE / "ran.txt").open("a") as file:
        file.write(f"strike {ctx.attempt} {os.getpid()}\\n")
    os.kill(os.getpid() if ctx.attempt < 3 else os.getppid(), 9)
    time.sleep(600)


# Of the engines that come after the first one the limit is for attempts that have to succeed.
@worker(
    category="test",
    timeout=60 if (HERE / "ran.txt").exists() else 0.2,
    order_by=("name",),
    retry=RetryPolicy(max_attempts=2, initial=0.1),
)
def block(args, ctx):
    with (HERE / "ran.txt").open("a") as file:
        file.write(f"{args['name']} {ctx.attempt} {os.getpid()}\\n")
    if ctx.attempt <= args["blocks"]:
        time.sleep(600)
    return os.getpid()
"""
QUICK = {"HEADRACE_ENGINE_SESSION_TIMEOUT_SECONDS": "6", "HEADRACE_ENGINE_PARTITIONS": "1"}


@worker(name="block", order_by=("name",))
def block(args: dict[str, Any], ctx: JobContext) -> None:
    """What accepts jobs of that name before an engine runs them."""


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    file = tmp_path / "my_workers.py"
    file.write_text(WORKERS)
    return file


def ran(workers: Path, name: str) -> list[tuple[int, int]]:
    """The attempts of a job that began, as (number, process)."""
    lines = [line.split() for line in (workers.parent / "ran.txt").read_text().splitlines()]
    return [(int(attempt), int(pid)) for each, attempt, pid in lines if each == name]


async def enqueue(client: Client, worker: str, **args: object) -> Job:
    async def defined() -> bool:
        return worker in await client.worker_definitions()

    await eventually(defined)
    return await client.enqueue(worker, args)


async def says(engine: EngineProcess, text: str) -> None:
    async def look() -> bool:
        return text in engine.log.read_text()

    await eventually(look)


async def test_the_third_process_that_dies_with_a_job_is_one_of_its_own(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, **QUICK) as engine:
            before = await ended(client, await enqueue(client, "step", name="before", key="other"))
            poison = await enqueue(client, "step", name="poison", key="k", kills=True)
            behind = await enqueue(client, "step", name="behind", key="k")
            await says(engine, "has ended with SIGKILL")
            beside = await enqueue(client, "step", name="beside", key="other")
            job = await ended(client, poison)
            [after, neighbour] = [await ended(client, each) for each in (behind, beside)]
            [letter] = [each async for each in client.dead_letters(reason="poison")]
            [last] = engine.engines
            assert engine.terminate() == 0
    assert (job.status, job.crashes, job.attempt, job.failures) == ("failed", 3, 3, 0)
    assert job.error is not None and job.error.type == "poison"
    attempts = ran(workers, "poison")
    assert [number for number, _ in attempts] == [1, 2, 3]
    [first, second, alone] = [pid for _, pid in attempts]
    assert len({first, second, alone, last.pid}) == 4, "two engines died, then a process of the job's own in a third one"
    assert before.result == first
    assert engine.log.read_text().count("has ended with SIGKILL") == 2
    assert (after.status, after.attempt, after.result) == ("completed", 1, last.pid)
    assert neighbour.status == "completed"
    assert (letter.job_id, letter.attempt) == (poison.id, 3)
    assert (letter.record() or {})["args"]["name"] == "poison"


@pytest.mark.long
async def test_a_job_that_ends_its_engines_from_a_process_of_its_own_is_poison_too(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, **QUICK, HEADRACE_ENGINE_MAX_ENGINE_DEATHS="2") as engine:
            strike = await enqueue(client, "strike")
            job = await ended(client, strike)
            beside = await ended(client, await enqueue(client, "step", name="beside", key="k"))
            [letter] = [each async for each in client.dead_letters(reason="poison")]
            assert engine.terminate() == 0
    assert (job.status, job.crashes, job.engine_deaths, job.attempt, job.failures) == ("failed", 2, 2, 4, 0)
    assert (letter.job_id, letter.attempt) == (strike.id, 4)
    assert [number for number, _ in ran(workers, "strike")] == [1, 2, 3, 4]
    assert engine.log.read_text().count("has ended with SIGKILL") == 4
    assert beside.status == "completed"


async def test_a_thread_that_never_ends_costs_an_engine_each_time_and_counts_as_a_failure(
    settings: Settings, workers: Path
) -> None:
    async with Client(with_engine(settings, partitions=1)) as client:
        # All of them before the engine: those that block begin together, and are in its way together.
        once = await client.enqueue(block, {"name": "blocks-1", "blocks": 1})
        always = await client.enqueue(block, {"name": "blocks-2", "blocks": 2}, attempt_timeout=0.2)
        behind = await client.enqueue(block, {"name": "blocks-2", "blocks": 0}, attempt_timeout=60)
        with engine_process(settings, workers, **QUICK, HEADRACE_ENGINE_STUCK_SECONDS="1") as engine:
            beside = await ended(client, await enqueue(client, "step", name="beside", key="k"))
            await says(engine, "goes on 1 s later: the engine ends")
            await says(engine, "has ended with exit code 3; another starts")
            [again, failed, after] = [await ended(client, each) for each in (once, always, behind)]
            assert engine.terminate() == 0
    assert beside.status == "completed"
    assert (again.status, again.attempt, again.failures, again.crashes) == ("completed", 2, 1, 0)
    assert (failed.status, failed.attempt, failed.failures, failed.crashes) == ("failed", 2, 2, 0)
    assert failed.error is not None and failed.error.type == "headrace.errors.JobTimeout"
    assert [each.status for each in failed.attempts] == ["failed", "failed"]
    assert engine.log.read_text().count("has ended with exit code 3") == 2, "who ends in order is no sign of a job that kills"
    attempts = ran(workers, "blocks-2")
    assert [number for number, _ in attempts] == [1, 2, 1], "its key waits for the job's end"
    assert len({pid for _, pid in attempts}) == 3 and attempts[0] == ran(workers, "blocks-1")[0]
    assert after.result == attempts[-1][1]
