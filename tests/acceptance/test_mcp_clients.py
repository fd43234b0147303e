"""Clients that others wrote list the tools, and call both."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.mcp_bench import LEGACY, MODERN, McpBench, mcp_bench
from support.mcp_clients import answers, node_client, python_client, run

INSPECTOR = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
TOOLS = {"scheduler", "worker_manager"}


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[McpBench]:
    async with mcp_bench(tmp_path_factory.mktemp("bench")) as bench:
        bench.worker.may_end.set()
        yield bench


def check_called(scheduled: dict[str, Any], looked: dict[str, Any]) -> None:
    """That a job was scheduled and has ended, and that its worker is known."""
    assert (scheduled["job"]["status"], scheduled["job"]["result"]) == ("completed", {"steps": 2})
    assert [worker["name"] for worker in looked["workers"]] == ["steps"]


@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), ("auto", MODERN)])
async def test_the_official_typescript_client(bench: McpBench, mode: str, version: str) -> None:
    got = await answers([*node_client("client.mjs"), bench.url, mode])
    assert got["version"] == version
    assert {tool["name"] for tool in got["tools"]} == TOOLS
    check_called(got["scheduled"]["structuredContent"], got["listed"]["structuredContent"])
    assert "arguments_invalid" in got["refused"]["content"][0]["text"] and got["refused"]["isError"]
    assert got["unknown"] == -32602
    assert "ask scheduler" in got["instructions"]
    assert got["read"]["contents"][0]["mimeType"] == "application/json"
    assert any(each["uri"].startswith("job://") for each in got["resources"])
    assert [prompt["name"] for prompt in got["prompts"]] == ["background_work"]


@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), ("auto", MODERN)])
async def test_the_official_typescript_client_is_told_of_limits(tmp_path: Path, mode: str, version: str) -> None:
    async with mcp_bench(tmp_path, limits={"calls_per_second": 0.01, "burst": 1}) as bench:
        got = await answers([*node_client("limits.mjs"), bench.url, mode])
    first, *refused = got["seen"]
    assert got["version"] == version
    assert [worker["name"] for worker in first["structuredContent"]["workers"]] == ["steps"]
    assert len(refused) == 2
    for error, (status, seconds) in zip(refused, got["statuses"][-2:], strict=True):
        # A hundred seconds after the first call, of which some have passed.
        assert (error["data"]["status"], status) == (429, 429) and 1 <= int(seconds) <= 100
        assert json.loads(error["data"]["text"])["error"]["data"] == {"code": "rate_limited", "retryAfter": int(seconds)}


async def test_the_inspectors_command_line(bench: McpBench, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    inspector = [*node_client(INSPECTOR), "--cli", bench.url]
    # Strict: it fails at a schema that some host could not use.
    listed = json.loads(await run([*inspector, "--method", "tools/list", "--strict"], environment=home))
    assert {tool["name"] for tool in listed["tools"]} == TOOLS
    call = [*inspector, "--method", "tools/call", "--tool-name"]
    scheduled = json.loads(await run([*call, "scheduler", "--tool-arg", "kind=steps", "wait=20"], environment=home))
    looked = json.loads(await run([*call, "worker_manager", "--tool-arg", "action=list_workers"], environment=home))
    check_called(scheduled["structuredContent"], looked["structuredContent"])


@pytest.mark.parametrize(("environment", "name"), [("current", "fastmcp"), ("current", "agents"), ("langchain", "langchain")])
async def test_a_client_in_python(bench: McpBench, environment: str, name: str) -> None:
    got = await answers([*python_client(environment, name), bench.url])
    assert set(got["tools"]) == TOOLS
    check_called(got["scheduled"], got["looked"])
