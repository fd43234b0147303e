"""A job that was done anew again and again, on the real broker: each of its timelines tells how it ended, also in a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from headrace import AbstractWorker, Client, Job, JobContext, RetryPolicy, Settings
from support.engines import ended, engine_with, with_engine

LONG = "all of it " * 40


class Broken(AbstractWorker[dict[str, Any]]):
    """As the code was."""

    name = "mends"
    retry = RetryPolicy(max_attempts=1)

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        raise ValueError("no use")


class Mended(AbstractWorker[dict[str, Any]]):
    """As it is now."""

    name = "mends"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        return f"{LONG}the end"


async def three_times(settings: Settings) -> list[Job]:
    """A job that failed, was done anew and failed again, and was done anew by other code."""
    async with Client(settings) as client:
        async with engine_with(settings, Broken()):
            first = await ended(client, await client.enqueue("mends", {}))
            second = await ended(client, await client.retry_job(first.id))
        async with engine_with(settings, Mended()):
            third = await ended(client, await client.retry_job(first.id))
    return [first, second, third]


def piped(settings: Settings, *words: str) -> str:
    """What a command writes into a pipe."""
    where = ("--bootstrap-servers", str(settings.bootstrap_servers), "--namespace", settings.namespace)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words, *where],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_how_a_chain_of_retries_ended_is_told_by_each_of_its_timelines(settings: Settings) -> None:
    settings = with_engine(settings, janitor=False)
    first, second, third = asyncio.run(three_times(settings))
    assert [each.status for each in (first, second, third)] == ["failed", "failed", "completed"]
    for number, job in enumerate((first, second, third)):
        told = json.loads(piped(settings, "timeline", job.id, "--json"))
        assert told["outcome"] == {"id": third.id, "status": "completed"}
        ids = [first.id, second.id, third.id]
        assert [each["id"] for each in told["retried"]] == ids[:number]
        assert [each["id"] for each in told["retries"]] == ids[number + 1 :]
    after = f", after job {second.id}, which did the same and failed, too"
    for job, before in ((first, after), (second, "")):
        said = f"Job {job.id} was done anew already, by job {third.id}{before}: it is completed.\n"
        assert piped(settings, "jobs", "retry", job.id) == said
    lines = piped(settings, "timeline", first.id).splitlines()
    assert lines[:2] == [
        f"Job {first.id} of mends: failed",
        f"It was done anew 2 times; at last, as job {third.id}, it is completed.",
    ]
    assert first.error is not None and "\n    raise" in str(first.error.traceback)
    [line] = [line.removeprefix("  error: ") for line in lines if line.startswith("  error: ")]
    assert json.loads(line)["traceback"] == first.error.traceback, "a value is as it is"
    lines = piped(settings, "timeline", third.id).splitlines()
    assert lines[1] == f"It does job {second.id} anew, which is failed."
    assert f"  result: {LONG}the end" in lines, "whole, and in one line"
    [line] = [line for line in piped(settings, "jobs", "--since", "1h").splitlines() if third.id in line]
    _, status, created, worker = line.split()
    assert (status, worker) == ("completed", "mends")
    assert first.id in piped(settings, "jobs", "--until", created) and third.id not in piped(settings, "jobs", "--until", created)
