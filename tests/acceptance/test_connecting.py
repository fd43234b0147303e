"""The configurations of docs/gateway.md are done as they are written: each connects, finds the tools, and calls one.

What differs are addresses, keys and files, and the model: it is one that calls a tool and says what was answered.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from headrace import Settings, WorkerEngine
from headrace.broker import Broker
from headrace.settings import IngressSettings
from headrace_gateway import GatewayServer
from support.access import running_issuer
from support.gateway import publish_workers, settings_for, with_gateway
from support.markdown import ROOT, blocks
from support.mcp_bench import StepsWorker
from support.mcp_clients import python_environment, run
from support.model_api import model_api

PAGE = ROOT / "docs" / "gateway.md"
GATEWAY, BROKERS = "http://127.0.0.1:8787", "127.0.0.1:9092"
TOOLS = {"scheduler", "worker_manager"}
STEPS = {"kind": "steps", "wait": 20}
SAID = "Tidy up what you remember of this conversation."


class Served:
    """A gateway that asks for keys, with an engine behind it.

    Attributes:
        key: one that counts.
    """

    def __init__(self, settings: Settings, url: str, key: str) -> None:
        self.settings = settings
        self.url = url
        self.key = key

    @property
    def environment(self) -> dict[str, str]:
        """What a program is started with."""
        return {
            "HEADRACE_API_KEY": self.key,
            "HEADRACE_GATEWAY_AUTHENTICATION": "required",
            "HEADRACE_NAMESPACE": self.settings.namespace,
            "HEADRACE_DATA_DIRECTORY": str(self.settings.data_directory / "host"),
        }


@pytest.fixture(scope="module")
async def served(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    settings = settings_for(broker, tmp_path_factory.mktemp("connecting"))
    settings = with_gateway(settings, authentication="required")
    worker = StepsWorker()
    worker.may_end.set()
    engine = WorkerEngine(settings)
    engine.register_worker(worker)
    await engine.start()
    made = await run(
        [sys.executable, "-m", "headrace", "keys", "create", "host", "--all-users"],
        environment={"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "HEADRACE_NAMESPACE": settings.namespace},
    )
    try:
        async with GatewayServer(settings) as server:
            yield Served(settings, server.url, made.strip())
    finally:
        await engine.stop()


def check_done(answered: Any) -> None:
    """That the answer of `scheduler` has come, with the job at its end."""
    found = re.search(r'\{\\*"scheduled.*\}', answered if isinstance(answered, str) else json.dumps(answered))
    assert found is not None, answered
    text = found[0]
    assert re.search(r'"steps\\*":\s*2', text), answered


async def called(client: McpClient) -> None:
    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    check_done((await client.call_tool("scheduler", STEPS)).structured_content)


def claude_commands(served: Served) -> list[list[str]]:
    """The two commands for Claude Code, with this gateway's address and key."""
    [block] = blocks(PAGE, "bash")[:1]
    lines = [line for line in block.code.splitlines() if line.startswith("claude mcp add")]
    brokers = served.settings.bootstrap_servers or ""
    made = [line.replace(GATEWAY, served.url).replace(BROKERS, brokers) for line in lines]
    return [shlex.split(line.replace("$HEADRACE_API_KEY", served.key)) for line in made]


async def test_claude_code_over_http(served: Served) -> None:
    command, _ = claude_commands(served)
    assert command[:7] == ["claude", "mcp", "add", "--transport", "http", "headrace", f"{served.url}/mcp"]
    assert command[7] == "--header" and len(command) == 9
    name, _, value = command[8].partition(": ")
    async with (
        httpx2.AsyncClient(headers={name: value}, timeout=60, trust_env=False) as http,
        McpClient(streamable_http_client(command[6], http_client=http)) as client,
    ):
        await called(client)


async def test_claude_code_over_stdio(served: Served) -> None:
    _, command = claude_commands(served)
    at = command.index("--")
    assert command[:4] == ["claude", "mcp", "add", "headrace"] and command[4] == "--env" and at == 6
    given = dict([command[5].split("=", 1)])
    await by_process(command[at + 1 :], {**served.environment, **given})


async def test_a_host_with_a_file_of_servers(served: Served) -> None:
    [block] = [each for each in blocks(PAGE, "json") if "mcpServers" in each.code]
    [server] = json.loads(block.code)["mcpServers"].values()
    assert server["env"] == {"KAFKA_BOOTSTRAP_SERVERS": BROKERS, "HEADRACE_API_KEY": "the key"}
    environment = {
        **served.environment,
        "KAFKA_BOOTSTRAP_SERVERS": served.settings.bootstrap_servers or "",
        "HEADRACE_API_KEY": served.key,
    }
    await by_process([server["command"], *server["args"]], environment)


async def by_process(command: list[str], environment: dict[str, str]) -> None:
    """Starts what a host would start, and speaks with it."""
    path = str(Path(sys.executable).parent)
    server = StdioServerParameters(command=command[0], args=command[1:], env={**environment, "PATH": f"{path}:/usr/bin:/bin"})
    async with McpClient(server, read_timeout_seconds=60) as client:
        await called(client)


@pytest.mark.parametrize(("file", "environment"), [("openai_agent.py", "current"), ("langgraph_agent.py", "langchain")])
async def test_an_agent(served: Served, tmp_path: Path, file: str, environment: str) -> None:
    [block] = [each for each in blocks(PAGE, "python") if each.file == file]
    script = tmp_path / file
    script.write_text(block.code.replace(GATEWAY, served.url))
    assert GATEWAY in block.code and SAID in block.code
    with model_api("scheduler", STEPS) as model:
        printed = await run(
            [str(python_environment(environment)), str(script)],
            environment={
                "HEADRACE_API_KEY": served.key,
                "OPENAI_API_KEY": "nobody asks",
                "OPENAI_BASE_URL": model.url,
                "OPENAI_AGENTS_DISABLE_TRACING": "1",
            },
        )
    assert [set(tools) for tools in model.offered] == [TOOLS, TOOLS]
    check_done(printed)


async def test_a_kafka_producer(settings: Settings, tmp_path: Path) -> None:
    [block] = [each for each in blocks(PAGE, "python") if each.file == "call_by_record.py"]
    script = tmp_path / "call_by_record.py"
    script.write_text(block.code)
    await publish_workers(settings)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "HEADRACE_NAMESPACE": settings.namespace,
        "CALL_ID": "call-1",
    }
    with running_issuer() as issuer:
        asking = with_gateway(settings).model_copy(update={"auth": issuer.settings(), "ingress": IngressSettings(enabled=True)})
        async with GatewayServer(asking):
            token = issuer.token(sub="ann", callId="call-1")
            answered = json.loads(await run([sys.executable, str(script)], environment={**environment, "CALL_TOKEN": token}))
            refused = await run([sys.executable, str(script)], environment={**environment, "CALL_ID": "call-2"})
    shown = re.search(r"It prints `(.*?)`", PAGE.read_text())
    assert shown is not None
    assert set(re.findall(r'"(\w+)"', shown[1])) <= {*answered, *answered["data"]}
    assert (answered["callId"], answered["ok"], answered["data"]["scheduled"]) == ("call-1", True, True)
    assert json.loads(refused)["error"]["code"] == "unauthenticated"
