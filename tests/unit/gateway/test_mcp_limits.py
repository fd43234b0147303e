"""Callers of the Model Context Protocol that do more than they may: a status over HTTP, and room again for who comes later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client as McpClient
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST

from headrace import load_settings
from headrace_gateway import Gateway
from headrace_gateway.access import LOCAL, Allowance, Limits
from headrace_gateway.mcp import MCP_PATH, build_server
from support.jobs import InMemoryJobs
from support.log import PATIENCE_SECONDS
from support.mcp_bench import LEGACY, MODERN, McpBench, mcp_bench
from support.mcp_endpoint import HEADERS, Heard, NeverEnding, Revocable, endpoint
from support.mcp_raw import modern_request, post_lines

ERAS = pytest.mark.parametrize("version", [LEGACY, MODERN])
DIGEST = {"name": "scheduler", "arguments": {"kind": "digest", "args": {"to": ["x"]}}}
LISTEN = {"notifications": {"resourceSubscriptions": ["job://job-of-a"]}}
ONE_CALL = Allowance(calls_per_second=0.01, burst=1)
ONE_STREAM = Allowance(streams=1)
NONE_AT_ONCE = Allowance(in_flight=0, streams=0)


def sent(method: str, params: dict[str, Any], version: str = MODERN, message_id: str | int = 1) -> dict[str, Any]:
    """What Ann sends a request with, in one of the eras."""
    headers, body = modern_request(method, params)
    if version == LEGACY:
        headers, body["params"] = {**HEADERS, "mcp-protocol-version": LEGACY}, params
    body["id"] = message_id
    return {"headers": {**headers, "authorization": "Bearer ann's"}, "content": json.dumps(body).encode()}


def check_refused(response: httpx2.Response, code: str, message_id: str | int = 1) -> None:
    """That an answer says by its status, and in its body, what was too much and when to come again."""
    told = response.json()
    assert response.status_code == 429, told
    seconds = int(response.headers["retry-after"])
    assert seconds >= 1
    assert response.headers["content-type"] == "application/json"
    assert (told["jsonrpc"], told["id"]) == ("2.0", message_id)
    assert (told["error"]["code"], told["error"]["data"]) == (INVALID_REQUEST, {"code": code, "retryAfter": seconds})


@ERAS
async def test_a_call_too_many_is_refused_by_status(version: str) -> None:
    jobs, heard = InMemoryJobs(), Heard()
    async with endpoint(jobs, tokens=True, limits=Limits(ONE_CALL), audit=heard) as client:
        first = await client.post(MCP_PATH, **sent("tools/call", DIGEST, version))
        second = await client.post(MCP_PATH, **sent("tools/call", DIGEST, version, message_id="again"))
    assert first.status_code == 200 and "result" in first.text
    check_refused(second, "rate_limited", "again")
    assert len(jobs.enqueued) == 1
    assert [(each.tool, each.outcome) for each in heard.calls] == [("scheduler", "ok"), ("scheduler", "rate_limited")]


@ERAS
@pytest.mark.parametrize("method", ["tools/list", "resources/list", "prompts/list"])
async def test_all_that_is_more_than_the_connection_counts(version: str, method: str) -> None:
    async with endpoint(InMemoryJobs(), tokens=True, limits=Limits(NONE_AT_ONCE)) as client:
        check_refused(await client.post(MCP_PATH, **sent(method, {}, version)), "too_many_in_flight")


@pytest.mark.parametrize(("method", "version"), [("server/discover", MODERN), ("ping", LEGACY), ("initialize", LEGACY)])
async def test_what_is_about_the_connection_alone_is_not_counted(method: str, version: str) -> None:
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "a client", "version": "1"}}
    async with endpoint(InMemoryJobs(), tokens=True, limits=Limits(NONE_AT_ONCE)) as client:
        response = await client.post(MCP_PATH, **sent(method, hello if method == "initialize" else {}, version))
    assert response.status_code == 200
    assert "result" in response.text


class Slow(InMemoryJobs):
    """Accepts a job when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_go = asyncio.Event(), asyncio.Event()

    async def list_workers(self) -> Any:
        self.asked.set()
        await self.may_go.wait()
        return await super().list_workers()


@ERAS
async def test_calls_under_way_are_counted_until_they_have_ended(version: str) -> None:
    jobs = Slow()
    look = sent("tools/call", {"name": "worker_manager", "arguments": {"action": "list_workers"}}, version)
    async with (
        endpoint(jobs, tokens=True, limits=Limits(Allowance(in_flight=1))) as client,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        first = asyncio.create_task(client.post(MCP_PATH, **look))
        await jobs.asked.wait()
        check_refused(await client.post(MCP_PATH, **look), "too_many_in_flight")
        jobs.may_go.set()
        answers = [await first, await client.post(MCP_PATH, **look)]
    assert ["send_digest" in answer.text for answer in answers] == [True, True]


async def test_streams_are_counted_until_they_have_ended() -> None:
    tokens, limits, heard = Revocable(), Limits(ONE_STREAM), Heard()
    listen = sent("subscriptions/listen", LISTEN)
    async with (
        endpoint(NeverEnding(), authenticator=tokens, limits=limits, audit=heard) as client,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        listening = asyncio.create_task(client.post(MCP_PATH, **listen))
        while not heard.calls:  # noqa: ASYNC110 - nothing else tells that it has begun
            await asyncio.sleep(0.01)
        check_refused(await client.post(MCP_PATH, **listen), "too_many_in_flight")
        # Streams and calls are counted apart.
        assert (await client.post(MCP_PATH, **sent("tools/call", DIGEST))).status_code == 200
        tokens.revoked.set()
        assert (await listening).status_code == 200
        tokens.revoked.clear()
        again = asyncio.create_task(client.post(MCP_PATH, **listen))
        while sum(each.outcome == "ok" and each.tool is None for each in heard.calls) < 2:
            assert not again.done()
            await asyncio.sleep(0.01)
        tokens.revoked.set()
        assert (await again).status_code == 200
    assert [each.outcome for each in heard.calls] == ["ok", "too_many_in_flight", "ok", "ok"]


WRONG = [
    ({"mcp-name": "worker_manager"}, "tools/call", DIGEST),
    ({"mcp-method": "tools/list"}, "tools/call", DIGEST),
    ({"mcp-protocol-version": "1999-01-01"}, "tools/call", DIGEST),
    ({}, "tools/call", {"name": 7}),
    ({}, "tools/nothing", {}),
    ({}, "subscriptions/listen", {"notifications": 7}),
    ({"mcp-protocol-version": LEGACY}, "subscriptions/listen", LISTEN),
    ({"accept": "text/html"}, "tools/call", DIGEST),
]


@pytest.mark.parametrize(("headers", "method", "params"), WRONG)
async def test_what_the_protocol_refuses_by_itself_gives_its_place_back_and_is_audited_once(
    headers: dict[str, str], method: str, params: dict[str, Any]
) -> None:
    limits, heard = Limits(Allowance(in_flight=1, streams=1)), Heard()
    wrong = sent(method, params)
    wrong["headers"] |= headers
    async with endpoint(InMemoryJobs(), tokens=True, limits=limits, audit=heard) as client:
        for number in range(3):
            response = await client.post(MCP_PATH, **wrong)
            # What could not read an error gets none.
            assert '"error"' in response.text or response.status_code == 406, response.text
            assert len(heard.calls) == number + 1
        right = await client.post(MCP_PATH, **sent("tools/call", DIGEST))
    assert right.status_code == 200
    assert {each.outcome for each in heard.calls[:3]} == {"request_invalid"}


async def test_notifications_and_answers_are_not_counted() -> None:
    heard = Heard()
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    async with endpoint(InMemoryJobs(), tokens=True, limits=Limits(NONE_AT_ONCE), audit=heard) as client:
        headers = {**HEADERS, "mcp-protocol-version": LEGACY, "authorization": "Bearer ann's"}
        for each in (message, {"jsonrpc": "2.0", "id": 1, "result": {}}):
            response = await client.post(MCP_PATH, headers=headers, content=json.dumps(each).encode())
            assert response.status_code == 202, response.text
    assert heard.calls == []


@asynccontextmanager
async def limited(folder: Path, **limits: Any) -> AsyncIterator[McpBench]:
    async with mcp_bench(folder, limits=limits) as bench:
        bench.worker.may_end.set()
        yield bench


@ERAS
async def test_the_official_client_sees_the_code_and_the_seconds(tmp_path: Path, version: str) -> None:
    async with limited(tmp_path, calls_per_second=0.01, burst=2) as bench, bench.client(version) as client:
        # After the first call it asks for the list, too, by which it checks the answer.
        await client.call_tool("worker_manager", {"action": "list_workers"})
        for _ in range(2):
            with pytest.raises(MCPError) as raised:
                await client.call_tool("worker_manager", {"action": "list_workers"})
            assert raised.value.code == INVALID_REQUEST
            assert raised.value.data["code"] == "rate_limited"
            assert raised.value.data["retryAfter"] >= 1


async def test_the_official_client_that_leaves_a_stream_can_listen_again(tmp_path: Path) -> None:
    async with limited(tmp_path, streams_at_once=1) as bench, bench.client() as client:
        for _ in range(3):
            async with client.listen(resource_subscriptions=["worker://steps"]) as stream:
                assert stream.honored.resource_subscriptions == ["worker://steps"]
                with pytest.raises(MCPError) as raised:
                    async with client.listen(resource_subscriptions=["worker://steps"]):
                        pass
                assert raised.value.data["code"] == "too_many_in_flight"
            await free_for_a_stream(bench)


async def test_over_standard_input_and_output_the_error_says_it() -> None:
    gateway = Gateway(load_settings(), InMemoryJobs())
    gateway.access.limits = Limits(Allowance(calls_per_second=0.01, burst=2))
    # The server that `headrace mcp` serves, without the pipes.
    async with McpClient(build_server(gateway, LOCAL)) as client:
        await client.call_tool("worker_manager", {"action": "list_workers"})
        with pytest.raises(MCPError) as raised:
            await client.call_tool("worker_manager", {"action": "list_workers"})
        assert (raised.value.code, raised.value.data["code"]) == (INVALID_REQUEST, "rate_limited")
        assert raised.value.data["retryAfter"] >= 1
        gateway.access.limits = Limits(Allowance())
        assert not (await client.call_tool("worker_manager", {"action": "list_workers"})).is_error


async def free_for_a_stream(bench: McpBench) -> None:
    """Returns when the gateway knows that whoever listened has left."""
    request = modern_request("subscriptions/listen", {"notifications": {}})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                # Nothing is asked for, so that it ends at once.
                assert [frame async for frame in post_lines(bench.url, request)]
                return
            except AssertionError as error:
                assert "too_many_in_flight" in str(error)
                await asyncio.sleep(0.02)
