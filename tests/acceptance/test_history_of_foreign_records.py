"""What other writers put into a queue, on the real broker: records that leave out what has a default, and such as are no jobs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from headrace import AbstractWorker, Client, JobContext, Settings
from headrace.cli.main import application
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from support.clusters import state_of
from support.engines import engine_with, eventually, with_engine

WHEN = "2026-03-02T09:30:00.000Z"
SPARE: dict[str, Any] = {"id": "spare", "workerName": "packs", "createdAt": WHEN, "args": {}}
MISPLACED: dict[str, Any] = {**SPARE, "id": "misplaced", "workerName": "counts"}
REFUSED: dict[str, Any] = {"id": "refused", "workerName": "packs", "args": {}}
ENDS = {"spare": "completed", "refused": "failed", "misplaced": "failed"}


class Packs(AbstractWorker[dict[str, Any]]):
    name = "packs"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        return "packed"


packs = Packs()


def cli(settings: Settings, *arguments: str, exits: int = 0) -> Result:
    where = ("--bootstrap-servers", str(settings.bootstrap_servers), "--namespace", settings.namespace)
    result = CliRunner().invoke(application, [*arguments, *where], env={"COLUMNS": "200"})
    assert result.exit_code == exits, result.output + repr(result.exception)
    return result


async def traffic(settings: Settings) -> None:
    """A job of a record with no more than what is needed, one that lacks something, and one of another worker; all have ended."""
    async with engine_with(settings, packs):
        queue = TopicPartition(Topics(settings.namespace).jobs_name("packs"), 0)
        log = KafkaLog(settings)
        writer = log.writer()
        try:
            await writer.start()
            for each in (MISPLACED, SPARE, REFUSED):
                await writer.append(queue, NewRecord(each["id"].encode(), orjson.dumps(each)), timeout=10)
        finally:
            await writer.stop(timeout=5)
            await log.close()
        async with Client(settings) as client:
            await eventually(lambda: _have_ended(client))


async def _have_ended(client: Client) -> bool:
    found = [await client.get_job(job_id) for job_id in ENDS]
    return [None if job is None else job.status for job in found] == list(ENDS.values())


@pytest.fixture
def written(settings: Settings) -> Settings:
    settings = with_engine(settings, janitor=False, partitions=1)
    asyncio.run(traffic(settings))
    return settings


def timeline(settings: Settings, job_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(cli(settings, "timeline", job_id, "--json").stdout)
    return told


def test_what_they_leave_out_is_what_the_models_take(written: Settings) -> None:
    assert [line["event"] for line in timeline(written, "spare")["lines"]] == ["accepted", "started", "completed"]
    assert "spare of packs: completed" in cli(written, "timeline", "spare").stdout
    replayed = (
        "replay",
        "stream",
        f"{__name__}:packs",
        "--worker",
        "packs",
        "--from",
        "1h",
        "--where",
        "tenant=default",
        "--json",
    )
    assert json.loads(cli(written, *replayed).stdout)["counts"]["same"] == 1


def test_what_is_no_job_is_told_as_what_it_is(written: Settings) -> None:
    before = asyncio.run(state_of(written))
    told = timeline(written, "refused")
    assert sorted(line["event"] for line in told["lines"]) == ["accepted", "dead-letter", "failed"]
    assert told["lines"][0]["event"] == "accepted" and "createdAt: Field required" in told["lines"][0]["note"]
    assert told["job"]["error"]["type"] == "undecodable"
    shown = cli(written, "timeline", "refused").stdout
    assert "refused of packs: failed" in shown and "the record is no job" in shown
    stood = json.loads(cli(written, "state", "--at", "now", "--json").stdout)
    assert {each["job"]["id"]: each["job"]["status"] for each in stood} == ENDS
    said = cli(written, "replay", "job", "refused", f"{__name__}:packs", exits=2)
    assert said.stdout == "" and said.stderr.startswith("Error: Job refused cannot be run: the record is no job: createdAt")
    assert asyncio.run(state_of(written)) == before


@pytest.mark.parametrize("where", [(), ("--sandbox",)], ids=["in-process", "in-a-sandbox"])
def test_a_job_in_the_queue_of_another_worker_ends_no_replay(written: Settings, where: tuple[str, ...]) -> None:
    replayed = ("replay", "stream", f"{__name__}:packs", "--worker", "packs", "--from", "1h", "--json", *where)
    told = json.loads(cli(written, *replayed).stdout)
    assert (told["jobs"], told["counts"]["same"]) == (1, 1)
    said = cli(written, "replay", "job", "misplaced", f"{__name__}:packs", exits=2)
    problem = "the job is for worker 'counts', and stands in the queue of 'packs'"
    assert f"Job misplaced cannot be run: {problem}" in said.stderr
    assert timeline(written, "misplaced")["lines"][0]["note"] == problem
