"""schemathesis, which knows nothing of the gateway but its OpenAPI, sends it what fits and what does not, with all its checks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace_gateway.access import ALL_SCOPES, Principal, Scope
from support.served import Served, served
from support.written_jobs import Engines, WrittenLog

# What fits the description may be refused all the same: a kind of work that nobody does, a cursor that no page gave, an action
# with an argument of another one, an event id that no stream gave.
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""
# This stream has no end: `test_http_events` reads it.
ENDLESS = "/events"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Served]:
    log = WrittenLog()
    engines = Engines(log)
    engines.define(kind="digest")
    engines.enqueue("a")
    engines.run("a", engines.claim("one", -1))
    engines.complete("a")
    only_ann = Principal(subject="ann", scopes=ALL_SCOPES - {Scope.JOBS_ACT_AS})
    async with served(log, tmp_path, {"token": only_ann}) as made:
        # No engine is up: who waits for the end of a job would wait for as long as is asked for.
        made.app.state.gateway.stop_waiting()
        yield made


async def schemathesis(gateway: Served, folder: Path, *options: str) -> str:
    """Runs it to its end, and gives what it said. It fails if schemathesis found something."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={configuration}",
        "run",
        f"{gateway.url}/openapi.json",
        "--header=Authorization: Bearer token",
        f"--exclude-path={ENDLESS}",
        "--checks=all",
        "--seed=1",
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode()
    assert process.returncode == 0, text[-12_000:]
    return text


async def test_a_little_of_everything(gateway: Served, tmp_path: Path) -> None:
    await schemathesis(gateway, tmp_path, "--phases=examples,fuzzing", "--max-examples=5")


@pytest.mark.long
async def test_much_of_everything(gateway: Served, tmp_path: Path) -> None:
    await schemathesis(gateway, tmp_path, "--phases=examples,coverage,fuzzing,stateful", "--max-examples=50")
