"""Jobs are cancelled from anywhere and workers paused, on the real broker; and no worker waits for another."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from headrace import Client, Job, JobContext, RateLimit, RetryPolicy, Settings, WorkerUnknown, worker
from headrace.cli.main import application
from headrace.core.records import cancellation_key
from headrace.core.topics import Topics
from headrace.ports import Record
from support.engines import ended, engine_process, engine_with, eventually, read_all, snapshots_of
from support.gateway import data_of, refusal_code, running_gateway
from support.processes import alive

CONTEXT = {"Headrace-User-Id": "ann"}
LONG_SECONDS = 300
# A second is what is aimed at, where nothing else needs the processors; a job that nobody stops takes far longer than this.
STOPPED_SECONDS = 10.0


@worker(name="sleeper", kind="sleeper", concurrency=5)
async def sleeper(args: dict[str, Any], ctx: JobContext) -> None:
    """Sleeps."""
    await asyncio.sleep(args.get("seconds", LONG_SECONDS))


async def manage(client: httpx.AsyncClient, **arguments: Any) -> httpx.Response:
    return await client.post("/tools/worker_manager", json=arguments, headers=CONTEXT)


async def schedule(client: httpx.AsyncClient) -> str:
    call = {"kind": "sleeper", "args": {}}
    job_id: str = data_of(await client.post("/tools/scheduler", json=call, headers=CONTEXT))["jobId"]
    return job_id


async def status_of(client: httpx.AsyncClient, job_id: str) -> str:
    status: str = data_of(await manage(client, action="get_job", jobId=job_id))["job"]["status"]
    return status


async def test_an_agent_cancels_jobs_that_run_and_jobs_that_wait(settings: Settings) -> None:
    async with engine_with(settings, sleeper), running_gateway(settings) as client:
        running = [await schedule(client) for _ in range(5)]
        waiting = [await schedule(client) for _ in range(2)]

        async def all_run() -> bool:
            return {await status_of(client, job_id) for job_id in running} == {"running"}

        await eventually(all_run)
        # Those that wait first: each slot that is free is another's.
        for job_id in [*waiting, *running]:
            answer = data_of(await manage(client, action="cancel_job", jobId=job_id))["job"]
            assert answer["status"] == "cancelled"
        repeated = data_of(await manage(client, action="cancel_job", jobId=running[0]))["job"]
        assert repeated["status"] == "cancelled"
        unknown = await manage(client, action="cancel_job", jobId="nothing")
        assert (unknown.status_code, refusal_code(unknown)) == (404, "job_unknown")

        async def requests() -> list[list[Record]] | None:
            records = await read_all(settings, Topics(settings.namespace).control)
            keys = [cancellation_key("default", job_id) for job_id in running]
            found = [[record for record in records if record.key == key] for key in keys]
            return found if {each[-1].value is None for each in found} == {True} else None

        written = await eventually(requests)
    assert [[each["status"] for each in await snapshots_of(settings, job_id)] for job_id in waiting] == [["cancelled"]] * 2
    took = []
    for job_id, records in zip(running, written, strict=True):
        assert [record.value is None for record in records] == [False, True], "the request goes when the job has ended"
        took.append(records[1].timestamp - records[0].timestamp)
        assert [each["status"] for each in await snapshots_of(settings, job_id)] == ["running", "cancelled"]
    told = f"{max(took)} ms at most from the request to the job's acknowledged end; of each: {took}"
    assert max(took) < 1_000 * STOPPED_SECONDS, told
    assert sorted(took)[len(took) // 2] < 1_000, told


def invoked(settings: Settings, *arguments: str, code: int = 0) -> str:
    """What a command printed."""
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    result = CliRunner().invoke(application, [*arguments, *where], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.output


def test_jobs_are_cancelled_and_workers_paused_from_the_command_line(settings: Settings) -> None:
    async def enqueue() -> list[str]:
        async with engine_with(settings, sleeper), Client(settings) as client:
            done = await client.enqueue("sleeper", {"seconds": 0})
            assert (await ended(client, done)).status == "completed"
        async with Client(settings) as client:  # no engine is up any more
            return [done.id, *[(await client.enqueue("sleeper", {"seconds": 0})).id for _ in range(2)]]

    done, cancelled, kept = asyncio.run(enqueue())
    assert f"Job {cancelled} is queued." in invoked(settings, "jobs", "cancel", cancelled, "--wait", "0")
    assert "has ended: it is completed" in invoked(settings, "jobs", "cancel", done, code=2)
    for command in (["jobs", "cancel"], ["jobs", "retry"], ["job"], ["timeline"], ["replay", "job"]):
        for none in ("01a22c52", "\udcff"):  # as a byte that is no UTF-8 comes from the shell
            told = invoked(settings, *command, none, code=2)
            assert f"There is no job {none!r}" in told
            assert "An id is given whole, and not shortened: `headrace jobs` lists" in told
    assert "stand behind it" in invoked(settings, "workers", "--json", "pause", "sleeper", code=2)
    assert "No worker named 'sleepr'" in invoked(settings, "workers", "pause", "sleepr", code=2)
    assert "sleeper is paused" in invoked(settings, "workers", "pause", "sleeper")
    assert "0, paused" in invoked(settings, "workers")
    assert [each["paused"] for each in json.loads(invoked(settings, "workers", "--json"))] == [True]

    async def run() -> None:
        async with engine_with(settings, sleeper), Client(settings) as client:
            job = await client.get_job(cancelled)
            assert job is not None and (await ended(client, job)).status == "cancelled", "also while its worker is paused"
            await asyncio.to_thread(invoked, settings, "workers", "resume", "sleeper")
            job = await client.get_job(kept)
            assert job is not None and (await ended(client, job)).status == "completed"

    asyncio.run(run())
    assert asyncio.run(statuses(settings, cancelled)) == ["cancelled"]
    assert json.loads(invoked(settings, "jobs", "cancel", cancelled, "--json"))["status"] == "cancelled"


async def statuses(settings: Settings, job_id: str) -> list[str]:
    return [snapshot["status"] for snapshot in await snapshots_of(settings, job_id)]


async def test_a_function_in_a_thread_is_told(settings: Settings) -> None:
    begun = threading.Event()

    @worker(name="cooperative", concurrency=1)
    def cooperative(args: dict[str, Any], ctx: JobContext) -> str:
        """Looks whether it is to end."""
        begun.set()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ctx.raise_if_cancelled()
            time.sleep(0.01)
        return "nobody told it"

    async with engine_with(settings, cooperative), Client(settings) as client:
        job = await client.enqueue("cooperative", {})
        assert await asyncio.to_thread(begun.wait, 60)
        cancelled = await client.cancel_job(job.id, wait=60)
        assert (cancelled.status, cancelled.result) == ("cancelled", None)
        assert [attempt.status for attempt in cancelled.attempts] == ["cancelled"]


TICKING = """
import os
import time
from pathlib import Path

from headrace import worker

HERE = Path(__file__).parent


@worker(executor="process")
def ticking(args, ctx):
    (HERE / "pid.txt").write_text(str(os.getpid()))
    deadline = time.monotonic() + 300
    with (HERE / "ticks.txt").open("ab", buffering=0) as ticks:
        while time.monotonic() < deadline:  # whoever asks it to end asks in vain
            ticks.write(b".")
            time.sleep(0.01)
"""


async def test_a_child_process_that_takes_no_notice_is_stopped(settings: Settings, tmp_path: Path) -> None:
    workers, told, ticks = tmp_path / "ticking_workers.py", tmp_path / "pid.txt", tmp_path / "ticks.txt"
    workers.write_text(TICKING)
    with engine_process(settings, workers) as engine:
        async with Client(settings) as client:
            job = await eventually(lambda: accepted(client, "ticking"))
            await eventually(lambda: holds(lambda: ticks.exists() and ticks.stat().st_size > 10))
            pid = int(told.read_text())
            assert alive(pid) and pid not in [engine.process.pid, *(each.pid for each in engine.engines)]
            asked = time.monotonic()
            cancelled = await client.cancel_job(job.id, wait=60)
            took = f"cancelled {time.monotonic() - asked:.2f} s after it was asked for"
            assert (cancelled.status, cancelled.result) == ("cancelled", None), took
            assert not alive(pid), f"{took}, and process {pid} goes on"
            ticked = ticks.stat().st_size
            assert time.monotonic() - asked < STOPPED_SECONDS, took
            # The engine has another process for the next job, which ticks on its own.
            ticks.rename(tmp_path / "stopped.txt")
            again = await client.enqueue("ticking", {})
            await eventually(lambda: holds(lambda: ticks.exists() and ticks.stat().st_size > 10))
            assert (tmp_path / "stopped.txt").stat().st_size == ticked, f"{took}, and goes on"
            assert (await client.cancel_job(again.id, wait=60)).status == "cancelled"
        assert [each["status"] for each in await snapshots_of(settings, job.id)] == ["running", "cancelled"]


async def accepted(client: Client, name: str) -> Job | None:
    """A job of a worker whose engine may be about to start."""
    try:
        return await client.enqueue(name, {})
    except WorkerUnknown:
        return None


async def holds(look: Callable[[], bool]) -> bool:
    return look()


async def test_no_worker_waits_for_another(settings: Settings) -> None:
    """Beside one whose slots are taken for ever, one that fails again and again, and one that has reached its limit."""
    let_go = threading.Event()

    @worker(name="stuck", concurrency=2)
    def stuck(args: dict[str, Any], ctx: JobContext) -> None:
        """Waits in its threads."""
        assert let_go.wait(120)

    @worker(name="failing", retry=RetryPolicy(max_attempts=1_000, initial=0.05, factor=1))
    async def failing(args: dict[str, Any], ctx: JobContext) -> None:
        """Fails."""
        raise ValueError("always")

    @worker(name="limited", rate_limit=RateLimit(1, 3_600))
    async def limited(args: dict[str, Any], ctx: JobContext) -> None:
        """May hardly start."""

    @worker(name="quick")
    async def quick(args: dict[str, Any], ctx: JobContext) -> None:
        """Does its work."""

    async with engine_with(settings, stuck, failing, limited, quick, grace=0) as engine, Client(settings) as client:
        for name, count in (("stuck", 50), ("failing", 20), ("limited", 50)):
            await client.enqueue_many(name, [{}] * count)
        # The engine takes these over, too, before it can run anything.
        assert (await ended(client, await client.enqueue("quick", {}))).status == "completed"
        jobs = await client.enqueue_many("quick", [{}] * 200)

        async def all_ended() -> bool:
            return engine.statistics["quick"].ended == 201

        await eventually(all_ended, within=60)  # a second for each of them would be over three minutes
        assert (await ended(client, jobs[-1])).status == "completed"
        assert engine.statistics["stuck"].ended == 0
        let_go.set()
