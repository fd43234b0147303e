"""Whatever is sent to the gateway: a status that its description names, in its form, never a fault, and no job is lost."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_gateway.access import ALL_SCOPES, Principal, Scope
from headrace_gateway.http.routes import ROUTES, STREAMS
from support.served import Served, served
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
    st.sampled_from(["Last-Event-ID", "Headrace-User-Id", "Content-Type", "Content-Encoding", "Accept", "X-API-Key"]),
    # Any bytes that HTTP itself lets through.
    st.binary(max_size=60).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip()),
    max_size=2,
)
NAMES = st.sampled_from(["a", "b", "scheduler", "worker_manager"]) | st.text(min_size=1, max_size=250)
PATHS = sorted({route.path for route in (*ROUTES, *STREAMS)} | {"/tools/{name}", "/tools", "/{name}", "/jobs/{name}/{other}"})
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


class Description(dict[str, Any]):
    """The paths of the gateway's OpenAPI."""

    def __repr__(self) -> str:
        """Short: Hypothesis prints it with every example."""
        return "the description"


@pytest.fixture(scope="module")
def description(gateway: Served) -> Description:
    return Description(gateway.app.openapi()["paths"])


def described(description: Description, method: str, path: str) -> set[int]:
    """The statuses that the description names for a request; what there is no such route for is refused."""
    for template, operations in sorted(description.items(), key=lambda each: "{" in each[0]):
        pattern = "/".join("(?s:.+)" if part.startswith("{") else re.escape(part) for part in template.split("/"))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return {int(status) for status in operations[method.lower()]["responses"]}
    # Of some paths nobody is told even that, of whom it is not known who they are.
    return {401, 404, 405}


async def send(
    client: httpx.AsyncClient,
    description: Description,
    request: tuple[str, str, list[tuple[str, str]], dict[str, bytes], bytes],
) -> int:
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
    assert response.status_code in described(description, method, path) | {404, 405}, (request, answer)
    assert response.status_code < 500, (request, answer)
    if kind == "application/problem+json":
        told = orjson.loads(answer)
        assert told["status"] == response.status_code
        assert told["code"], told
    elif method == "POST" and path.startswith("/tools/"):
        told = orjson.loads(answer)
        assert told["ok"] is (response.status_code == 200)
    else:
        assert response.status_code in {200, 204}, (request, answer)
    return response.status_code


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    path = re.sub(r"\{\w+\}", lambda _: draw(NAMES), draw(st.sampled_from(PATHS)))
    return draw(METHODS), path, draw(QUERIES), draw(HEADERS), draw(BODIES)


async def check_no_job_is_lost(client: httpx.AsyncClient, gateway: Served) -> None:
    """Everything that was accepted is there, and the gateway still works."""
    log = gateway.client._log
    assert isinstance(log, WrittenLog)
    accepted = {orjson.loads(record.value or b"")["id"] for record in log.cluster.topic_records(log.topics.jobs_name(WORKER))}
    shown: set[str] = set()
    query: dict[str, Any] | None = {"limit": 100, "userId": "ann"}
    while query is not None:
        page = (await client.get("/jobs", params=query)).json()
        shown |= {job["id"] for job in page["jobs"]}
        query = query | {"cursor": page["nextCursor"]} if page["nextCursor"] else None
    assert shown == accepted
    made = await client.post("/tools/scheduler", json={"kind": "digest", "args": {"to": ["x"]}})
    assert made.status_code == 200, made.text


SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
)


@settings(SETTINGS, max_examples=300)
@given(asked=requests())
async def test_anything(client: httpx.AsyncClient, gateway: Served, description: Description, asked: Any) -> None:
    await send(client, description, asked)


async def test_no_job_was_lost(client: httpx.AsyncClient, gateway: Served) -> None:
    await check_no_job_is_lost(client, gateway)


@pytest.mark.long
@settings(SETTINGS, max_examples=10_000, database=None)
@given(asked=requests())
async def test_ten_thousand(client: httpx.AsyncClient, gateway: Served, description: Description, asked: Any) -> None:
    await send(client, description, asked)


@pytest.mark.long
async def test_no_job_was_lost_among_ten_thousand(client: httpx.AsyncClient, gateway: Served) -> None:
    await check_no_job_is_lost(client, gateway)
