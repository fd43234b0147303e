"""Calls as tasks: a task is a job, is durable before it is told of, and survives the gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
from mcp.client import Client as McpClient
from mcp.shared.exceptions import MCPError
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY

from headrace import BrokerUnreachable, Job, JobStatus, SchedulerReceipt, ToolCall
from headrace import Client as HeadraceClient
from headrace_gateway import TaskSupport, built_in_tools
from headrace_gateway.mcp.tasks import TASKS
from support.log import PATIENCE_SECONDS, eventually
from support.mcp_bench import LEGACY, MODERN, FollowsTasks, McpBench, about_task, mcp_bench, task_at_its_end, texts

STEPS = {"kind": "steps"}


async def start(bench: McpBench, client: McpClient, **arguments: object) -> dict[str, object]:
    """The answer to a call that goes on as a task."""
    result = await client.session.call_tool("scheduler", {**STEPS, **arguments}, allow_claimed=True)
    return result.model_dump(by_alias=True, mode="json")


async def test_a_call_goes_on_as_a_task_whose_id_is_the_jobs(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        created = await start(bench, client)
        assert (created["resultType"], created["status"]) == ("task", "working")
        job_id = str(created["taskId"])
        job = await bench.jobs.get_job(job_id)
        assert job is not None and job.worker_name == "steps"
        await eventually(lambda: bool(bench.worker.half_done), "the job is half done")
        working = await about_task(client.session, "tasks/get", job_id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while working["statusMessage"] != "half of it":
                await asyncio.sleep(0.02)
                working = await about_task(client.session, "tasks/get", job_id)
        assert working["status"] == "working" and "result" not in working
        assert {"createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"} <= working.keys()
        assert working["resultType"] == "complete"


async def test_the_end_of_the_job_is_the_answer_of_the_call(tmp_path: Path) -> None:
    follows = FollowsTasks()
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=follows) as client:
        bench.worker.may_end.set()
        result = await client.call_tool("scheduler", STEPS)
    [task_id] = follows.created
    receipt = SchedulerReceipt.model_validate(result.structured_content)
    assert not result.is_error and receipt.job_id == task_id
    assert receipt.job is not None and receipt.job.result == {"steps": 2}
    assert json.loads(texts(result.content)[0]) == result.structured_content


async def test_a_failed_job_is_a_completed_task_with_an_error_of_the_tool(tmp_path: Path) -> None:
    follows = FollowsTasks()
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=follows) as client:
        bench.worker.may_end.set()
        result = await client.call_tool("scheduler", {**STEPS, "args": {"fails": True}})
        task = await about_task(client.session, "tasks/get", follows.created[0])
    assert result.is_error
    assert "the second step is missing" in texts(result.content)[0]
    assert (task["status"], task["result"]["isError"]) == ("completed", True)
    assert "error" not in task


async def test_a_task_survives_the_gateway(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench:
        async with bench.gateway() as url:
            first = McpBench(url, bench.worker, bench.jobs, bench.cluster, bench.settings)
            async with first.client(tasks=FollowsTasks()) as client:
                task_id = str((await start(bench, client))["taskId"])
        # That gateway is gone. One that never heard of the job answers for it at once, and it ends.
        async with bench.gateway() as url:
            second = McpBench(url, bench.worker, bench.jobs, bench.cluster, bench.settings)
            async with second.client(tasks=FollowsTasks()) as client:
                assert (await about_task(client.session, "tasks/get", task_id))["status"] == "working"
                bench.worker.may_end.set()
                await eventually(lambda: len(bench.worker.ended) == 1, "the job ends")
                task = await task_at_its_end(client.session, task_id)
    assert task["result"]["structuredContent"]["job"]["result"] == {"steps": 2}


async def test_another_gateway_knows_a_task_as_soon_as_its_id_is_told(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.gateway() as url:
        other = McpBench(url, bench.worker, bench.jobs, bench.cluster, bench.settings)
        async with bench.client(tasks=FollowsTasks()) as client, other.client(tasks=FollowsTasks()) as elsewhere:
            for number in range(20):
                task_id = str((await start(bench, client, args={"name": str(number)}))["taskId"])
                assert (await about_task(elsewhere.session, "tasks/get", task_id))["taskId"] == task_id


async def test_a_task_is_cancelled(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        task_id = str((await start(bench, client))["taskId"])
        await eventually(lambda: bool(bench.worker.half_done), "the job runs")
        acknowledged = await about_task(client.session, "tasks/cancel", task_id)
        assert acknowledged.keys() <= {"resultType", "_meta"}
        assert acknowledged["resultType"] == "complete"
        task = await task_at_its_end(client.session, task_id)
        assert task["status"] == "cancelled" and "result" not in task
        # It is too late, and that is no error.
        assert (await about_task(client.session, "tasks/cancel", task_id))["resultType"] == "complete"


async def test_a_cancellation_that_may_stand_is_not_said_to_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(job_id: str, /, **_: object) -> Job:
        raise BrokerUnreachable("gone")

    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        task_id = str((await start(bench, client))["taskId"])
        monkeypatch.setattr(bench.jobs, "cancel_job", unreachable)
        with pytest.raises(MCPError) as raised:
            await about_task(client.session, "tasks/cancel", task_id)
    assert raised.value.error.data == {"code": "broker_unavailable"}
    assert "may be accepted" in raised.value.error.message and "Nothing was" not in raised.value.error.message


async def test_nobody_asks_a_task_for_what_it_did_not_ask_for(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        task_id = str((await start(bench, client))["taskId"])
        answered = await about_task(client.session, "tasks/update", task_id, inputResponses={"name": {"action": "accept"}})
        assert answered["resultType"] == "complete"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_an_unknown_task_is_a_wrong_parameter(tmp_path: Path, method: str) -> None:
    more: dict[str, object] = {"inputResponses": {}} if method == "tasks/update" else {}
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        with pytest.raises(MCPError) as raised:
            await about_task(client.session, method, "nothing-of-that-id", **more)
    assert raised.value.code == INVALID_PARAMS


async def test_tasks_are_for_clients_that_say_so_in_the_request(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client() as client:
        result = await client.call_tool("scheduler", STEPS)
        job_id = (result.structured_content or {})["jobId"]
        for method in ("tasks/get", "tasks/cancel"):
            with pytest.raises(MCPError) as raised:
                await about_task(client.session, method, job_id)
            assert raised.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
            assert raised.value.data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        job = await bench.jobs.get_job(job_id)
        assert job is not None and job.status is not JobStatus.CANCELLED


async def test_the_older_protocol_knows_no_such_tasks(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(LEGACY, tasks=FollowsTasks()) as client:
        result = await client.call_tool("scheduler", STEPS)
        job_id = (result.structured_content or {})["jobId"]
        with pytest.raises(MCPError) as raised:
            await about_task(client.session, "tasks/get", job_id)
    assert raised.value.code == METHOD_NOT_FOUND


async def test_a_tool_that_takes_tasks_alone_says_so(tmp_path: Path) -> None:
    tools = built_in_tools()
    support = TaskSupport(job_id=lambda data: str(data["jobId"]), answer=answer_wrongly, required=True)
    object.__setattr__(tools["scheduler"], "task", support)
    follows = FollowsTasks()
    async with mcp_bench(tmp_path, tools=tools) as bench:
        bench.worker.may_end.set()
        async with bench.client() as client:
            with pytest.raises(MCPError) as raised:
                await client.call_tool("scheduler", STEPS)
            assert raised.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
        assert bench.worker.half_done == []
        async with bench.client(tasks=follows) as client:
            task_id = str((await start(bench, client))["taskId"])
            await eventually(lambda: len(bench.worker.ended) == 1, "the job ends")
            task = await task_at_its_end(client.session, task_id)
    # What the tool cannot make an answer of is a failure of the protocol, and no answer.
    assert task["status"] == "failed" and "result" not in task
    assert "a secret" not in str(task)


def answer_wrongly(job: Job) -> SchedulerReceipt:
    raise RuntimeError("a secret")


async def test_a_header_that_names_another_task_is_refused(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "one", "_meta": meta}}
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": MODERN,
            "mcp-method": "tasks/get",
            "mcp-name": "another",
        }
        response = await http.post(bench.url, json=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == HEADER_MISMATCH


async def test_a_stream_that_is_closed_ends_the_request_and_not_the_job(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench:
        async with bench.client() as client:
            calling = asyncio.create_task(client.call_tool("scheduler", {**STEPS, "wait": 60}))
            await eventually(lambda: bool(bench.worker.half_done), "the job runs")
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
        bench.worker.may_end.set()
        await eventually(lambda: len(bench.worker.ended) == 1, "the job ends all the same")


async def test_an_accepted_call_is_a_task_though_its_job_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*_: object, **__: object) -> Job | None:
        raise BrokerUnreachable("gone")

    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        with monkeypatch.context() as patched:
            patched.setattr(HeadraceClient, "get_job", unreachable)
            created = await start(bench, client)
        assert (created["resultType"], created["status"]) == ("task", "working")
        bench.worker.may_end.set()
        task = await task_at_its_end(client.session, str(created["taskId"]))
    assert created.keys() <= task.keys()
    assert task["result"]["structuredContent"]["job"]["result"] == {"steps": 2}


async def test_a_call_through_another_transport_is_a_task_too(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(tasks=FollowsTasks()) as client:
        bench.worker.may_end.set()
        job = await bench.jobs.enqueue("steps", ToolCall(name="x").arguments)
        await eventually(lambda: len(bench.worker.ended) == 1, "the job ends")
        task = await task_at_its_end(client.session, job.id)
    assert task["result"]["structuredContent"]["job"]["result"] == {"steps": 2}
