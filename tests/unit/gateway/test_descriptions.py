"""What the gateway says of itself: the kinds of work that there are now, and what a description that fails is audited as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import BrokerUnreachable, WorkerDefinition
from headrace_gateway.access import ALL_SCOPES, Principal
from support.access import RememberedAudit
from support.jobs import DIGEST_WORKER, InMemoryJobs
from support.served import Served, served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

RENAMED = DIGEST_WORKER.model_copy(
    update={"name": "a_new_name", "arguments_schema": {"type": "object", "properties": {"recipients": {"type": "array"}}}}
)
OTHER = DIGEST_WORKER.model_copy(update={"name": "other", "kind": "other"})


def with_workers(gateway: Served, monkeypatch: pytest.MonkeyPatch, *definitions: WorkerDefinition, **live: int) -> None:
    """Has the gateway know these workers, and who runs them."""
    jobs = InMemoryJobs(definitions=list(definitions), live=live)
    monkeypatch.setattr(gateway.client, "worker_definitions", jobs.worker_definitions)
    monkeypatch.setattr(gateway.client, "list_workers", jobs.list_workers)


async def kinds(client: Any) -> list[str]:
    document = (await client.get("/openapi.json")).json()
    found: list[str] = document["components"]["schemas"]["scheduler.arguments"]["properties"]["kind"]["enum"]
    return found


async def test_openapi_lists_the_kinds_that_there_are_now(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        with_workers(gateway, monkeypatch, DIGEST_WORKER)
        assert await kinds(client) == ["digest", "memory_compaction"]
        with_workers(gateway, monkeypatch, DIGEST_WORKER, OTHER)
        assert await kinds(client) == ["digest", "memory_compaction", "other"]
        manager = (await client.get("/openapi.json")).json()["components"]["schemas"]["worker_manager.arguments"]
        assert manager == gateway.app.openapi()["components"]["schemas"]["worker_manager.arguments"]


@pytest.mark.parametrize("live", ["send_digest", "a_new_name"])
async def test_of_two_workers_of_a_kind_the_arguments_are_shown_of_the_one_that_is_taken(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: str
) -> None:
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        with_workers(gateway, monkeypatch, DIGEST_WORKER, RENAMED, **{live: 1})
        tools = (await client.get("/tools")).json()["tools"]
        [scheduler] = [tool for tool in tools if tool["name"] == "scheduler"]
        [shown, _] = scheduler["inputSchema"]["properties"]["args"]["anyOf"]
        assert next(iter(shown["properties"])) == ("to" if live == "send_digest" else "recipients")


async def test_a_description_that_fails_is_audited_as_what_was_answered(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(**_: object) -> dict[str, WorkerDefinition]:
        raise BrokerUnreachable("gone")

    audit = RememberedAudit()
    tokens = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
    async with served(log, tmp_path, tokens, audit=audit) as gateway, gateway.http("ann") as client:
        monkeypatch.setattr(gateway.client, "worker_definitions", unreachable)
        for path in ("/tools", "/openapi.json"):
            failed = await client.get(path)
            assert (failed.status_code, failed.json()["code"], audit.outcomes[-1]) == (503, *["broker_unavailable"] * 2), path
        assert (await client.get("/tools?format=none")).status_code == 400
        assert audit.outcomes[-1] == "arguments_invalid"
        assert (await client.post("/openapi.json")).status_code == 405
        assert audit.outcomes[-1] == "method_not_allowed"


async def test_probes_are_answered_whatever_page_asks(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    headers = {"origin": "https://evil.example"}
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        for path in ("/healthz", "/readyz"):
            described = gateway.app.openapi()["paths"][path]["get"]["responses"]
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.status_code in map(int, described)) == (200, True)
        assert (await client.get("/tools", headers=headers)).status_code == 403
        gateway.app.state.needs.append(lambda: "the reason")
        assert "the reason" in (await client.get("/readyz")).text
        assert "the reason" not in (await client.get("/readyz", headers=headers)).text, "no page is told more than a stranger"
