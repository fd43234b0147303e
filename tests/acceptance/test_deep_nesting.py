"""A job that somebody else wrote, nested deeper than headrace's own writers could write it, is told like any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from headrace import AbstractWorker, Client, JobContext, Settings
from headrace.cli.main import application
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from headrace.replay import Span, StreamRequest, replay_stream
from support.engines import engine_with, eventually, with_engine
from support.gateway import data_of, running_gateway

JOB, PLAIN = "01a20366-35d0-7564-93e5-000000000001", "01a20366-35d0-7564-93e5-000000000002"
EVER = Span(0, 1 << 50)


class Digs(AbstractWorker[dict[str, Any]]):
    name = "digs"
    description = "Tells how deep its arguments are."

    async def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        depth, inside = 0, args["nested"]
        while isinstance(inside, dict):
            depth, inside = depth + 1, inside["in"]
        return depth


@dataclass
class Deep:
    """A namespace in which a job is nested so deep, beside a plain one, and both have ended."""

    settings: Settings
    levels: int

    def cli(self, *arguments: str) -> Result:
        where = ("--bootstrap-servers", str(self.settings.bootstrap_servers), "--namespace", self.settings.namespace)
        return CliRunner().invoke(application, [*arguments, *where], env={"COLUMNS": "200"})

    def printed(self, *arguments: str) -> str:
        result = self.cli(*arguments)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout


def record_of(job_id: str, levels: int) -> bytes:
    """The bytes, as a writer makes them that has no limit of its own."""
    nested = b'{"in":' * levels + b"0" + b"}" * levels
    head = {"id": job_id, "tenant": "default", "workerName": "digs", "createdAt": "2026-01-31T09:15:00.000Z"}
    return orjson.dumps(head)[:-1] + b',"ctx":{},"args":{"nested":' + nested + b"}}"


async def have_done(settings: Settings, levels: int) -> None:
    async with engine_with(with_engine(settings, janitor=False), Digs()), Client(settings) as client:
        log = KafkaLog(settings)
        writer = log.writer()
        await writer.start()
        try:
            place = TopicPartition(Topics(settings.namespace).jobs_name("digs"), 0)
            for job_id, depth in ((JOB, levels), (PLAIN, 1)):
                await writer.append(place, NewRecord(job_id.encode(), record_of(job_id, depth)), timeout=30)
        finally:
            await writer.stop(timeout=5)
            await log.close()

        async def both_ended() -> bool:
            jobs = [await client.get_job(job_id) for job_id in (JOB, PLAIN)]
            return all(job is not None and job.status == "completed" for job in jobs)

        await eventually(both_ended)


# The last is as deep as anything can be that an engine reads.
@pytest.fixture(params=[300, 1022])
def deep(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Deep]:
    asyncio.run(have_done(settings, request.param))
    yield Deep(settings, request.param)


def levels_of(text: str) -> int:
    return text.count('{"in":')


def test_timeline_and_state_tell_of_it(deep: Deep) -> None:
    assert "completed" in deep.printed("timeline", JOB)
    assert levels_of(deep.printed("timeline", JOB, "--json")) >= deep.levels
    told = deep.printed("state", "--at", "now", "--json")
    assert levels_of(told) == deep.levels + 1
    assert told.count('"origin":"log"') == 2
    deep.printed("state", "--at", "now", "--where", "args.nested=0")


def test_it_is_run_again(deep: Deep, tmp_path: Path) -> None:
    for sandbox in (False, True):
        request = StreamRequest(code=[Digs()], span=EVER, sandbox=sandbox)
        summary = asyncio.run(replay_stream(request, deep.settings))
        assert dict(summary.counts) == {"same": 2}, [(each.job_id, each.comparison) for each in summary.listed]


def test_an_export_has_it_as_far_as_it_can_be_read_again(deep: Deep, tmp_path: Path) -> None:
    file = tmp_path / "span.gz"
    result = deep.cli("export", "--from", "1h", "--to", "now", "--output", str(file), "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    readable = deep.levels < 1000
    left_out = f"Warning: left out, as it is nested too deep to be read from a file: job {JOB}\n"
    assert result.stderr == ("" if readable else left_out)
    assert json.loads(result.stdout)["counts"]["job"] == 1 + readable
    summary = asyncio.run(replay_stream(StreamRequest(code=[Digs()], span=None, file=file), deep.settings))
    assert dict(summary.counts) == {"same": 1 + readable}


async def look_through_gateway(settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    async with running_gateway(settings) as client:
        single = (await client.get(f"/jobs/{JOB}")).json()["job"]
        listed = (await client.get("/jobs")).json()["jobs"]
        managed = data_of(await client.post("/tools/worker_manager", json={"action": "list_jobs"}))["jobs"]
    return single, listed, managed


def test_lists_and_the_gateway_tell_of_it_without_its_arguments(deep: Deep) -> None:
    single, *lists = asyncio.run(look_through_gateway(deep.settings))
    lists.append(json.loads(deep.printed("jobs", "--json"))["jobs"])
    whole = json.loads(deep.printed("job", JOB))
    for jobs in lists:
        assert {job["id"]: job.get("argsOmitted", False) for job in jobs} == {JOB: True, PLAIN: False}
    for job in (single, whole):
        assert (job["status"], job["result"], job["argsOmitted"]) == ("completed", deep.levels, True)
