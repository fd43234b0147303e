"""A view of jobs that a process of its own keeps: whoever dies or stands still, nothing is lost, and no process is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headrace import Client, ConfigurationError, JobContext, Settings, WatchInterrupted, worker
from headrace.views.process import keeper as keeper_module
from headrace.views.process.keeper import ProcessKeeper
from support.gateway import publish_workers
from support.log import eventually
from support.processes import alive, freeze, frozen

PATIENCE = 60.0


@worker(name="digest", category="test")
def digest(args: dict[str, Any], ctx: JobContext) -> None:
    """Nothing runs it here."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Client]:
    async with Client(settings, view=True, view_process=True) as client:
        await eventually(lambda: client.readiness().ready, "the view has caught up")
        yield client


def keeper_of(client: Client) -> ProcessKeeper:
    view = client._views._view
    assert view is not None
    keeper = view._keeper
    assert isinstance(keeper, ProcessKeeper)
    return keeper


def pid_of(client: Client) -> int:
    asking = keeper_of(client)._asking
    assert asking is not None
    pid = asking.child.pid  # type: ignore[attr-defined]  # which every real one has
    assert isinstance(pid, int)
    return pid


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def ids(client: Client) -> set[str]:
    return {job.id for job in (await client.list_jobs(limit=1000)).jobs}


async def test_an_accepted_job_is_there_at_once_and_soon_no_job_has_to_be_written_for_that(settings: Settings) -> None:
    before = children()
    async with opened(settings) as client:
        jobs = [await client.enqueue(digest, {"n": number}) for number in range(3)]
        assert await ids(client) == {job.id for job in jobs}
        waiting = keeper_of(client)._accepted
        jobs += [await client.enqueue(digest, {"n": number}) for number in range(20)]
        await eventually(lambda: not waiting.owed, "the log was read past all of them")
        assert await ids(client) == {job.id for job in jobs}
        assert children() - before == {pid_of(client)}
        folder = keeper_of(client).path.parent
        assert {path.name for path in folder.iterdir()} >= {"jobs.sqlite-wal"}
    await eventually(lambda: children() - before == set(), "no process is left")
    assert {path.name for path in folder.iterdir()} == {"jobs.sqlite", "jobs.sqlite.lock"}


async def test_a_process_that_is_killed_is_replaced_and_the_file_is_read_meanwhile(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_PAUSE_SECONDS", 1.0)
    async with opened(settings) as client:
        before = await client.enqueue(digest, {"n": 1})
        assert await ids(client) == {before.id}
        first = pid_of(client)
        async with asyncio.TaskGroup() as tasks:
            changes = aiter(client.watch_jobs())
            token = (await anext(changes)).token
            os.kill(first, signal.SIGKILL)
            with pytest.raises(WatchInterrupted):
                async with asyncio.timeout(PATIENCE):
                    while True:
                        token = (await anext(changes)).token
            readiness = client.readiness()
            assert not readiness.ready
            assert "SIGKILL" in readiness.detail
            assert await ids(client) == {before.id}, "what stands in the file is read all the while"
            meanwhile = await client.enqueue(digest, {"n": 2})
            tasks.create_task(told(client, token, meanwhile.id))
            assert await ids(client) == {before.id, meanwhile.id}
        await eventually(lambda: client.readiness().ready, "another process has caught up")
        assert pid_of(client) != first
        assert not alive(first)
        assert "was killed by signal 9 (SIGKILL)" in caplog.text


async def told(client: Client, token: str, job_id: str) -> None:
    """Goes on watching until a job was told of."""
    async with asyncio.timeout(PATIENCE):
        async for changed in client.watch_jobs(after=token):
            if job_id in {job.id for job in changed.jobs}:
                return


async def test_while_the_process_stands_still_whoever_reads_waits_for_a_moment_and_is_told_what_there_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(settings) as client:
        seen = await client.enqueue(digest, {"n": 1})
        assert await ids(client) == {seen.id}
        with frozen(pid_of(client)):
            monkeypatch.setattr(keeper_module, "SILENT_SECONDS", 2.0)
            late = await client.enqueue(digest, {"n": 2})
            async with asyncio.timeout(PATIENCE):
                assert await ids(client) == {seen.id}
            assert caplog.text.count("may lack jobs") == 1
            assert "has said nothing for" in client.readiness().detail
            async with asyncio.timeout(PATIENCE):
                assert await ids(client) == {seen.id}
            assert caplog.text.count("may lack jobs") == 1
            monkeypatch.undo()
        await eventually(lambda: client.readiness().ready, "it goes on")
        assert await ids(client) == {seen.id, late.id}


async def test_a_process_that_hangs_is_killed_and_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(settings) as client:
        first = pid_of(client)
        freeze(first)
        monkeypatch.setattr(keeper_module, "HUNG_SECONDS", 2.0)
        await eventually(lambda: not alive(first), "it is killed")
        monkeypatch.undo()
        job = await client.enqueue(digest, {"n": 1})
        async with asyncio.timeout(PATIENCE):
            while job.id not in await ids(client):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
        assert pid_of(client) != first


async def test_a_process_that_stands_still_does_not_keep_its_parent_from_ending(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(PATIENCE):
        async with opened(settings) as client:
            pid = pid_of(client)
            freeze(pid)
            monkeypatch.setattr(keeper_module, "SILENT_SECONDS", 0.5)
            monkeypatch.setattr(keeper_module, "END_SECONDS", 0.5)
            await client.enqueue(digest, {"n": 1})
    assert not psutil.pid_exists(pid)


async def test_it_is_told_no_secret_by_its_command_line_or_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", "a-secret")
    kafka = settings.kafka.model_copy(update={"sasl_password": type(settings.kafka)().sasl_password})
    async with opened(settings.model_copy(update={"kafka": kafka})) as client:
        process = psutil.Process(pid_of(client))
        assert "a-secret" not in " ".join(process.cmdline())
        assert "a-secret" not in " ".join(process.environ().values())


async def test_a_folder_that_cannot_be_had_is_told_as_without_a_process(settings: Settings, tmp_path: Path) -> None:
    before = children()
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(ConfigurationError, match="HEADRACE_DATA_DIRECTORY"):
        await Client(settings.model_copy(update={"data_directory": in_the_way}), view=True, view_process=True).start()
    await eventually(lambda: children() - before == set(), "no process is left")


@asynccontextmanager
async def gateway(settings: Settings, folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, int]]:
    """The command `headrace gateway` in a process group of its own, where it answers, and the process of its view."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", "gateway", "--port", "0"),
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
            "HEADRACE_NAMESPACE": settings.namespace,
            "HEADRACE_DATA_DIRECTORY": str(folder),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        [view] = psutil.Process(process.pid).children()
        yield process, line.split("answers at ")[1].split(";")[0], view.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_gateway_that_is_killed_takes_the_process_with_it(settings: Settings, tmp_path: Path) -> None:
    async with gateway(settings, tmp_path) as (process, _, view):
        process.kill()
        await eventually(lambda: not alive(view), "the process is gone, too")
    folder = tmp_path / "views" / settings.namespace
    assert {path.name for path in folder.iterdir()} == {"jobs.sqlite", "jobs.sqlite.lock"}, "the file was closed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_is_sent_to_the_whole_group_ends_both_in_order(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    await publish_workers(settings)
    async with gateway(settings, tmp_path) as (process, url, view):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            answer = await client.post("/tools/scheduler", json={"kind": "digest", "args": {"to": ["x"]}})
            assert answer.status_code == 200, answer.text
        os.killpg(process.pid, number)
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert "Traceback" not in said.decode()
        assert "another is started" not in said.decode()
        assert not psutil.pid_exists(view)
    folder = tmp_path / "views" / settings.namespace
    assert {path.name for path in folder.iterdir()} == {"jobs.sqlite", "jobs.sqlite.lock"}
