"""Engines that cannot start: for an outage, which passes, or beside one that has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace import Client, Settings
from headrace.broker import LocalBroker
from support.engines import EngineProcess, ended, engine_process, eventually
from support.outages import Away, frozen, killed

# An engine that comes second waits for a file, and cannot be loaded then.
WORKERS = """
import os
import time
from pathlib import Path

from headrace import ConfigurationError, worker

HERE = Path(__file__).parent


def is_second():
    try:
        os.close(os.open(HERE / "first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return True
    return False


if (HERE / "one-alone").exists() and is_second():
    while not (HERE / "fail").exists():
        time.sleep(0.02)
    raise ConfigurationError("the second one")


@worker(category="test")
async def step(args, ctx):
    return os.getpid()
"""
SOON = {"HEADRACE_KAFKA_CONNECT_TIMEOUT_SECONDS": "2"}


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    """A module with the worker of these tests, in a folder of its own."""
    file = tmp_path / "my_workers.py"
    file.write_text(WORKERS)
    return file


async def said(engines: EngineProcess, text: str) -> None:
    async def look() -> bool:
        assert engines.process.poll() is None, "the supervisor has ended"
        return text in engines.log.read_text()

    await eventually(look)


async def pid_of_a_job(client: Client) -> int:
    async def defined() -> bool:
        return "step" in await client.worker_definitions(fresh_within=5)

    await eventually(defined)
    pid: int = (await ended(client, await client.enqueue("step", {}))).result
    return pid


@pytest.mark.parametrize("away", [killed, frozen])
async def test_engines_that_are_started_while_the_broker_is_away_wait_for_it(
    fragile_broker: LocalBroker, fragile_settings: Settings, workers: Path, away: Away
) -> None:
    async with away(fragile_broker):
        engines = EngineProcess(fragile_settings, workers, **SOON)
        try:
            await said(engines, "another starts in 1 s")
        except BaseException:
            engines.kill()
            raise
    try:
        async with Client(fragile_settings) as client:
            assert await pid_of_a_job(client) != engines.process.pid
        assert await asyncio.to_thread(engines.terminate) == 0
    finally:
        if engines.process.poll() is None:
            engines.kill()


async def test_an_engine_that_cannot_start_does_not_end_the_one_beside_it(settings: Settings, workers: Path) -> None:
    (workers.parent / "one-alone").touch()
    with engine_process(settings, workers, "--processes", "2") as engines:
        async with Client(settings) as client:
            pid = await pid_of_a_job(client)
            (workers.parent / "fail").touch()
            await said(engines, "another starts in 1 s")
            assert await pid_of_a_job(client) == pid
        assert await asyncio.to_thread(engines.terminate) == 0
