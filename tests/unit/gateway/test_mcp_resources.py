"""Jobs and workers as resources, and the streams that tell of their changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from mcp import types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY

from headrace import BrokerUnreachable, WatchInterrupted, WorkerSummary
from headrace.core.records import definition_key
from headrace.ports import NewRecord, TopicPartition
from headrace.views import worker_watching
from headrace_gateway.mcp import MCP_PATH, subscriptions
from support.jobs import InMemoryJobs
from support.log import PATIENCE_SECONDS
from support.mcp_bench import LEGACY, MODERN, FollowsTasks, McpBench, mcp_bench
from support.mcp_endpoint import Revocable, endpoint
from support.mcp_raw import modern_request, post_lines

ERAS = pytest.mark.parametrize("version", [LEGACY, MODERN])


async def schedule(bench: McpBench, name: str = "it") -> str:
    job = await bench.jobs.enqueue("steps", {"name": name})
    return job.id


@ERAS
async def test_resources_are_listed_with_states_and_read_whole(tmp_path: Path, version: str) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(version) as client:
        job_id = await schedule(bench, "a secret of the user")
        listed = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        [job] = [each for each in listed if each.uri.startswith("job://")]
        [worker] = [each for each in listed if each.uri.startswith("worker://")]
        read = [(await client.read_resource(each.uri)).contents[0] for each in (job, worker)]
    assert {each.uri_template for each in templates} == {"job://{id}", "worker://{name}"}
    assert (job.uri, worker.uri) == (f"job://{job_id}", "worker://steps")
    assert "a secret of the user" not in str(listed)
    assert all(isinstance(each, types.TextResourceContents) and each.mime_type == "application/json" for each in read)
    shown = [json.loads(each.text) for each in read if isinstance(each, types.TextResourceContents)]
    assert (shown[0]["id"], shown[0]["args"]["name"]) == (job_id, "a secret of the user")
    assert shown[1]["argumentsSchema"]["title"] == "StepsArguments"


@ERAS
async def test_a_list_of_many_jobs_has_pages(tmp_path: Path, version: str) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(version) as client:
        wanted = {f"job://{await schedule(bench, str(number))}" for number in range(60)}
        first = await client.list_resources()
        second = await client.list_resources(cursor=first.next_cursor)
        with pytest.raises(MCPError) as raised:
            await client.list_resources(cursor="nothing that a list gave")
    assert first.next_cursor is not None and second.next_cursor is None
    found = [each.uri for each in [*first.resources, *second.resources] if each.uri.startswith("job://")]
    assert (len(found), set(found)) == (60, wanted)
    assert raised.value.code == INVALID_PARAMS


@pytest.mark.parametrize(("version", "code"), [(LEGACY, -32002), (MODERN, INVALID_PARAMS)])
@pytest.mark.parametrize("uri", ["job://nothing", "worker://nobody", "job://", "file:///etc/passwd", "steps"])
async def test_what_there_is_not_is_said_as_the_protocol_wants(tmp_path: Path, version: str, code: int, uri: str) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(version) as client:
        with pytest.raises(MCPError) as raised:
            await client.read_resource(uri)
    assert (raised.value.code, raised.value.data) == (code, {"uri": uri})


async def test_a_stream_tells_of_each_change_of_a_job_and_ends_with_it(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client() as client:
        uri = f"job://{await schedule(bench)}"
        other = f"job://{await schedule(bench, 'other')}"
        told = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with client.listen(resource_subscriptions=[uri, "job://nothing", "worker://nobody"]) as stream:
                assert stream.honored.resource_subscriptions == [uri]
                async for event in stream:
                    told.append(event)
                    bench.worker.may_end.set()
        read = (await client.read_resource(uri)).contents[0]
    assert len(told) >= 2
    assert set(told) == {ResourceUpdated(uri=uri)}
    assert other not in str(told)
    assert isinstance(read, types.TextResourceContents) and json.loads(read.text)["status"] == "completed"


def shown_of(read: types.ReadResourceResult) -> dict[str, Any]:
    [content] = read.contents
    assert isinstance(content, types.TextResourceContents)
    found: dict[str, Any] = json.loads(content.text)
    return found


async def test_a_stream_tells_of_each_change_of_a_worker_and_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_watching, "COUNT_SECONDS", 0.1)
    uri = "worker://steps"
    wanted = [uri, "worker://nobody", "worker://st%65ps"]
    async with (
        mcp_bench(tmp_path) as bench,
        bench.client() as client,
        asyncio.timeout(PATIENCE_SECONDS),
        client.listen(resource_subscriptions=wanted) as stream,
    ):
        assert stream.honored.resource_subscriptions == [uri, "worker://st%65ps"]
        changes = aiter(stream)

        async def until(**sought: Any) -> None:
            """Reads the worker, and again whenever it is told that it has changed, until it is so."""
            shown = shown_of(await client.read_resource(uri))
            while {name: shown[name] for name in sought} != sought:
                told = await anext(changes)
                assert told in (ResourceUpdated(uri=uri), ResourceUpdated(uri="worker://st%65ps"))
                shown = shown_of(await client.read_resource(told.uri))

        await until(liveInstances=1, backlog=0, running=0, failed=0, paused=False)
        await bench.jobs.pause_worker("steps")
        await until(paused=True)
        await schedule(bench)
        await until(backlog=1)
        await bench.jobs.resume_worker("steps")
        await until(paused=False)
        await until(backlog=0, running=1)
        bench.worker.may_end.set()
        await until(running=0)
        await bench.jobs.enqueue("steps", {"fails": True})
        await until(failed=1)


async def test_a_worker_that_is_there_no_more_is_told_of_once_more(tmp_path: Path) -> None:
    async with (
        mcp_bench(tmp_path) as bench,
        bench.client() as client,
        asyncio.timeout(PATIENCE_SECONDS),
        client.listen(resource_subscriptions=["worker://steps"]) as stream,
    ):
        changes = aiter(stream)
        await anext(changes)
        workers = TopicPartition(bench.jobs.topics.workers.name, 0)
        bench.cluster.append(workers, NewRecord(definition_key("steps"), None))
        assert await anext(changes) == ResourceUpdated(uri="worker://steps")
        # With it all that was listened to is over.
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


class Interrupted(InMemoryJobs):
    """Whose watching of workers is interrupted again and again.

    Attributes:
        watched: how often it was begun.
    """

    watched = 0

    async def watch_worker(
        self, name: str, /, *, tenant: str = "default", user_id: str | None = None
    ) -> AsyncGenerator[WorkerSummary]:
        self.watched += 1
        if self.watched == 2:
            raise BrokerUnreachable("the view is being read")
        async for summary in super().watch_worker(name, tenant=tenant, user_id=user_id):
            yield summary
        if self.watched < 4:
            raise WatchInterrupted("the view is made anew")
        await asyncio.Event().wait()


async def test_a_worker_whose_watching_is_interrupted_is_watched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "_AGAIN_SECONDS", 0.01)
    jobs, tokens = Interrupted(), Revocable()
    headers, body = modern_request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["worker://send_digest"]}})
    headers["authorization"] = "Bearer ann's"
    async with endpoint(jobs, authenticator=tokens) as client, asyncio.timeout(PATIENCE_SECONDS):
        listening = asyncio.create_task(client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode()))
        while jobs.watched < 4:
            assert not listening.done()
            await asyncio.sleep(0.01)
        tokens.revoked.set()
        told = (await listening).text
    assert told.count("notifications/resources/updated") == 3
    assert '"resultType":"complete"' in told.replace(" ", "")


async def test_whoever_may_not_look_at_workers_is_told_of_none() -> None:
    headers, body = modern_request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["worker://send_digest"]}})
    headers["authorization"] = "Bearer idle's"
    async with endpoint(InMemoryJobs(), tokens=True) as client, asyncio.timeout(PATIENCE_SECONDS):
        answer = await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
    assert answer.json()["error"]["data"] == {"code": "forbidden"}
    assert "workers:read" in answer.json()["error"]["message"]


@pytest.mark.parametrize("method", ["resources/subscribe", "resources/unsubscribe"])
async def test_the_older_era_has_no_subscriptions(tmp_path: Path, method: str) -> None:
    async with mcp_bench(tmp_path) as bench, bench.client(LEGACY) as client:
        capabilities = client.server_capabilities
        assert capabilities.resources is not None and not capabilities.resources.subscribe
        with pytest.raises(MCPError) as raised:
            await client.session.send_request(Listen(method=method, params={"uri": "worker://steps"}), Ended)
    assert raised.value.code == METHOD_NOT_FOUND


class Listen(types.Request[dict[str, Any], str]):
    """A request for a stream, with what an extension adds to it."""


class Ended(types.Result):
    """The end of a stream."""


async def listen_to_tasks(session: ClientSession, *task_ids: object) -> None:
    request = Listen(method="subscriptions/listen", params={"notifications": {"taskIds": list(task_ids)}})
    async with asyncio.timeout(PATIENCE_SECONDS):
        await session.send_request(request, Ended)


async def test_a_stream_tells_how_a_task_stands_up_to_its_end(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench:
        job_id = await schedule(bench)
        frames = await frames_of(bench, job_id)
    statuses = [frame["params"]["status"] for frame in frames if frame.get("method") == "notifications/tasks"]
    assert frames[0]["method"] == "notifications/subscriptions/acknowledged"
    assert frames[0]["params"]["notifications"] == {"taskIds": [job_id]}
    assert (statuses[0], statuses[-1]) == ("working", "completed")
    last = [frame for frame in frames if frame.get("method") == "notifications/tasks"][-1]["params"]
    assert last["result"]["structuredContent"]["job"]["result"] == {"steps": 2}
    assert all("io.modelcontextprotocol/subscriptionId" in frame["params"]["_meta"] for frame in frames[:-1])
    assert frames[-1]["result"]["resultType"] == "complete"


async def frames_of(bench: McpBench, job_id: str) -> list[dict[str, Any]]:
    """All that comes on a stream about a task, which is let go on when its state was told."""
    request = modern_request("subscriptions/listen", {"notifications": {"taskIds": [job_id]}}, tasks=True)
    frames = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for frame in post_lines(bench.url, request):
            frames.append(frame)
            if frame.get("method") == "notifications/tasks":
                bench.worker.may_end.set()
    return frames


async def test_who_cannot_follow_tasks_is_told_of_none(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench:
        job_id = await schedule(bench)
        async with bench.client() as client:
            with pytest.raises(MCPError) as raised:
                await listen_to_tasks(client.session, job_id)
        async with bench.client(tasks=FollowsTasks()) as client:
            with pytest.raises(MCPError) as wrong:
                await listen_to_tasks(client.session, 7)
            with pytest.raises(MCPError) as many:
                await listen_to_tasks(client.session, *map(str, range(101)))
    assert raised.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
    assert (wrong.value.code, many.value.code) == (INVALID_PARAMS, INVALID_PARAMS)


async def test_a_gateway_that_stops_ends_its_streams_in_order(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench:
        job_id = await schedule(bench)
        frames = []
        acknowledged = asyncio.Event()
        async with bench.gateway() as url:

            async def listen() -> None:
                request = modern_request(
                    "subscriptions/listen", {"notifications": {"resourceSubscriptions": [f"job://{job_id}"]}}
                )
                async for frame in post_lines(url, request):
                    frames.append(frame)
                    acknowledged.set()

            listening = asyncio.create_task(listen())
            async with asyncio.timeout(PATIENCE_SECONDS):
                await acknowledged.wait()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await listening
    assert frames[-1]["result"]["resultType"] == "complete"
