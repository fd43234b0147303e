"""Engines under their supervisor: killed, stuck, frozen and orphaned. What they held goes on soon, and none of it
runs twice."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headrace import Client, Job, Settings
from headrace.core.records import LEASE_PREFIX
from headrace.core.topics import Topics
from support.engines import EngineProcess, ended, engine_process, eventually, read_all, releases
from support.processes import alive, freeze

# Each attempt says so in a file of its own, outside of Kafka; a job waits for as long as a file is missing.
WORKERS = """
import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from headrace import worker

HERE = Path(__file__).parent


def note(what):
    with (HERE / "ran.txt").open("a") as file:
        file.write(f"{what} {os.getpid()} {time.time()}\\n")


@worker(category="test")
async def step(args, ctx):
    note(f"begin {args['name']} {ctx.attempt}")
    while args.get("until") and not (HERE / args["until"]).exists():
        await asyncio.sleep(0.02)
    return {"attempt": ctx.attempt}


@worker(category="test")
async def hold_the_interpreter(args, ctx):
    note(f"begin {args['name']} {ctx.attempt}")
    while args.get("until") and not (HERE / args["until"]).exists():
        await asyncio.sleep(0.02)
    if not (HERE / "held").exists():
        (HERE / "held").touch()
        if args.get("deaf"):
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note(f"child {child.pid} {ctx.attempt}")
        ctypes.PyDLL(None).sleep(600)


@worker(category="test")
def stay_in_a_thread(args, ctx):
    note(f"begin {args['name']} {ctx.attempt}")
    time.sleep(600 if ctx.attempt == 1 else 0)


@worker(category="test")
async def block_the_loop(args, ctx):
    note(f"begin {args['name']} {ctx.attempt}")
    end = time.monotonic() + 60
    while not (HERE / args["until"]).exists() and time.monotonic() < end:
        time.sleep(0.05)
"""

WORKER_NAMES = ["step", "hold_the_interpreter", "stay_in_a_thread", "block_the_loop"]
SHORT_LEASE = {"HEADRACE_ENGINE_LEASE_SECONDS": "4"}


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    """A module with the workers of these tests, in a folder of its own."""
    file = tmp_path / "my_workers.py"
    file.write_text(WORKERS)
    return file


def noted(workers: Path) -> list[tuple[str, str, int, int, float]]:
    """What ran: event, name, attempt, process id, time of day."""
    file = workers.parent / "ran.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(what, name, int(attempt), int(pid), float(at)) for what, name, attempt, pid, at in (line.split() for line in lines)]


async def begun(workers: Path, name: str, attempt: int = 1) -> tuple[int, float]:
    """Process id and time of the start of an attempt, as soon as it was."""

    async def look() -> tuple[int, float] | None:
        found = [(pid, at) for what, each, number, pid, at in noted(workers) if (what, each, number) == ("begin", name, attempt)]
        return found[0] if found else None

    return await eventually(look)


async def begun_elsewhere(workers: Path, name: str, pid: int) -> int:
    """Process id of the start of an attempt in another process, as soon as there was one."""

    async def look() -> int | None:
        found = [other for what, each, _, other, _ in noted(workers) if (what, each) == ("begin", name) and other != pid]
        return found[0] if found else None

    return await eventually(look)


async def child_of_a_job(workers: Path) -> tuple[int, int, float]:
    """The process that a job has started, the engine in which that was, and when, as soon as it was."""

    async def look() -> tuple[int, int, float] | None:
        found = [(int(name), pid, at) for what, name, _, pid, at in noted(workers) if what == "child"]
        return found[0] if found else None

    return await eventually(look)


async def all_run(engines: EngineProcess, count: int) -> None:
    """Returns when so many engines have said that they run."""

    async def look() -> bool:
        return len(re.findall(r"engine \S+ runs ", engines.log.read_text())) == count

    await eventually(look)


async def enqueue(client: Client, worker: str, name: str, **args: Any) -> Job:
    async def defined() -> bool:
        return worker in await client.worker_definitions()

    await eventually(defined)
    return await client.enqueue(worker, {"name": name, **args})


async def test_what_a_killed_engine_held_goes_on_within_seconds(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, "--processes", "2") as engines:
            await all_run(engines, 2)
            job = await enqueue(client, "step", "long", until="go")
            pid, _ = await begun(workers, "long")
            (victim,) = [each for each in engines.engines if each.pid == pid]
            killed_at = time.time()
            victim.kill()
            successor, again_at = await begun(workers, "long", 2)
            (workers.parent / "go").touch()
            done = await ended(client, job)
            assert engines.terminate() == 0
    assert successor != pid
    assert again_at - killed_at < 20, "a lease that nobody released would have held for 30 s"
    assert [(attempt.attempt, attempt.status) for attempt in done.attempts] == [(1, "interrupted"), (2, "completed")]
    died = [each for each in await releases(settings) if each["reason"] == "died"]
    assert died and len({each["instanceId"] for each in died}) == 1, "one engine died, and each of its claims was released once"
    assert len({(each["workerName"], each["partition"], each["epoch"]) for each in died}) == len(died)


async def test_a_job_that_holds_the_interpreter_is_killed_at_its_deadline_with_its_children(
    settings: Settings, workers: Path
) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, **SHORT_LEASE) as engines:
            # The kernel would kill it 0.16 s later, and by that alone its children would go on.
            job = await enqueue(client, "hold_the_interpreter", "greedy", deaf=True)
            child, pid, held_at = await child_of_a_job(workers)
            done = await ended(client, job)
            assert done.status == "completed"
            assert engines.terminate() == 0
            told = engines.log.read_text()
    _, again_at = await begun(workers, "greedy", done.attempt)
    assert not alive(pid)
    assert not alive(child), "what the job had started died with its engine"
    assert f"engine process {pid} is killed: its lease is over" in told
    assert again_at - held_at > 2, "the lease had just been renewed"
    assert [each["reason"] for each in await releases(settings)].count("died") >= 1


async def test_without_a_supervisor_the_kernel_kills_what_cannot_look_at_its_lease(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, **SHORT_LEASE) as engines:
            job = await enqueue(client, "hold_the_interpreter", "greedy", until="go")
            await begun(workers, "greedy")
            freeze(engines.process.pid)
            (workers.parent / "go").touch()
            _, pid, _ = await child_of_a_job(workers)
            engine = psutil.Process(pid)

            async def gone() -> bool:
                return engine.status() == psutil.STATUS_ZOMBIE

            await eventually(gone)
            engines.process.send_signal(signal.SIGCONT)
            assert (await ended(client, job)).status == "completed"
            assert engines.terminate() == 0
            assert f"engine process {pid} has ended with SIGALRM" in engines.log.read_text()


async def test_an_engine_that_was_frozen_for_longer_than_its_lease_does_nothing_more(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, **SHORT_LEASE) as engines:
            job = await enqueue(client, "step", "frozen", until="go")
            pid, _ = await begun(workers, "frozen")
            os.kill(pid, signal.SIGSTOP)
            successor = await begun_elsewhere(workers, "frozen", pid)
            assert not alive(pid)
            (workers.parent / "go").touch()
            done = await ended(client, job)
            assert (await begun(workers, "frozen", done.attempt))[0] == successor
            assert engines.terminate() == 0


async def test_a_supervisor_that_was_frozen_kills_no_engine_that_has_renewed_its_leases_meanwhile(
    settings: Settings, workers: Path
) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, **SHORT_LEASE) as engines:
            job = await enqueue(client, "step", "watched", until="go")
            pid, _ = await begun(workers, "watched")
            freeze(engines.process.pid)
            over_at = time.time() + 1.5 * float(SHORT_LEASE["HEADRACE_ENGINE_LEASE_SECONDS"])

            async def renewed() -> bool:
                records = await read_all(settings, Topics(settings.namespace).job_state)
                return max(each.timestamp for each in records if (each.key or b"").startswith(LEASE_PREFIX)) > over_at * 1000

            try:
                await eventually(renewed)
            finally:
                os.kill(engines.process.pid, signal.SIGCONT)
            (workers.parent / "go").touch()
            assert (await ended(client, job)).status == "completed"
            assert alive(pid)
            assert engines.terminate() == 0
            assert "is killed" not in engines.log.read_text(), "what it was told last is that the leases hold"


async def test_engines_end_in_order_when_their_supervisor_is_killed(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers) as engines:
            job = await enqueue(client, "step", "in-flight", until="go")
            pid, _ = await begun(workers, "in-flight")
            engines.process.kill()
            engines.process.wait(10)

            async def stopping() -> bool:
                return "stops: running jobs get" in engines.log.read_text()

            await eventually(stopping)
            (workers.parent / "go").touch()
            assert (await ended(client, job)).attempt == 1, "what runs may end"

            async def gone() -> bool:
                return not alive(pid)

            await eventually(gone)
            assert "the supervisor is gone" in engines.log.read_text()
    assert {each["reason"] for each in await releases(settings)} == {"stopped"}


async def test_the_second_signal_hurries_and_nothing_is_left_behind(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, "--processes", "2") as engines:
            # One that is just starting would end at once by the first signal.
            await all_run(engines, 2)
            await enqueue(client, "step", "endless", until="never")
            await begun(workers, "endless")
            everyone = [engines.process.pid, *(each.pid for each in engines.engines)]
            assert len(everyone) == 3
            engines.process.send_signal(signal.SIGINT)

            async def stopping() -> bool:
                return engines.log.read_text().count("stops: running jobs get") == 2

            await eventually(stopping)
            engines.process.send_signal(signal.SIGTERM)
            assert engines.process.wait(20) == 0, "the grace is 30 s"
            assert [pid for pid in everyone if alive(pid)] == []


async def test_a_thread_that_ends_with_its_engine_is_given_to_others_and_is_no_death(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with engine_process(settings, workers, "--grace", "0.2", HEADRACE_ENGINE_CONCURENCY="5") as engines:
            job = await enqueue(client, "stay_in_a_thread", "stubborn")
            await begun(workers, "stubborn")
            assert engines.terminate() == 0
        told = engines.log.read_text()
        given = [each for each in await releases(settings) if each["workerName"] == "stay_in_a_thread"]
        assert {each["partition"] for each in given} == set(range(8)), "that of the thread, too"
        assert {each["reason"] for each in given} == {"stopped"}
        assert "1 claims released" in told
        assert told.count("HEADRACE_ENGINE_CONCURENCY is set, and is no setting") == 1
        with engine_process(settings, workers) as engines:
            assert (await ended(client, job)).attempt == 2
            assert engines.terminate() == 0


async def test_an_engine_that_dies_is_replaced_again_and_again_and_the_wait_grows(settings: Settings, workers: Path) -> None:
    with engine_process(settings, workers) as engines:
        seen: list[psutil.Process] = []

        async def another() -> bool:
            seen.extend(new := [each for each in engines.engines if each not in seen])
            for each in new:
                each.kill()
            return len(seen) >= 3

        await eventually(another)
        told = engines.log.read_text()
        assert "another starts in 0.5 s" in told and "another starts in 1 s" in told
        memory = psutil.Process(engines.process.pid).memory_info().rss
        assert memory < 40e6, f"the supervisor takes {memory / 1e6:.0f} MB"


def health(url: str) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(url, timeout=60)
    return answer.status_code, answer.json()


async def test_a_blocked_loop_is_told_with_its_job_and_healthz_answers_all_the_while(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        # With a lease that outlasts the block on a busy machine, too.
        with engine_process(settings, workers, HEADRACE_ENGINE_HEALTH_PORT="0", HEADRACE_ENGINE_LEASE_SECONDS="60") as engines:

            async def address() -> str | None:
                found = re.search(r"tells how it is doing at (\S+)", engines.log.read_text())
                return found[1] if found else None

            url = await eventually(address)

            async def idle() -> bool:
                status, answer = await asyncio.to_thread(health, url)
                ready = {name: worker["ready"] for name, worker in answer["workers"].items()}
                return status == 200 and set(ready) == set(WORKER_NAMES) and set(ready.values()) == {8}

            await eventually(idle)
            job = await enqueue(client, "block_the_loop", "greedy", until="go")

            async def stuck() -> dict[str, Any] | None:
                status, answer = await asyncio.to_thread(health, url)
                return answer if status == 503 else None

            answer = await eventually(stuck)
            (workers.parent / "go").touch()
            assert answer["status"] == "stuck"
            assert re.search(r"the event loop has been blocked for [1-9]\d", answer["troubles"][0])
            assert (await ended(client, job)).attempt == 1, "it is a lease that is held to its term, not a loop"

            async def well_again() -> bool:
                status, answer = await asyncio.to_thread(health, url)
                return status == 200 and answer["eventLoop"]["blocks"] >= 1

            await eventually(well_again)
            told = engines.log.read_text()
            assert engines.terminate() == 0
    assert f"by job {job.id} of block_the_loop" in told
    assert 'my_workers.py", line' in told and "time.sleep(0.05)" in told
