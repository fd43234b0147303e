"""Paths that a route takes for its own though they are another text: whoever writes them comes no further by it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from headrace_gateway.access import ALL_SCOPES, Principal
from support.access import RememberedAudit
from support.gateway import refusal_code
from support.served import served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

KNOWN = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}


@pytest.mark.parametrize("path", ["/tools", "/tools%0A", "/tools%0a?format=openai", "/openapi.json", "/openapi.json%0A"])
async def test_a_stranger_reads_no_description(log: WrittenLog, tmp_path: Path, path: str) -> None:
    audit = RememberedAudit()
    async with served(log, tmp_path, KNOWN, audit=audit) as gateway, gateway.http() as stranger:
        for method in ("GET", "HEAD"):
            assert (await stranger.request(method, path)).status_code == 401
    assert audit.outcomes == ["unauthenticated"] * 2


@pytest.mark.parametrize("name", ["%0A", "a%0Ab", "scheduler%0A", "%0Ascheduler", "a/%0A/b", "%E2%80%A8"])
async def test_the_call_of_any_name_is_answered_with_the_envelope(log: WrittenLog, tmp_path: Path, name: str) -> None:
    audit = RememberedAudit()
    async with (
        served(log, tmp_path, KNOWN, audit=audit) as gateway,
        gateway.http() as stranger,
        gateway.http("ann") as ann,
    ):
        refused = await stranger.post(f"/tools/{name}", json={})
        assert (refused.status_code, refusal_code(refused)) == (401, "unauthenticated")
        unknown = await ann.post(f"/tools/{name}", json={})
        assert (unknown.status_code, refusal_code(unknown)) == (404, "tool_unknown")
    assert audit.outcomes == ["unauthenticated", "tool_unknown"]


async def test_a_conversation_may_be_called_anything_that_can_be_read(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    entry = {"entries": [{"id": "1", "role": "user", "content": "x"}]}
    async with served(log, tmp_path, KNOWN) as gateway, gateway.http("ann") as ann:
        for name in ("a/b", "a%2F%2Fb", "%E2%80%A8", "a%20b", "%F0%9F%9A%82"):
            assert (await ann.post(f"/memory/{name}/entries?userId=ann", json=entry)).json()["added"] == 1
            assert len((await ann.get(f"/memory/{name}/entries?userId=ann")).json()["entries"]) == 1


async def test_a_stranger_reads_no_description_where_the_application_is_a_part_of_another(
    log: WrittenLog, tmp_path: Path
) -> None:
    async with served(log, tmp_path, KNOWN) as gateway:
        whole = Starlette(routes=[Mount("/jobs-of-agents", app=gateway.app)])
        transport = httpx.ASGITransport(whole)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/jobs-of-agents") as client:
            for path in ("/tools", "/openapi.json"):
                assert (await client.get(path)).status_code == 401
                assert (await client.get(path, headers={"X-API-Key": "ann"})).status_code == 200


async def test_what_is_refused_of_a_description_is_audited_so(log: WrittenLog, tmp_path: Path) -> None:
    audit = RememberedAudit()
    async with served(log, tmp_path, KNOWN, audit=audit) as gateway, gateway.http("ann") as ann:
        for method, path, status in (("GET", "/tools", 200), ("GET", "/tools?format=x", 400), ("POST", "/tools", 405)):
            assert (await ann.request(method, path)).status_code == status
    assert audit.outcomes == ["ok", "arguments_invalid", "method_not_allowed"]
