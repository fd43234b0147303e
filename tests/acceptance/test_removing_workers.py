"""A worker that nobody runs any more is removed, on the real broker: nobody is offered it, and nothing that it did is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from headrace import Client, JobContext, Settings, WorkerInUse, WorkerUnknown, worker
from headrace.cli.main import application
from headrace.core.records import definition_key
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from support.engines import ended, engine_with, eventually, read_all, with_engine
from support.gateway import data_of, refusal_code, running_gateway

JOB_SECONDS = 60.0
TENANTS = ("one", "another", "a third")


@worker(name="fetcher", kind="fetching")
async def fetcher(args: dict[str, Any], ctx: JobContext) -> str:
    """Fetches."""
    return "fetched"


def removed(settings: Settings, *options: str, code: int = 0) -> str:
    """What `headrace workers remove fetcher` printed."""
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    result = CliRunner().invoke(application, ["workers", "remove", "fetcher", *options, *where])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


async def offered(client: httpx.AsyncClient) -> tuple[bool, bool]:
    """Whether agents are offered the kind of work, and whether the worker is listed to them."""
    tools = {tool["name"]: tool for tool in (await client.get("/tools")).json()["tools"]}
    listed = data_of(await client.post("/tools/worker_manager", json={"action": "list_workers"}))["workers"]
    kinds = tools["scheduler"]["inputSchema"]["properties"]["kind"]["enum"]
    return "fetching" in kinds, "fetcher" in [each["name"] for each in listed]


async def test_a_worker_is_removed_when_nobody_runs_it_and_nothing_is_left_to_do(settings: Settings) -> None:
    async with running_gateway(settings) as agent, Client(settings) as client:
        async with engine_with(settings, fetcher):
            done = await client.enqueue("fetcher", {})
            assert (await ended(client, done)).status == "completed"
            with pytest.raises(WorkerInUse, match="'fetcher' is not removed: 1 engine runs it"):
                await client.remove_worker("fetcher")
        waiting = [await client.enqueue("fetcher", {}, tenant=tenant) for tenant in TENANTS]
        assert "3 of its jobs wait" in await asyncio.to_thread(removed, settings, code=2)
        assert "3 of its jobs wait" in await asyncio.to_thread(removed, settings, "--dry-run", code=2)
        async with engine_with(settings, fetcher):
            for each in waiting:
                job = await client.wait_for_job(each.id, tenant=each.tenant, wait=JOB_SECONDS)
                assert job is not None and job.status == "completed"

        assert "can be removed" in await asyncio.to_thread(removed, settings, "--dry-run")
        assert await offered(agent) == (True, True)
        assert "an engine that starts with it brings it back" in await asyncio.to_thread(removed, settings)

        async def gone() -> bool:
            return await offered(agent) == (False, False)

        await eventually(gone)
        refused = await agent.post("/tools/scheduler", json={"kind": "fetching", "args": {}})
        assert refusal_code(refused) == "kind_unknown"
        with pytest.raises(WorkerUnknown, match="No worker named 'fetcher' is defined"):
            await client.remove_worker("fetcher")
        assert [each.id for each in (await client.list_jobs(worker_name="fetcher")).jobs] == [done.id]
        async with Client(settings.model_copy(update={"data_directory": settings.data_directory / "new"})) as stranger:
            assert [each.id for each in (await stranger.list_jobs(worker_name="fetcher")).jobs] == [done.id]

        async with engine_with(settings, fetcher):

            async def back() -> bool:
                return await offered(agent) == (True, True)

            await eventually(back)
            again = await client.enqueue("fetcher", {})
            assert (await ended(client, again)).status == "completed"


class Interrupted(Client):
    """A client of whose worker a job is accepted just before it is removed."""

    accepted = False

    async def _check_unused(self, name: str) -> None:
        await super()._check_unused(name)
        if not self.accepted:
            self.accepted = True
            await self.enqueue(name, {})


async def test_a_job_that_is_accepted_in_the_same_moment_has_the_worker_stay(settings: Settings) -> None:
    async with engine_with(settings, fetcher):
        pass
    async with Interrupted(settings) as client, Client(settings) as other:
        with pytest.raises(WorkerInUse, match="1 of its jobs waits"):
            await client.remove_worker("fetcher")
        definitions = await other.worker_definitions(fresh_within=JOB_SECONDS)
        assert definitions["fetcher"].kind == "fetching", "the definition stands as before"


async def test_an_engine_that_nobody_saw_puts_its_worker_back(settings: Settings) -> None:
    log = KafkaLog(settings)
    writer = log.writer()
    await writer.start()
    try:
        async with engine_with(with_engine(settings, presence_interval_seconds=0.2), fetcher), Client(settings) as client:
            assert "fetcher" in await client.worker_definitions()
            target = TopicPartition(Topics(settings.namespace).workers.name, 0)
            removed_at = (await writer.append(target, NewRecord(definition_key("fetcher"), None), timeout=30)).offset

            async def put_back() -> bool:
                records = await read_all(settings, target.topic)
                of_worker = [record for record in records if record.key == definition_key("fetcher")]
                return of_worker[-1].offset > removed_at and of_worker[-1].value is not None

            await eventually(put_back)
            assert "fetcher" in await client.worker_definitions(fresh_within=JOB_SECONDS)
    finally:
        await writer.stop(timeout=2)
        await log.close()
