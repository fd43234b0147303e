"""HTTP: every documented status is provoked, no other comes, and a tool call is always answered by the envelope."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from headrace import Client, ClosedModel, Settings, WireModel
from headrace.broker import Broker
from headrace_gateway import Caller, ToolAnnotations, ToolDefinition, built_in_tools
from headrace_gateway.http.routes import ROUTES, STREAMS
from support.gateway import data_of, publish_workers, refusal_code, running_gateway, settings_for

STATUSES = {200, 400, 404, 409, 413, 503}
OF_ACCESS = {401, 403, 429}
"""Nobody is asked who they are here: `test_gateway_access` provokes these."""


class NoArguments(ClosedModel):
    """Nothing."""


class Nothing(WireModel):
    """Nothing."""


class HugeNumber(WireModel):
    """A number that JSON libraries disagree about."""

    number: int


async def fail(arguments: NoArguments, caller: Caller) -> Nothing:
    raise RuntimeError("a secret")


async def answer_what_cannot_be_sent(arguments: NoArguments, caller: Caller) -> HugeNumber:
    return HugeNumber(number=1 << 80)


async def answer_nothing(arguments: NoArguments, caller: Caller) -> Nothing:
    return Nothing()


def tools_of_our_own() -> Any:
    tools = built_in_tools()
    for name, handler in (("fail", fail), ("huge", answer_what_cannot_be_sent), ("nothing", answer_nothing)):
        tools.register(
            ToolDefinition(
                name=name,
                description="For tests.",
                arguments=NoArguments,
                answers=(Nothing, HugeNumber),
                annotations=ToolAnnotations(read_only=True),
                handler=handler,
            )
        )
    return tools


@pytest.fixture(scope="module")
async def client(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_for(broker, tmp_path_factory.mktemp("gateway"))
    await publish_workers(settings)
    async with running_gateway(settings, tools=tools_of_our_own(), maximum_body_bytes=700_000) as made:
        yield made


async def test_bodies_that_are_no_arguments_are_400(client: httpx.AsyncClient) -> None:
    for body in (
        b"{",
        b"nonsense",
        b"[1]",
        b'"text"',
        b"5",
        b"null",
        b"\xff\xfe",
        b"[" * 5_000,
        b'{"a": NaN}',
        b"\xef\xbb\xbf{}",
    ):
        response = await client.post("/tools/scheduler", content=body)
        assert (response.status_code, refusal_code(response)) == (400, "body_invalid"), body
    response = await client.post("/tools/scheduler", content=b"{}", headers={"Content-Encoding": "gzip"})
    assert (response.status_code, refusal_code(response)) == (400, "body_invalid")


async def test_no_body_is_no_arguments(client: httpx.AsyncClient) -> None:
    assert data_of(await client.post("/tools/nothing")) == {}
    response = await client.post("/tools/worker_manager")
    assert (response.status_code, refusal_code(response)) == (400, "arguments_invalid")


async def test_arguments_that_do_not_fit_are_400(client: httpx.AsyncClient) -> None:
    for arguments in ({"action": "explode"}, {"action": "list_jobs", "sort": "asc"}, {"action": "list_workers", "limit": 5}):
        response = await client.post("/tools/worker_manager", json=arguments)
        assert (response.status_code, refusal_code(response)) == (400, "arguments_invalid")
    response = await client.post("/tools/scheduler", json={"kind": "gardening"})
    assert (response.status_code, refusal_code(response)) == (400, "kind_unknown")
    assert "digest, memory_compaction" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Headrace-User-Id", b""),
        ("Headrace-User-Id", b"x" * 201),
        ("Headrace-Conversation-Id", b"\xff"),
        ("Headrace-Source", b"a\tb"),
        ("headrace-source", "a\u009bb".encode()),
    ],
)
async def test_context_headers_that_are_wrong_are_400(client: httpx.AsyncClient, header: str, value: bytes) -> None:
    response = await client.post("/tools/nothing", headers=[(header.encode(), value)])
    assert (response.status_code, refusal_code(response)) == (400, "context_invalid")
    assert header.title() in response.json()["error"]["message"]


@pytest.mark.parametrize("header", ["Headrace-UserId", "Headrace-User", "X-Headrace-User-Id", "headrace_user_id", "headrace-x"])
async def test_a_header_that_looks_like_context_and_is_none_is_400(client: httpx.AsyncClient, header: str) -> None:
    response = await client.post("/tools/worker_manager", json={"action": "list_workers"}, headers={header: "ann"})
    assert (response.status_code, refusal_code(response)) == (400, "context_invalid")
    told = response.json()["error"]["message"]
    assert told.startswith(f"There is no header {header.lower()}:")
    assert told.endswith("Headrace-User-Id, Headrace-Conversation-Id, Headrace-Source.")


async def test_other_headers_are_nobodys_concern(client: httpx.AsyncClient) -> None:
    headers = {"HEADRACE-USER-ID": "ann", "X-Request-Id": "1", "Traceparent": "00", "X-Headracer": "a proxy's own"}
    response = await client.post("/tools/worker_manager", json={"action": "list_workers"}, headers=headers)
    assert response.status_code == 200


async def test_a_context_header_that_comes_twice_is_400(client: httpx.AsyncClient) -> None:
    response = await client.post("/tools/nothing", headers=[("Headrace-User-Id", "ann"), ("Headrace-User-Id", "bob")])
    assert (response.status_code, refusal_code(response)) == (400, "context_invalid")


async def test_context_headers_are_utf8(client: httpx.AsyncClient) -> None:
    headers = [(b"Headrace-User-Id", "Zoë 雪".encode()), (b"Headrace-Conversation-Id", b"c" * 200)]
    data_of(await client.post("/tools/scheduler", json={"kind": "memory_compaction"}, headers=headers))
    jobs = data_of(await client.post("/tools/worker_manager", json={"action": "list_jobs", "userId": "Zoë 雪"}))["jobs"]
    assert jobs[0]["ctx"] == {"userId": "Zoë 雪", "conversationId": "c" * 200}


@pytest.mark.parametrize(
    "name", ["unknown", "Scheduler", "", "a/b", "scheduler/", "%F0%9F%92%A5", "%ff", "..%2Fhealthz", "x" * 3_000]
)
async def test_an_unknown_tool_is_404(client: httpx.AsyncClient, name: str) -> None:
    response = await client.post(f"/tools/{name}", json={})
    assert (response.status_code, refusal_code(response)) == (404, "tool_unknown")
    assert "scheduler, worker_manager" in response.json()["error"]["message"]


async def chunks(total: int, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, total, size):
        yield b"x" * min(size, total - start)


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("size", [700_001, 20_000_000])
async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient, declared: bool, size: int) -> None:
    content: Any = b"x" * size if declared else chunks(size)
    response = await client.post("/tools/scheduler", content=content)
    assert (response.status_code, refusal_code(response)) == (413, "body_too_large")
    assert "700,000 bytes" in response.json()["error"]["message"]
    assert (await client.get("/healthz")).status_code == 200


async def test_a_body_without_an_end_is_413_before_long(client: httpx.AsyncClient) -> None:
    def send_until_answered() -> tuple[int, bytes]:
        head = b"POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sent = 0
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
            connection.sendall(head)
            # The server may close while we send; what it has answered can be read all the same.
            with contextlib.suppress(ConnectionError):
                while not select.select([connection], [], [], 0)[0]:
                    connection.sendall(chunk)
                    sent += 0x10000
            return sent, connection.recv(65_536)

    sent, answer = await asyncio.to_thread(send_until_answered)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 100_000_000


async def test_a_body_of_just_the_limit_is_read(client: httpx.AsyncClient) -> None:
    body = b"{}" + b" " * 699_998
    response = await client.post("/tools/nothing", content=body)
    assert data_of(response) == {}


async def test_a_client_that_asks_first_need_not_send_what_is_too_much(client: httpx.AsyncClient) -> None:
    head = "POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n"
    answer = await raw_exchange(client, head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer


async def test_a_job_over_the_limit_of_a_job_is_413(client: httpx.AsyncClient) -> None:
    arguments = {"kind": "memory_compaction", "userId": "ann", "conversationId": "c", "content": "x" * 600_000}
    response = await client.post("/tools/scheduler", json=arguments)
    assert (response.status_code, refusal_code(response)) == (413, "payload_too_large")


@pytest.mark.parametrize("tool", ["fail", "huge"])
async def test_what_fails_unexpectedly_is_503_and_tells_nothing(client: httpx.AsyncClient, tool: str) -> None:
    response = await client.post(f"/tools/{tool}", json={})
    assert (response.status_code, refusal_code(response)) == (503, "internal_error")
    assert "secret" not in response.text


async def test_no_acknowledgement_in_time_is_503(settings: Settings) -> None:
    await publish_workers(settings)
    arguments = {"kind": "memory_compaction", "userId": "ann", "conversationId": "c"}
    async with Client(settings, view=True) as jobs:
        # The queue is there, so that nothing but the acknowledgement is waited for.
        await jobs.enqueue("memory_compaction_worker", {"userId": "ann", "conversationId": "c"})
        async with running_gateway(settings, jobs=jobs, enqueue_timeout_seconds=0.000_001) as client:
            response = await client.post("/tools/scheduler", json=arguments)
    assert (response.status_code, refusal_code(response)) == (503, "enqueue_timeout")
    assert "It may have been accepted" in response.json()["error"]["message"]


async def raw_exchange(client: httpx.AsyncClient, request: bytes) -> bytes:
    """What the server answers to these bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\nContent-Length: ten\r\n\r\n",
        b"POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nonsense", "length", "chunk"],
)
async def test_what_is_no_http_request_is_400(client: httpx.AsyncClient, request_bytes: bytes) -> None:
    head, _, body = (await raw_exchange(client, request_bytes)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert orjson.loads(body)["error"]["code"] == "request_invalid"


async def test_a_client_that_leaves_in_the_middle_asks_for_nothing(client: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    body = orjson.dumps({"kind": "memory_compaction", "userId": "gone", "conversationId": "c"})
    writer.write(b"POST /tools/scheduler HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()
    await writer.wait_closed()
    listed = await client.post("/tools/worker_manager", json={"action": "list_jobs", "userId": "gone"})
    assert data_of(listed)["jobs"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/docs", 404),
        ("GET", "/tools/scheduler", 405),
        ("POST", "/tools", 405),
        ("DELETE", "/tools/scheduler", 405),
    ],
)
async def test_other_requests_get_a_problem(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)
    assert response.status_code == response.json()["status"] == status
    assert response.json()["code"] == {404: "route_unknown", 405: "method_not_allowed"}[status]
    assert response.headers["content-type"] == "application/problem+json"


async def test_health(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_openapi_documents_these_statuses_with_these_schemas(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/tools",
        "/tools/{name}",
        *(f"/tools/{tool.name}" for tool in tools_of_our_own()),
        "/healthz",
        "/readyz",
        *(route.path for route in (*ROUTES, *STREAMS)),
    }
    documented = {
        path: set(map(int, item["post"]["responses"])) for path, item in document["paths"].items() if path.startswith("/tools/")
    }
    assert all(statuses == STATUSES | OF_ACCESS for statuses in documented.values())
    assert set(document["paths"]["/readyz"]["get"]["responses"]) == {"200", "503"}

    resource = Resource.from_contents({"$schema": "https://json-schema.org/draft/2020-12/schema", **document})
    registry: Registry[Any] = Registry().with_resource("urn:document", resource)

    def validator(path: str, status: int) -> Draft202012Validator:
        pointer = f"/paths/{path.replace('/', '~1')}/post/responses/{status}/content/application~1json/schema"
        return Draft202012Validator({"$ref": f"urn:document#{pointer}"}, registry=registry)

    for path, arguments, status in (
        ("/tools/scheduler", {"kind": "memory_compaction", "userId": "ann", "conversationId": "c"}, 200),
        ("/tools/scheduler", {"kind": "gardening"}, 400),
        ("/tools/worker_manager", {"action": "list_workers"}, 200),
        ("/tools/worker_manager", {"action": "list_jobs"}, 200),
        ("/tools/fail", {}, 503),
    ):
        response = await client.post(path, json=arguments)
        assert response.status_code == status
        validator(path, status).validate(response.json())
        assert not validator(path, status).is_valid({"ok": status != 200})
