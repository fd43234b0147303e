"""The protocol over standard input and output: a host starts `headrace mcp`, as hosts do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters

from headrace import Settings, WorkerEngine
from headrace.broker import Broker
from support.gateway import settings_for
from support.mcp_bench import LEGACY, MODERN, StepsWorker
from support.mcp_clients import node_client, run

INSPECTOR = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


@pytest.fixture(scope="module")
async def served(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    """A broker with an engine that does what is scheduled."""
    settings = settings_for(broker, tmp_path_factory.mktemp("stdio"))
    worker = StepsWorker()
    worker.may_end.set()
    engine = WorkerEngine(settings)
    engine.register_worker(worker)
    await engine.start()
    try:
        yield settings
    finally:
        await engine.stop()


def environment(settings: Settings) -> dict[str, str]:
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "HEADRACE_NAMESPACE": settings.namespace,
        "HEADRACE_DATA_DIRECTORY": str(settings.data_directory / "host"),
    }
    return {**given, **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}}


@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), ("auto", MODERN)])
async def test_the_official_client_over_stdio(served: Settings, mode: str, version: str) -> None:
    server = StdioServerParameters(command=sys.executable, args=["-m", "headrace", "mcp"], env=environment(served))
    async with McpClient(server, mode=mode, read_timeout_seconds=60) as client:
        assert client.protocol_version == version
        assert {tool.name for tool in (await client.list_tools()).tools} == {"scheduler", "worker_manager"}
        result = await client.call_tool("scheduler", {"kind": "steps", "wait": 30})
    assert (result.structured_content or {})["job"]["result"] == {"steps": 2}


async def test_the_inspectors_command_line_over_stdio(served: Settings, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    config = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": ["-m", "headrace", "mcp"], "env": environment(served)}
    config.write_text(json.dumps({"mcpServers": {"headrace": server}}))
    inspector = [*node_client(INSPECTOR), "--cli", "--config", str(config), "--server", "headrace"]
    listed = json.loads(await run([*inspector, "--method", "tools/list"], environment=home))
    assert {tool["name"] for tool in listed["tools"]} == {"scheduler", "worker_manager"}
    call = [*inspector, "--method", "tools/call", "--tool-name", "scheduler", "--tool-arg", "kind=steps", "wait=30"]
    assert json.loads(await run(call, environment=home))["structuredContent"]["job"]["result"] == {"steps": 2}
