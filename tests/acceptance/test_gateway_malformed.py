"""Whatever is sent to the gateway: a status that its description names, in its form, never a fault, and no job is lost."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.ports import NewRecord, TopicPartition
from headrace.testing import InMemoryLog, StoredRecord
from headrace_gateway.access import ALL_SCOPES, Principal, Scope
from headrace_gateway.http.guard import DESCRIPTIONS, PROBES
from headrace_gateway.http.routes import ROUTES, STREAMS
from headrace_gateway.ingress import KafkaIngress
from headrace_gateway.mcp.endpoint import MCP_PATH
from support.events import PATIENCE
from support.mcp_raw import modern_request
from support.served import FOR_CALL, Served, served, settings_in
from support.written_jobs import WORKER, Engines, WrittenLog

TEXT = st.text(max_size=30)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=15
)
ENTRY = st.dictionaries(
    st.sampled_from(["id", "role", "content", "name", "at"]) | TEXT,
    st.sampled_from(["user", "assistant", "summary", "2026-03-02T09:30:00Z", "2026-13-02T09:30:00Z", "x"]) | ANYTHING,
    max_size=5,
)
ENTRIES = st.fixed_dictionaries({"entries": st.lists(ENTRY | ANYTHING, max_size=3)})
ARGUMENTS = st.dictionaries(
    st.sampled_from(["kind", "action", "jobId", "args", "userId", "limit", "cursor", "status"]) | TEXT,
    st.sampled_from(["digest", "list_jobs", "get_job", "queued", {"to": ["x"]}, "ann", 1]) | ANYTHING,
    max_size=5,
)
BODIES = st.binary(max_size=200) | st.one_of(ANYTHING, ENTRIES, ARGUMENTS).map(lambda value: json.dumps(value).encode())
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["status", "workerName", "userId", "limit", "cursor", "wait", "format", "strict"]) | TEXT,
        st.sampled_from(["queued", "1", "0", "-1", "1e3", "ann", WORKER, "MDA=", "true", ""]) | TEXT,
    ),
    max_size=4,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Last-Event-ID", "Headrace-User-Id", "Content-Type", "Content-Encoding", "Accept", "X-API-Key", "Origin", "Host"]
    ),
    # Any bytes that HTTP itself lets through.
    st.binary(max_size=60).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip()),
    max_size=2,
)
NAMES = st.sampled_from(["a", "b", "scheduler", "worker_manager"]) | st.text(min_size=1, max_size=250)
PATHS = sorted(
    {route.path for route in (*ROUTES, *STREAMS)}
    | {"/tools/{name}", "/tools", "/{name}", "/jobs/{name}/{other}", "/openapi.json", MCP_PATH, *PROBES}
)
MCP_METHODS = st.sampled_from(
    [
        *("tools/call", "tools/list", "resources/read", "resources/list", "prompts/get", "tasks/get", "tasks/cancel"),
        *("tasks/update", "subscriptions/listen", "server/discover", "initialize", "ping", "notifications/cancelled"),
    ]
)
MCP_PARAMETERS = st.dictionaries(
    st.sampled_from(["name", "arguments", "uri", "taskId", "cursor", "notifications", "inputResponses"]) | TEXT,
    st.sampled_from(["scheduler", "worker_manager", "a", "job://a", {"kind": "digest", "args": {"to": ["x"]}}]) | ANYTHING,
    max_size=4,
)
MCP_STATUSES = {200, 202, 400, 401, 403, 404, 405, 406, 413, 415, 429}
"""What `/mcp` answers with: it is described by its protocol, and not by OpenAPI."""
Sent = tuple[str, str, list[tuple[str, str]], dict[str, bytes], bytes]
"""Method, path, query, headers and body."""
METHODS = st.sampled_from(["GET", "POST", "POST", "PUT", "DELETE", "PATCH"])


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    log = WrittenLog()
    engines = Engines(log)
    engines.define(kind="digest")
    engines.enqueue("a")
    only_ann = Principal(subject="ann", scopes=ALL_SCOPES - {Scope.JOBS_ACT_AS})
    async with served(log, tmp_path_factory.mktemp("gateway"), {"token": only_ann}) as made:
        yield made


@pytest.fixture(scope="module")
async def client(gateway: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.http("token") as made:
        yield made


class Receipts(set[str]):
    """The ids of jobs of which an answer said that they are there."""

    def __repr__(self) -> str:
        """Short, as that of the description."""
        return "the receipts"

    def take(self, told: Any) -> None:
        """Takes those that are in an answer."""
        if not isinstance(told, dict):
            return
        for inner in (told.get("data"), told.get("result"), told.get("structuredContent")):
            self.take(inner)
        job = told.get("job")
        found = job.get("id") if isinstance(job, dict) else told.get("jobId", told.get("taskId"))
        if isinstance(found, str):
            self.add(found)


@pytest.fixture(scope="module")
def receipts() -> Receipts:
    return Receipts()


class Description(dict[str, Any]):
    """The paths of the gateway's OpenAPI."""

    def __repr__(self) -> str:
        """Short: Hypothesis prints it with every example."""
        return "the description"


@pytest.fixture(scope="module")
def description(gateway: Served) -> Description:
    return Description(gateway.app.openapi()["paths"])


def described(description: Description, method: str, path: str, headers: Collection[str]) -> set[int]:
    """The statuses that the description names for a request; what there is no such route for is refused."""
    if path == MCP_PATH:
        return MCP_STATUSES
    if path == "/openapi.json":
        # It does not describe itself: it is had as the other description.
        path = "/tools"
    refused = {404}
    for template, operations in sorted(description.items(), key=lambda each: "{" in each[0]):
        if re.fullmatch(pattern_of(template), path):
            if method.lower() in operations:
                return {int(status) for status in operations[method.lower()]["responses"]}
            refused = {405}
    # Before it is looked what there is: who asks for descriptions has to be known, and calls from elsewhere are for nobody.
    return refused | ({401} if path in DESCRIPTIONS else set()) | ({403} if {"Origin", "Host"} & set(headers) else set())


def pattern_of(template: str) -> str:
    """What the paths of a route look like: `/` may stand in the names of conversations, and of tools."""
    parts = (
        re.escape(part) if not part.startswith("{") else "(?s:.+)" if part in {"{conversationId}", "{name}"} else "[^/]+"
        for part in template.split("/")
    )
    return "/".join(parts) + "\n?"


async def send(client: httpx.AsyncClient, description: Description, receipts: Receipts, request: Sent) -> int:
    """Sends something, checks what comes back, and tells the status."""
    method, path, query, headers, body = request
    raw = [(name.encode(), value) for name, value in headers.items()]
    content = body if method in {"POST", "PUT", "PATCH"} else None
    async with client.stream(
        method, quote(path), params=httpx.QueryParams(tuple(query)), headers=raw, content=content
    ) as response:
        kind = response.headers.get("content-type", "").partition(";")[0]
        # A stream of events goes on: that it was opened is all that is asked here.
        answer = b"" if kind == "text/event-stream" else await response.aread()
    # As it was sent: clients resolve `..` by themselves.
    path = response.request.url.path
    assert response.status_code in described(description, method, path, headers), (request, answer)
    assert response.status_code < 500, (request, answer)
    if kind == "application/problem+json":
        told = orjson.loads(answer)
        assert told["status"] == response.status_code
        assert told["code"], told
    elif path == MCP_PATH and answer == b"Invalid Content-Type header":
        # The protocol's SDK says this by itself, as plain text.
        assert response.status_code == 400
    elif path == MCP_PATH:
        told = orjson.loads(answer) if answer else {"jsonrpc": "2.0"}
        assert told["jsonrpc"] == "2.0"
        assert ("error" in told) or response.status_code in {200, 202}, (request, answer)
        receipts.take(told)
    elif path.startswith("/tools/"):
        told = orjson.loads(answer)
        assert told["ok"] is (response.status_code == 200)
        receipts.take(told)
    else:
        assert response.status_code in {200, 204}, (request, answer)
        if kind == "application/json":
            receipts.take(orjson.loads(answer))
    return response.status_code


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    path = re.sub(r"\{\w+\}", lambda _: draw(NAMES), draw(st.sampled_from(PATHS)))
    if path == MCP_PATH and draw(st.booleans()):
        headers, message = modern_request(draw(MCP_METHODS), draw(MCP_PARAMETERS), tasks=draw(st.booleans()))
        given = {name: value.encode() for name, value in headers.items() if value.isascii() and value.isprintable()}
        return "POST", path, [], given | draw(HEADERS), json.dumps(message).encode()
    return draw(METHODS), path, draw(QUERIES), draw(HEADERS), draw(BODIES)


async def check_no_job_is_lost(client: httpx.AsyncClient, gateway: Served, receipts: Receipts) -> None:
    """Everything that was accepted is there, and the gateway still works."""
    made = await client.post("/tools/scheduler", json={"kind": "digest", "args": {"to": ["x"]}})
    assert made.status_code == 200, made.text
    receipts.take(made.json())
    log = gateway.client._log
    assert isinstance(log, WrittenLog)
    accepted = {orjson.loads(record.value or b"")["id"] for record in log.cluster.topic_records(log.topics.jobs_name(WORKER))}
    shown: set[str] = set()
    query: dict[str, Any] | None = {"limit": 100, "userId": "ann"}
    while query is not None:
        page = (await client.get("/jobs", params=query)).json()
        shown |= {job["id"] for job in page["jobs"]}
        query = query | {"cursor": page["nextCursor"]} if page["nextCursor"] else None
    assert receipts, "answers are read for them"
    assert receipts <= accepted
    assert shown == accepted


SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(SETTINGS, max_examples=280)
@given(asked=requests())
async def test_anything(client: httpx.AsyncClient, description: Description, receipts: Receipts, asked: Any) -> None:
    await send(client, description, receipts, asked)


async def test_no_job_was_lost(client: httpx.AsyncClient, gateway: Served, receipts: Receipts) -> None:
    await check_no_job_is_lost(client, gateway, receipts)


@pytest.mark.long
@settings(SETTINGS, max_examples=10_000, database=None)
@given(asked=requests())
async def test_ten_thousand(client: httpx.AsyncClient, description: Description, receipts: Receipts, asked: Any) -> None:
    await send(client, description, receipts, asked)


@pytest.mark.long
async def test_no_job_was_lost_among_ten_thousand(client: httpx.AsyncClient, gateway: Served, receipts: Receipts) -> None:
    await check_no_job_is_lost(client, gateway, receipts)


# --- records ------------------------------------------------------------------------------------------------------------

CALL_IDS = itertools.count()
CALLS = st.fixed_dictionaries(
    {"name": st.sampled_from(["scheduler", "worker_manager"]) | ANYTHING, "arguments": ARGUMENTS | ANYTHING},
    optional={"context": ANYTHING, "callId": ANYTHING, "schemaVersion": ANYTHING, "more": ANYTHING},
)
RECORDS = st.tuples(
    st.binary(max_size=20),
    BODIES | CALLS.map(lambda call: json.dumps(call).encode()) | st.none(),
    st.binary(max_size=30),
)
"""Key, value and credential."""


class Topics:
    """The topics of calls and answers of a gateway that takes calls in."""

    def __init__(self, gateway: Served, ingress: KafkaIngress) -> None:
        log = gateway.client._log
        assert isinstance(log, WrittenLog)
        self.ingress = ingress
        self._log = log

    def __repr__(self) -> str:
        return "the topics"

    async def write(self, *calls: tuple[bytes, bytes | None, bytes]) -> None:
        writer = InMemoryLog(self._log.cluster).writer()
        await writer.start()
        for key, value, credential in calls:
            record = NewRecord(key, value, [("authorization", credential)])
            await writer.append(TopicPartition(self._log.topics.tool_calls().name, 0), record, timeout=10)
        await writer.stop(timeout=5)

    def answers(self) -> Sequence[StoredRecord]:
        return self._log.cluster.topic_records(self._log.topics.tool_results().name)

    async def answer_to(self, key: bytes) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                for answer in self.answers():
                    if answer.key == key:
                        found: dict[str, Any] = orjson.loads(answer.value or b"")
                        return found
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
async def topics(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Topics]:
    ingress = KafkaIngress(settings_in(tmp_path_factory.mktemp("ingress")), gateway.app.state.gateway, gateway.client)
    await ingress.start()
    yield Topics(gateway, ingress)
    await ingress.stop()


async def check_records(topics: Topics, receipts: Receipts, records: list[tuple[bytes, bytes | None, bytes]]) -> None:
    """Writes records and, behind them, a call, which is done whatever stands before it."""
    told_before = len(topics.answers())
    call_id = f"call-{next(CALL_IDS)}"
    call = {"callId": call_id, "name": "scheduler", "arguments": {"kind": "digest", "args": {"to": ["x"]}}}
    await topics.write(*records, (call_id.encode(), orjson.dumps(call), f"Bearer token{FOR_CALL}{call_id}".encode()))
    answer = await topics.answer_to(call_id.encode())
    assert answer["ok"], answer
    for record in topics.answers()[told_before:]:
        told = orjson.loads(record.value or b"")
        assert told["ok"] or (told["error"]["code"] not in {"internal_error", "configuration_error"}), told
        receipts.take(told)
    assert topics.ingress.trouble is None


MANY_RECORDS = st.lists(RECORDS, min_size=5, max_size=20)


@settings(SETTINGS, max_examples=5)
@given(records=MANY_RECORDS)
async def test_any_records(topics: Topics, receipts: Receipts, records: Any) -> None:
    await check_records(topics, receipts, records)


async def test_no_job_was_lost_beside_records(client: httpx.AsyncClient, gateway: Served, receipts: Receipts) -> None:
    await check_no_job_is_lost(client, gateway, receipts)


@pytest.mark.long
@settings(SETTINGS, max_examples=400, database=None)
@given(records=MANY_RECORDS)
async def test_thousands_of_records(topics: Topics, receipts: Receipts, records: Any) -> None:
    await check_records(topics, receipts, records)


@pytest.mark.long
async def test_no_job_was_lost_among_thousands_of_records(client: httpx.AsyncClient, gateway: Served, receipts: Receipts) -> None:
    await check_no_job_is_lost(client, gateway, receipts)
