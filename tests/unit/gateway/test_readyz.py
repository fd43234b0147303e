"""`/readyz` of a gateway that answers calls by record: ready when it takes them in, and only while it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace import Client, load_settings
from headrace.errors import BrokerUnreachable
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import consumer
from headrace.views import on_demand
from headrace_gateway import Gateway, GatewayServer
from support.broken_members import break_members
from support.log import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("quick")


@asynccontextmanager
async def gateway(folder: Path, log: InMemoryLog, **ingress: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway over a cluster in memory, and a client of it."""
    settings = load_settings(
        bootstrap_servers="memory:9092",
        data_directory=folder,
        namespace="test",
        gateway={"port": 0},
        ingress={"enabled": True, **ingress},
    )
    async with (
        Client(settings, log=log, view=True) as client,
        GatewayServer(settings, client=client, gateway=Gateway(settings, client)) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http,
    ):
        yield http


async def until_ready(http: httpx.AsyncClient, status: int, detail: str) -> None:
    """Returns when `/readyz` answers so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            response = await http.get("/readyz")
            body = response.json()
            assert body["ready"] is (response.status_code == 200)
            if response.status_code == status and detail in body["detail"]:
                return
            await asyncio.sleep(0.02)


async def test_it_is_ready_when_the_group_has_let_it_in(tmp_path: Path) -> None:
    log = InMemoryLog(InMemoryCluster())
    log.cut_off_from_groups()
    async with gateway(tmp_path, log) as http:
        await until_ready(http, 503, "tool calls are not taken in from test.tool-calls: the group has not let it in yet")
        # All else works meanwhile.
        assert (await http.get("/tools")).status_code == 200
        log.reconnect()
        await until_ready(http, 200, "up to date")


async def test_nobody_is_told_that_it_is_ready_before_the_ingress_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[httpx.Response] = []
    start = consumer.ToolCallConsumer.start

    async def ask_first(self: consumer.ToolCallConsumer) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            # The server listens by now; the view has caught up when it speaks of nothing but calls.
            while not asked or "tool calls" not in asked[-1].json()["detail"]:
                async with httpx.AsyncClient(base_url=url.result(), trust_env=False, timeout=60) as http:
                    asked.append(await http.get("/readyz"))
        await start(self)

    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(consumer.ToolCallConsumer, "start", ask_first)
    monkeypatch.setattr("headrace_gateway.server._url", lambda listener: _told(url, listener))
    async with gateway(tmp_path, InMemoryLog(InMemoryCluster())) as http:
        await until_ready(http, 200, "up to date")
    assert {response.status_code for response in asked} == {503}


def _told(url: asyncio.Future[str], listener: Any) -> str:
    url.set_result(f"http://127.0.0.1:{listener.getsockname()[1]}")
    return url.result()


async def test_a_group_that_cannot_be_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_PROBE_SECONDS", 0.05)
    log = InMemoryLog(InMemoryCluster())
    async with gateway(tmp_path, log) as http:
        await until_ready(http, 200, "up to date")
        log.refuse_requests(BrokerUnreachable("nothing answers at memory:9092"))
        await until_ready(http, 503, "the group cannot be reached: nothing answers at memory:9092")
        log.accept_requests()
        await until_ready(http, 200, "up to date")


async def test_an_ingress_that_ends_by_itself_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = break_members(monkeypatch)
    async with gateway(tmp_path, InMemoryLog(InMemoryCluster()), tenants="acme") as http:
        await until_ready(http, 200, "up to date")
        broken.set()
        await until_ready(http, 503, "it has ended by itself: RuntimeError('nobody expected this')")


async def test_a_gateway_without_an_ingress_needs_none(tmp_path: Path) -> None:
    log = InMemoryLog(InMemoryCluster())
    log.cut_off_from_groups()
    async with gateway(tmp_path, log, enabled=False) as http:
        await until_ready(http, 200, "up to date")


async def test_brokers_that_do_not_answer_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are away a fetch finds nothing, as it does when nothing happens."""
    monkeypatch.setattr(on_demand, "_ASK_SECONDS", 0.02)
    monkeypatch.setattr(on_demand, "_ANSWER_SECONDS", 0.2)
    log = InMemoryLog(InMemoryCluster())
    async with gateway(tmp_path, log, enabled=False) as http:
        await until_ready(http, 200, "up to date")
        log.cut_off()
        await until_ready(http, 503, "the brokers do not answer: nothing came within 0.2 s.")
        log.reconnect()
        await until_ready(http, 200, "up to date")
