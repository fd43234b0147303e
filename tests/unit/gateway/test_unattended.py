"""The operator is told of jobs that are accepted for a worker that no engine runs, and not of each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace_gateway.operations import Operations, Unattended
from support.access import a_principal
from support.jobs import DIGEST_WORKER, MEMORY_WORKER, InMemoryJobs
from support.served import served
from support.virtual_time import in_virtual_time
from support.written_jobs import Engines, WrittenLog

FIRST, SECOND = DIGEST_WORKER.name, MEMORY_WORKER.name


class Clock:
    """Seconds that stand until they are set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has; it is empty then."""
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


async def test_once_a_minute_for_each_worker(caplog: pytest.LogCaptureFixture) -> None:
    clock, jobs = Clock(), InMemoryJobs()
    unattended = Unattended(jobs, clock)
    for _ in range(3):
        await unattended.accepted(FIRST)
    await unattended.accepted(SECOND)
    first, second = lines(caplog)
    assert (repr(FIRST) in first, repr(SECOND) in second) == (True, True)
    assert "No engine runs the worker" in first
    clock.now += 59.0
    await unattended.accepted(FIRST)
    assert lines(caplog) == []
    clock.now += 1.0
    await unattended.accepted(FIRST)
    [again] = lines(caplog)
    assert again.endswith(": 4."), "two with the first line's, and two since"


async def test_nothing_of_one_that_an_engine_runs_until_none_does(caplog: pytest.LogCaptureFixture) -> None:
    clock, jobs = Clock(), InMemoryJobs(live={FIRST: 1})
    unattended = Unattended(jobs, clock)
    await unattended.accepted(FIRST)
    jobs.live = {}
    clock.now += 0.5
    await unattended.accepted(FIRST)
    assert lines(caplog) == [], "it was looked at a moment ago"
    clock.now += 0.5
    await unattended.accepted(FIRST)
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("asked", ["enqueue", "retry"])
async def test_every_accepted_job_counts(caplog: pytest.LogCaptureFixture, asked: str) -> None:
    jobs = InMemoryJobs()
    operations = Operations(jobs, a_principal("ann"), unattended=Unattended(jobs))

    async def ask() -> None:
        if asked == "enqueue":
            await operations.enqueue(FIRST, {"to": ["ann"]}, idempotency_key="same")
        else:
            await operations.retry_job("job-of-default")

    jobs.accepted_at = lambda: datetime(2026, 1, 31, tzinfo=UTC)
    await ask()
    assert lines(caplog) == [], "it was accepted before, and is returned as it stands"
    jobs.accepted_at = lambda: datetime.now(UTC)
    await ask()
    assert len(lines(caplog)) == 1


@in_virtual_time
async def test_what_follows_a_line_is_told_of_though_nothing_follows_that(caplog: pytest.LogCaptureFixture) -> None:
    jobs = InMemoryJobs()
    unattended = Unattended(jobs, asyncio.get_running_loop().time)
    for _ in range(3):
        await unattended.accepted(FIRST)
    assert len(lines(caplog)) == 1
    await asyncio.sleep(59)
    assert lines(caplog) == []
    await asyncio.sleep(2)
    [said] = lines(caplog)
    assert said.endswith(": 2.")
    await unattended.accepted(FIRST)
    await unattended.stop()
    [said] = lines(caplog)
    assert said.endswith(": 1.")
    await asyncio.sleep(100)
    assert lines(caplog) == []


@pytest.mark.usefixtures("quick")
async def test_a_repeated_call_counts_once(
    log: WrittenLog, engines: Engines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines.define(kind="digest")
    engines.enqueue("failed")
    engines.run("failed", engines.claim("one", -1))
    engines.fail("failed")
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        call = {"kind": "digest", "args": {}, "idempotencyKey": "same"}
        for _ in range(3):
            assert (await client.post("/tools/scheduler", json=call)).json()["ok"]
        for _ in range(3):
            assert (await client.post("/jobs/failed/retry")).status_code == 200
        assert len((await client.get("/jobs")).json()["jobs"]) == 3
        await gateway.app.state.gateway.stop()
    said = [line for line in lines(caplog) if "No engine runs" in line]
    assert [line.rpartition(": ")[2] for line in said] == ["1.", "1."]
