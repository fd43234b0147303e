"""Whatever is sent to a tool: one of the documented statuses comes back, and the envelope, which fits it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.broker import Broker
from support.gateway import ENVELOPE, publish_workers, running_gateway, settings_for

TEXT = st.text(max_size=30)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=15
)


def of_names(names: list[str], likely: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose names are mostly right, and whose values are anything."""
    return st.dictionaries(st.sampled_from(names) | TEXT, likely | ANYTHING, max_size=6)


SCHEDULER = of_names(
    ["kind", "userId", "conversationId", "title", "content", "args", "user_id"],
    st.sampled_from(["memory_compaction", "digest", "ann", {"to": ["x"]}, {"to": [1]}, {}]),
)
MANAGER = of_names(
    ["action", "status", "workerName", "userId", "conversationId", "limit", "cursor"],
    st.sampled_from(["list_jobs", "list_workers", "queued", "send_digest", 1, 100, 101, "MDA="]),
)
DEEP = st.integers(1, 3_000).map(lambda depth: b'{"kind":"digest","args":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}")
BODIES = st.binary(max_size=300) | st.one_of(ANYTHING, SCHEDULER, MANAGER).map(lambda value: json.dumps(value).encode()) | DEEP
HEADERS = st.dictionaries(
    st.sampled_from(["Headrace-User-Id", "Headrace-Conversation-Id", "Headrace-Source"]),
    # Any bytes that HTTP itself lets through.
    st.binary(max_size=250).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip()),
    max_size=3,
)


@pytest.fixture(scope="module")
async def client(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    made = settings_for(broker, tmp_path_factory.mktemp("gateway"))
    await publish_workers(made)
    async with running_gateway(made) as opened:
        yield opened


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tool=st.sampled_from(["scheduler", "worker_manager", "other"]), body=BODIES, headers=HEADERS)
async def test_anything(client: httpx.AsyncClient, tool: str, body: bytes, headers: dict[str, bytes]) -> None:
    raw = [(name.encode(), value) for name, value in headers.items()]
    response = await client.post(f"/tools/{tool}", content=body, headers=raw)
    answer = orjson.loads(response.content)
    ENVELOPE.validate(answer)
    assert response.headers["content-type"] == "application/json"
    # 503 would mean that the caller is told to try again what can never work.
    assert response.status_code in {200, 400, 404, 413}
    assert answer["ok"] is (response.status_code == 200)
    if response.status_code == 200 and tool == "scheduler":
        listed = await client.post("/tools/worker_manager", json={"action": "list_jobs", "limit": 1})
        assert listed.json()["data"]["jobs"][0]["id"] == answer["data"]["jobId"]
