"""The tools over HTTP, on the real broker: a job that is scheduled is there to be seen."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from headrace import JobContext, Settings, WorkerDefinition, worker
from support.engines import engine_with, eventually
from support.gateway import data_of, publish_workers, refusal_code, running_gateway
from support.jobs import DIGEST_WORKER, MEMORY_WORKER

CONTEXT = {"Headrace-User-Id": "ann", "Headrace-Conversation-Id": "c-1", "Headrace-Source": "assistant"}


async def schedule(client: httpx.AsyncClient, arguments: dict[str, Any], context: dict[str, str] = CONTEXT) -> Any:
    return data_of(await client.post("/tools/scheduler", json=arguments, headers=context))


async def jobs_of(client: httpx.AsyncClient, **filters: Any) -> list[dict[str, Any]]:
    found = data_of(await client.post("/tools/worker_manager", json={"action": "list_jobs", **filters}))["jobs"]
    assert isinstance(found, list)
    return found


async def test_a_scheduled_job_is_listed_as_soon_as_scheduler_has_answered(settings: Settings) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        receipts = []
        for _ in range(20):
            receipt = await schedule(client, {"kind": "memory_compaction"})
            assert (receipt["scheduled"], receipt["workerName"]) == (True, "memory_compaction_worker")
            [newest, *_] = await jobs_of(client)
            assert newest["id"] == receipt["jobId"]
            receipts.append(receipt["jobId"])
        assert [job["id"] for job in await jobs_of(client)] == receipts[::-1]
    assert newest["status"] == "queued"
    assert newest["args"] == {"userId": "ann", "conversationId": "c-1"}
    assert newest["ctx"] == {"userId": "ann", "conversationId": "c-1", "source": "assistant"}
    assert newest["error"] is None
    assert newest["source"]["topic"] == f"{settings.namespace}.jobs.memory_compaction_worker"


async def test_jobs_are_filtered_and_paged(settings: Settings) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        for number in range(7):
            user = "ann" if number % 2 else "bob"
            await schedule(client, {"kind": "memory_compaction", "userId": user, "conversationId": f"c{number}"})
        await schedule(client, {"kind": "digest", "args": {"to": ["x"]}})
        assert [job["args"]["conversationId"] for job in await jobs_of(client, userId="bob")] == ["c6", "c4", "c2", "c0"]
        assert [job["args"]["userId"] for job in await jobs_of(client, conversationId="c3")] == ["ann"]
        assert [job["args"] for job in await jobs_of(client, workerName="send_digest")] == [{"to": ["x"]}]
        assert await jobs_of(client, status="completed") == []
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            request = {"action": "list_jobs", "limit": 3, "cursor": cursor}
            page = data_of(await client.post("/tools/worker_manager", json=request))
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["nextCursor"]
        assert cursor is None
        assert len(seen) == len(set(seen)) == 8
        response = await client.post("/tools/worker_manager", json={"action": "list_jobs", "cursor": "nonsense"})
        assert (response.status_code, refusal_code(response)) == (400, "arguments_invalid")


async def test_jobs_of_one_conversation_share_an_ordering_key(settings: Settings) -> None:
    ordered = MEMORY_WORKER.model_copy(update={"order_by": ["userId", "conversationId"]})
    await publish_workers(settings, ordered)
    async with running_gateway(settings) as client:
        for conversation in ("c-1", "c-1", "c-2"):
            await schedule(client, {"kind": "memory_compaction", "conversationId": conversation})
        third, second, first = await jobs_of(client)
    assert first["orderingKey"] == second["orderingKey"] != third["orderingKey"]
    assert first["source"]["partition"] == second["source"]["partition"]


async def test_long_names_of_user_and_conversation_are_no_obstacle(settings: Settings) -> None:
    await publish_workers(settings, MEMORY_WORKER.model_copy(update={"order_by": ["userId", "conversationId"]}))
    async with running_gateway(settings) as client:
        receipt = await schedule(client, {"kind": "memory_compaction", "userId": "ü" * 200, "conversationId": "c" * 200})
        assert [job["id"] for job in await jobs_of(client, userId="ü" * 200)] == [receipt["jobId"]]


async def test_workers_outlive_their_engines(settings: Settings) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        workers = data_of(await client.post("/tools/worker_manager", json={"action": "list_workers"}))["workers"]
    assert [(each["name"], each["kind"], each["liveInstances"]) for each in workers] == [
        ("memory_compaction_worker", "memory_compaction", 0),
        ("send_digest", "digest", 0),
    ]
    assert workers[1]["argumentsSchema"] == DIGEST_WORKER.arguments_schema


async def test_a_worker_defined_while_the_gateway_runs_can_be_scheduled_at_once(settings: Settings) -> None:
    async with running_gateway(settings) as client:
        response = await client.post("/tools/scheduler", json={"kind": "tidy"})
        assert (response.status_code, refusal_code(response)) == (400, "kind_unknown")
        await publish_workers(settings, WorkerDefinition(name="tidy_up", description="Tidies.", category="x", kind="tidy"))
        assert (await schedule(client, {"kind": "tidy"}))["workerName"] == "tidy_up"


async def test_many_agents_at_once(settings: Settings) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        calls = (schedule(client, {"kind": "memory_compaction", "conversationId": f"c{number}"}) for number in range(100))
        receipts = await asyncio.gather(*calls)
        assert len({receipt["jobId"] for receipt in receipts}) == 100
        listed: set[str] = set()
        cursor = None
        while True:
            request = {"action": "list_jobs", "limit": 100, "cursor": cursor}
            page = data_of(await client.post("/tools/worker_manager", json=request))
            listed |= {job["id"] for job in page["jobs"]}
            if (cursor := page["nextCursor"]) is None:
                break
    assert listed == {receipt["jobId"] for receipt in receipts}


async def test_a_gateway_that_restarts_knows_its_jobs(settings: Settings) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        receipt = await schedule(client, {"kind": "memory_compaction"})
    async with running_gateway(settings) as client:
        deadline = time.monotonic() + 20
        while (await client.get("/readyz")).status_code != 200:
            assert time.monotonic() < deadline
        assert [job["id"] for job in await jobs_of(client)] == [receipt["jobId"]]


async def test_the_published_definitions_describe_what_is_answered(settings: Settings) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        tools = {tool["name"]: tool for tool in (await client.get("/tools")).json()["tools"]}
        assert set(tools) == {"scheduler", "worker_manager"}
        for name, arguments in (
            ("scheduler", {"kind": "memory_compaction"}),
            ("worker_manager", {"action": "list_jobs"}),
            ("worker_manager", {"action": "list_workers"}),
        ):
            Draft202012Validator(tools[name]["inputSchema"]).validate(arguments)
            answer = data_of(await client.post(f"/tools/{name}", json=arguments, headers=CONTEXT))
            Draft202012Validator(tools[name]["outputSchema"]).validate(answer)


@pytest.mark.parametrize("content", ["", "A long talk. " * 10_000])
async def test_content_of_any_length_within_the_limit_goes_through(settings: Settings, content: str) -> None:
    await publish_workers(settings)
    async with running_gateway(settings) as client:
        receipt = await schedule(client, {"kind": "memory_compaction", "content": content, "title": "Talk"})
        assert [job["id"] for job in await jobs_of(client)] == [receipt["jobId"]]


@worker(name="fragile", kind="fragile")
async def fragile(args: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
    """Works for a job that does another one anew, and for no other."""
    if ctx.job.retry_of is None:
        raise ValueError("not the first time")
    return {"retried": ctx.job.retry_of}


async def test_an_agent_looks_at_a_failed_job_and_has_it_done_anew(settings: Settings) -> None:
    async def manage(client: httpx.AsyncClient, **arguments: Any) -> httpx.Response:
        return await client.post("/tools/worker_manager", json=arguments, headers=CONTEXT)

    async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            job: dict[str, Any] = data_of(await manage(client, action="get_job", jobId=job_id))["job"]
            return job if job["status"] in ("completed", "failed") else None

        return await eventually(look)

    async with engine_with(settings, fragile), running_gateway(settings) as client:
        receipt = await schedule(client, {"kind": "fragile", "args": {"n": 1}})
        failed = await ended(client, receipt["jobId"])
        assert (failed["status"], "ValueError: not the first time" in failed["error"]["traceback"]) == ("failed", True)
        again = data_of(await manage(client, action="retry_job", jobId=failed["id"]))["job"]
        assert (again["retryOf"], again["args"], again["ctx"]) == (failed["id"], {"n": 1}, failed["ctx"])
        done = await ended(client, again["id"])
        assert (done["status"], done["result"]) == ("completed", {"retried": failed["id"]})
        repeated = data_of(await manage(client, action="retry_job", jobId=failed["id"]))["job"]
        assert (repeated["id"], repeated["status"]) == (again["id"], "completed")
        assert len(await jobs_of(client)) == 2
        unknown = await manage(client, action="get_job", jobId="nothing")
        assert (unknown.status_code, refusal_code(unknown)) == (404, "job_unknown")
        refused = await manage(client, action="retry_job", jobId=again["id"])
        assert (refused.status_code, refusal_code(refused)) == (409, "job_not_retriable")
