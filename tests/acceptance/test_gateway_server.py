"""The gateway as a process: how it starts, says that it is ready, does without a broker for a while, and ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace import BrokerError, Client, ClosedModel, ConfigurationError, Settings, WireModel, load_settings
from headrace.broker import LocalBrokerOptions, start_local_broker
from headrace_gateway import Caller, GatewayServer, ToolAnnotations, ToolDefinition, built_in_tools, create_app
from support.gateway import data_of, publish_workers, refusal_code, running_gateway, with_gateway
from support.gateway_process import address_of, gateway_process

MEMORY = {"kind": "memory_compaction", "userId": "ann", "conversationId": "c"}


class NoArguments(ClosedModel):
    """Nothing."""


class Done(WireModel):
    """Nothing."""


class SlowTool:
    """A tool whose calls end when they are let go.

    Attributes:
        entered: set when a call has begun.
        let_go: set it to end all calls.
    """

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()

    async def handle(self, arguments: NoArguments, caller: Caller) -> Done:
        self.entered.set()
        await self.let_go.wait()
        return Done()

    def registry(self) -> Any:
        tools = built_in_tools()
        tools.register(
            ToolDefinition(
                name="slow",
                description="For tests.",
                arguments=NoArguments,
                answers=(Done,),
                annotations=ToolAnnotations(read_only=True),
                handler=self.handle,
            )
        )
        return tools


async def test_stopping_ends_what_was_accepted_and_accepts_no_more(settings: Settings) -> None:
    slow = SlowTool()
    server = GatewayServer(with_gateway(settings), tools=slow.registry())
    await server.start()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
        call = asyncio.create_task(client.post("/tools/slow"))
        await slow.entered.wait()
        server.request_stop()
        await refused_connection(server.url)
        stopped = asyncio.create_task(server.wait())
        await asyncio.wait({stopped}, timeout=0.5)
        assert not call.done()
        assert not stopped.done()
        slow.let_go.set()
        assert data_of(await call) == {}
    await server.stop()
    await server.stop()


async def refused_connection(url: str) -> None:
    """Waits until nothing listens at the address."""
    address = httpx.URL(url)
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(address.host, address.port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                # It was waiting to be accepted when the listener was closed.
                continue
            writer.close()


async def test_a_port_that_is_taken_is_told_with_what_to_do(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = GatewayServer(with_gateway(settings, port=taken.getsockname()[1]))
        with pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1.*--port"):
            await server.start()
    await server.stop()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
async def test_an_address_that_is_not_ours_is_told(settings: Settings, host: str) -> None:
    with pytest.raises(ConfigurationError, match="--host"):
        await GatewayServer(with_gateway(settings, host=host, authentication="required")).start()


async def test_ipv6(settings: Settings) -> None:
    async with (
        GatewayServer(with_gateway(settings, host="::1")) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client,
    ):
        assert server.url.startswith("http://[::1]:")
        assert (await client.get("/healthz")).status_code == 200


async def test_beyond_loopback_it_starts_only_if_it_asks_who_calls(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_GATEWAY_AUTHENTICATION=required"):
        await GatewayServer(with_gateway(settings, host="0.0.0.0")).start()
    async with GatewayServer(with_gateway(settings, host="0.0.0.0", authentication="required")) as server:
        assert server.url.startswith("http://0.0.0.0:")
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            refused = await client.post("/tools/worker_manager", json={"action": "list_workers"})
    assert (refused.status_code, refusal_code(refused)) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == 'Bearer realm="headrace"'


async def test_it_is_ready_when_its_view_has_caught_up(settings: Settings) -> None:
    view_client = Client(settings, view=True)
    async with (
        GatewayServer(with_gateway(settings), client=view_client) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        before = await client.get("/readyz")
        assert (before.status_code, before.json()["ready"]) == (503, False)
        assert before.json()["detail"]
        assert (await client.get("/healthz")).status_code == 200
        async with view_client:
            async with asyncio.timeout(20):
                while (after := await client.get("/readyz")).status_code != 200:
                    assert after.json()["behind"] >= 0
            assert (after.json()["ready"], after.json()["behind"]) == (True, 0)


async def test_the_application_alone_starts_and_stops_a_client_of_its_own(settings: Settings) -> None:
    await publish_workers(settings)
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        data_of(await client.post("/tools/scheduler", json=MEMORY))


async def test_without_a_broker_it_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    settings = load_settings(
        bootstrap_servers=f"127.0.0.1:{port}", data_directory=tmp_path, kafka={"connect_timeout_seconds": 0.5}
    )
    with pytest.raises(BrokerError, match=str(port)):
        await GatewayServer(with_gateway(settings)).start()


async def test_a_broker_that_goes_away_is_503_until_it_is_back(tmp_path: Path) -> None:
    broker = await asyncio.to_thread(start_local_broker, tmp_path / "broker")
    try:
        settings = load_settings(bootstrap_servers=broker.bootstrap_servers, data_directory=tmp_path / "data")
        await publish_workers(settings)
        async with running_gateway(settings, enqueue_timeout_seconds=2) as client:
            # The first job's queue is made, too, which takes a broker that has just started longer than a job may take here.
            deadline = time.monotonic() + 60
            while (first := await client.post("/tools/scheduler", json=MEMORY)).status_code == 503:
                assert time.monotonic() < deadline
            data_of(first)
            await asyncio.to_thread(broker.stop)
            response = await client.post("/tools/scheduler", json=MEMORY)
            assert response.status_code == 503
            assert refusal_code(response) in {"enqueue_timeout", "broker_unavailable"}
            # The queue of a worker that was never given a job has to be made first.
            started = time.monotonic()
            response = await client.post("/tools/scheduler", json={"kind": "digest", "args": {"to": ["x"]}})
            assert response.status_code == 503
            assert refusal_code(response) in {"enqueue_timeout", "broker_unavailable"}
            assert time.monotonic() - started < 25, "it waits no longer than it was told to"
            response = await client.post("/tools/scheduler", json={"kind": "gardening"})
            assert (response.status_code, refusal_code(response)) == (400, "kind_unknown")
            assert (await client.get("/healthz")).status_code == 200
            # What it shows may be old by now, and it says so.
            deadline = time.monotonic() + 60
            while (ready := await client.get("/readyz")).status_code != 503:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert ready.json()["ready"] is False
            listed = data_of(await client.post("/tools/worker_manager", json={"action": "list_jobs"}))
            assert len(listed["jobs"]) >= 1
            port = int(broker.bootstrap_servers.rpartition(":")[2])
            broker = await asyncio.to_thread(start_local_broker, tmp_path / "broker", LocalBrokerOptions(port=port))
            deadline = time.monotonic() + 60
            while (again := await client.post("/tools/scheduler", json=MEMORY)).status_code != 200:
                assert again.status_code == 503
                assert time.monotonic() < deadline
            while (await client.get("/readyz")).status_code != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(broker.stop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_runs_until_a_signal(settings: Settings, number: signal.Signals) -> None:
    async with gateway_process(settings, "--port", "0") as process:
        url = await address_of(process)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            assert len((await client.get("/tools")).json()["tools"]) == 2
        process.send_signal(number)
        async with asyncio.timeout(20):
            _, log = await process.communicate()
        assert process.returncode == 0
        # Its address was printed; of the course of its libraries nobody needs to know.
        assert url.encode() not in log
        assert b"uvicorn" not in log and b"mcp.server" not in log


async def test_the_command_says_what_is_wrong_and_ends_with_2(settings: Settings) -> None:
    soon = {"HEADRACE_KAFKA_CONNECT_TIMEOUT_SECONDS": "0.5"}
    async with gateway_process(settings, "--port", "0", "--bootstrap-servers", "127.0.0.1:1", **soon) as process:
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode == 2
        assert b"127.0.0.1:1" in errors
        assert b"Traceback" not in errors
