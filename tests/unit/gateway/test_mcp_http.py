"""The endpoint over HTTP: what is no request of the protocol gets the protocol's error, and never a 500; who calls is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_gateway.access import Allowance, Limits
from headrace_gateway.mcp import MCP_PATH
from support.jobs import InMemoryJobs
from support.log import PATIENCE_SECONDS
from support.mcp_bench import mcp_bench
from support.mcp_endpoint import HEADERS, LIMIT, Heard, NeverEnding, Revocable, called, endpoint
from support.mcp_raw import modern_request

WRONG_BODIES: list[tuple[bytes, int, int]] = [
    (b"", 400, -32700),
    (b"{", 400, -32700),
    (b"[]", 400, -32600),
    (b"7", 400, -32600),
    (b'{"jsonrpc": "2.0", "id": 1}', 400, -32600),
    (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', 400, -32600),
    (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', 400, -32600),
    (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', 400, -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": NaN}', 400, -32700),
    (b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}', 400, -32700),
    (b"\xff\xfe", 400, -32700),
    (b"[" * 5_000 + b"]" * 5_000, 400, -32700),
    (b'{"a": "' + b"x" * LIMIT + b'"}', 413, -32600),
]


@pytest.mark.parametrize(("body", "status", "code"), WRONG_BODIES)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25", None])
async def test_what_is_no_request(body: bytes, status: int, code: int, version: str | None) -> None:
    headers = HEADERS if version is None else {**HEADERS, "mcp-protocol-version": version}
    async with endpoint(InMemoryJobs()) as client:
        response = await client.post(MCP_PATH, headers=headers, content=body)
    assert response.status_code == status
    found = response.json()["error"]["code"]
    # The older era calls a body that is JSON and no message wrong parameters.
    assert found == code or (version != "2026-07-28" and (code, found) == (-32600, -32602))


@pytest.mark.parametrize(("body", "status", "code"), WRONG_BODIES)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_what_is_no_request_is_audited_and_counts_as_a_call(body: bytes, status: int, code: int, version: str) -> None:
    heard, one = Heard(), Limits(Allowance(calls_per_second=0.01, burst=1))
    headers = {**HEADERS, "mcp-protocol-version": version, "authorization": "Bearer ann's"}
    async with endpoint(InMemoryJobs(), tokens=True, audit=heard, limits=one) as client:
        statuses = [(await client.post(MCP_PATH, headers=headers, content=body)).status_code for _ in range(2)]
    assert statuses == [status, 429]
    expected = {-32700: "body_invalid", -32600: "request_invalid"}[code] if status == 400 else "body_too_large"
    assert [each.outcome for each in heard.calls] == [expected, "rate_limited"]
    assert [each.principal.subject for each in heard.calls if each.principal] == ["ann", "ann"]


async def test_a_notification_is_no_call() -> None:
    heard = Heard()
    headers = {**HEADERS, "mcp-protocol-version": "2025-11-25", "authorization": "Bearer ann's"}
    async with endpoint(InMemoryJobs(), tokens=True, audit=heard) as client:
        body = b'{"jsonrpc": "2.0", "method": "notifications/initialized"}'
        response = await client.post(MCP_PATH, headers=headers, content=body)
    assert (response.status_code, heard.calls) == (202, [])


@pytest.mark.parametrize("method", ["tools/nothing", "sampling/createMessage", "", "tasks/list", "tasks/result"])
async def test_an_unknown_method(method: str) -> None:
    headers, body = modern_request(method, {}, tasks=True)
    async with endpoint(InMemoryJobs()) as client:
        response = await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
    assert (response.status_code, response.json()["error"]["code"]) == (404, -32601)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD"])
async def test_there_is_nothing_but_post(method: str) -> None:
    async with endpoint(InMemoryJobs()) as client:
        response = await client.request(method, MCP_PATH, headers={"accept": "text/event-stream"})
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "params", [{"name": 7}, {"name": "scheduler", "arguments": []}, {"arguments": {}}, {"name": "x" * 5_000}]
)
async def test_wrong_parameters_of_a_call(params: dict[str, Any]) -> None:
    headers, body = modern_request("tools/call", params)
    headers["mcp-name"] = str(params.get("name", ""))
    async with endpoint(InMemoryJobs()) as client:
        response = await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
    assert response.status_code == 400
    assert response.json()["error"]["code"] in (-32602, -32020)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
methods = st.sampled_from(
    ["tools/call", "tools/list", "resources/read", "resources/list", "prompts/get", "tasks/get", "tasks/update", "tasks/cancel"]
)


names = st.sampled_from(["name", "arguments", "uri", "cursor", "taskId", "inputResponses", "_meta"])


@pytest.fixture(scope="module")
async def unguarded() -> AsyncIterator[httpx2.AsyncClient]:
    found: asyncio.Future[httpx2.AsyncClient] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve() -> None:
        # In a task of its own, in which it has to begin and to end.
        async with endpoint(InMemoryJobs()) as client:
            found.set_result(client)
            await over.wait()

    serving = asyncio.create_task(serve())
    yield await found
    over.set()
    await serving


@given(method=methods, params=st.dictionaries(names, json_values))
async def test_nothing_that_is_sent_is_answered_by_a_500(
    unguarded: httpx2.AsyncClient, method: str, params: dict[str, Any]
) -> None:
    for version in ("2026-07-28", "2025-11-25"):
        headers, body = modern_request(method, params, tasks=True)
        if version != "2026-07-28":
            body["params"] = params
            headers["mcp-protocol-version"] = version
        headers = {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}
        response = await unguarded.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
        assert response.status_code in (200, 400, 404), response.text
        assert "internal_error" not in response.text
        assert '"code":-32603' not in response.text.replace(" ", "")


@pytest.mark.parametrize("credential", [None, "wrong", "Basic ann's"])
async def test_who_is_not_known_is_not_let_in(credential: str | None) -> None:
    jobs = InMemoryJobs()
    headers = {} if credential is None else {"authorization": credential if " " in credential else f"Bearer {credential}"}
    async with endpoint(jobs, tokens=True) as client:
        response = await client.post(MCP_PATH, **called("scheduler", {"kind": "digest", "args": {"to": ["x"]}}, **headers))
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert jobs.enqueued == []


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_each_request_is_made_for_whoever_its_own_credential_names(header: str) -> None:
    jobs = InMemoryJobs()
    async with endpoint(jobs, tokens=True) as client:
        for whose in ("ann's", "bob's", "ann's"):
            value = f"Bearer {whose}" if header == "authorization" else whose
            response = await client.post(
                MCP_PATH, **called("scheduler", {"kind": "digest", "args": {"to": ["x"]}}, **{header: value})
            )
            assert response.json()["result"]["structuredContent"]["scheduled"] is True
    assert [each["tenant"] for each in jobs.enqueued] == ["a", "b", "a"]


async def test_two_credentials_are_none() -> None:
    async with endpoint(InMemoryJobs(), tokens=True) as client:
        sent = called("worker_manager", {"action": "list_workers"}, authorization="Bearer ann's")
        sent["headers"]["x-api-key"] = "bob's"
        response = await client.post(MCP_PATH, **sent)
    assert response.status_code == 401


async def test_of_another_tenants_job_nothing_is_told() -> None:
    answers: dict[str, list[Any]] = {"mine": [], "foreign": [], "missing": []}
    async with endpoint(InMemoryJobs(), tokens=True) as client:
        for what, job_id in (("mine", "job-of-a"), ("foreign", "job-of-b"), ("missing", "job-of-nobody")):
            for method, params in (
                ("resources/read", {"uri": f"job://{job_id}"}),
                ("tasks/get", {"taskId": job_id}),
                ("tools/call", {"name": "worker_manager", "arguments": {"action": "get_job", "jobId": job_id}}),
            ):
                headers, body = modern_request(method, params, tasks=True)
                headers["authorization"] = "Bearer ann's"
                response = await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
                answers[what].append(json.loads(response.text.replace(job_id, "it")))
    assert answers["foreign"] == answers["missing"]
    assert all("error" not in each for each in answers["mine"])


async def test_lists_leave_out_what_the_caller_may_not_see() -> None:
    headers, body = modern_request("resources/list", {})
    async with endpoint(InMemoryJobs(), tokens=True) as client:
        headers["authorization"] = "Bearer nobody's"
        response = await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
        uris = [each["uri"] for each in response.json()["result"]["resources"]]
        headers, body = modern_request("resources/read", {"uri": "job://job-of-a"})
        headers["authorization"] = "Bearer nobody's"
        read = await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
    assert uris and all(uri.startswith("worker://") for uri in uris)
    assert read.json()["error"]["data"] == {"code": "forbidden"}


async def test_every_call_is_audited_however_it_ends() -> None:
    heard = Heard()
    requests: list[tuple[str, dict[str, Any]]] = [
        ("server/discover", {}),
        ("tools/list", {}),
        ("tools/call", {"name": "scheduler", "arguments": {"kind": "digest", "args": {"to": ["x"]}}}),
        ("tools/call", {"name": "scheduler", "arguments": {"kind": "a secret"}}),
        ("tools/call", {"name": "a secret", "arguments": {}}),
        ("resources/read", {"uri": "job://job-of-a"}),
    ]
    async with endpoint(InMemoryJobs(), tokens=True, audit=heard) as client:
        for whose in ("ann's", "wrong"):
            for method, params in requests if whose == "ann's" else requests[:1]:
                headers, body = modern_request(method, params)
                headers["authorization"] = f"Bearer {whose}"
                await client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode())
    told = [(each.tool, each.action, each.outcome, each.job_id) for each in heard.calls]
    assert told == [
        (None, None, "ok", None),
        ("scheduler", "enqueue", "ok", "job-1"),
        ("scheduler", None, "kind_unknown", None),
        (None, None, "request_invalid", None),
        (None, "get_job", "ok", None),
        (None, None, "unauthenticated", None),
    ]
    assert {each.arrival.transport for each in heard.calls} == {"mcp"}
    assert [each.principal.subject if each.principal else None for each in heard.calls] == ["ann"] * 5 + [None]


async def test_a_revocation_ends_the_streams() -> None:
    jobs, tokens = NeverEnding(), Revocable()
    headers, body = modern_request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["job://job-of-a"]}})
    headers["authorization"] = "Bearer ann's"
    async with endpoint(jobs, authenticator=tokens) as client, asyncio.timeout(PATIENCE_SECONDS):
        listening = asyncio.create_task(client.post(MCP_PATH, headers=headers, content=json.dumps(body).encode()))
        await jobs.told.wait()
        assert not listening.done()
        tokens.revoked.set()
        response = await listening
    assert "notifications/resources/updated" in response.text
    assert '"resultType":"complete"' in response.text.replace(" ", "")


async def test_a_web_page_does_not_reach_this_machine_by_another_name(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path) as bench, httpx2.AsyncClient(trust_env=False, timeout=60) as client:
        sent = called("worker_manager", {"action": "list_workers"})
        for header in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
            response = await client.post(bench.url, headers={**sent["headers"], **header}, content=sent["content"])
            assert response.status_code in (403, 421)
        assert (await client.post(bench.url, **sent)).status_code == 200
