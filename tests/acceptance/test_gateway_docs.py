"""docs/tools.md: its example as it is written there, and nothing is left out."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import headrace_gateway
from headrace import ClosedModel, SchedulerArguments, Settings, WorkerManagerArguments, WorkerSummary
from headrace_gateway import GatewayServer, ToolRegistry
from headrace_gateway.http.answers import STATUSES
from headrace_gateway.tools.formats import ToolFormat
from support.gateway import data_of, publish_workers, refusal_code, with_gateway

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()


async def test_a_tool_of_ones_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await publish_workers(settings)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    answers: list[httpx.Response] = []

    async def run_and_call(given: Settings, *, tools: ToolRegistry) -> None:
        async with (
            GatewayServer(with_gateway(given), tools=tools) as server,
            httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client,
        ):
            await client.post("/tools/scheduler", json={"kind": "digest", "args": {"to": ["x"]}})
            answers.append(await client.post("/tools/count_jobs", json={"workerName": "send_digest"}))
            answers.append(await client.post("/tools/count_jobs", json={"workerName": "nobody"}))

    monkeypatch.setattr(headrace_gateway, "run_gateway", run_and_call)
    namespace: dict[str, Any] = {}
    exec(compile(code, "docs/tools.md", "exec", dont_inherit=True), namespace)
    async with asyncio.timeout(60):
        await namespace["main"](settings)
    assert data_of(answers[0]) == {"jobs": 1}
    assert (answers[1].status_code, refusal_code(answers[1])) == (400, "worker_unknown")


def test_every_code_of_the_table_of_statuses_is_documented_under_its_status() -> None:
    rows = {int(row[0]): row[1] for row in re.findall(r"^\| (\d{3}) \|(.*)\|$", PAGE, flags=re.MULTILINE)}
    assert set(rows) == {200, 400, 401, 403, 404, 409, 413, 429, 503}
    for code, status in STATUSES.items():
        assert f"`{code}`" in rows[status], code


@pytest.mark.parametrize("model", [SchedulerArguments, WorkerManagerArguments])
def test_every_argument_of_a_tool_is_named_in_its_section(model: type[ClosedModel]) -> None:
    name = "scheduler" if model is SchedulerArguments else "worker_manager"
    [section] = re.findall(rf"^## `{name}`\n(.*?)^## ", PAGE, flags=re.DOTALL | re.MULTILINE)
    code = " ".join(re.findall(r"`([^`]+)`", section))
    missing = [field.alias or name for name, field in model.model_fields.items() if not _named(field.alias or name, code)]
    assert missing == []


def _named(argument: str, code: str) -> bool:
    return re.search(rf"\b{argument}\b", code) is not None


def test_all_that_a_list_of_workers_tells_and_all_forms_of_definitions_are_named() -> None:
    code = " ".join(re.findall(r"`([^`]+)`", PAGE))
    told = [field.alias or name for name, field in WorkerSummary.model_fields.items()]
    plain = {"name", "description", "category", "kind"}
    assert [name for name in told if name not in plain and not _named(name, code)] == []
    assert [form for form in ToolFormat if f"format={form}`" not in PAGE] == []


async def test_definitions_are_as_they_are_described(settings: Settings) -> None:
    await publish_workers(settings)
    rows = dict(re.findall(r"^\| `GET (/tools\?format=[\w-]+)` \|[^`\n]*(?:`(.*?)`)?", PAGE, flags=re.MULTILINE))
    async with (
        GatewayServer(with_gateway(settings)) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        shown = {path: (await client.get(path)).json()["tools"][0] for path in rows}
        strict = (await client.get("/tools?format=openai&strict=true")).json()["tools"][0]["function"]
    names = set(re.findall(r'"(\w+)"', rows["/tools?format=anthropic"]))
    assert set(shown["/tools?format=anthropic"]) == names
    function = shown["/tools?format=openai"]["function"]
    assert set(re.findall(r'"(\w+)"', rows["/tools?format=openai"])) == {"type", "function", *function}
    assert shown["/tools?format=openai-responses"] == {"type": "function", **function}
    assert "inputSchema" in shown["/tools?format=mcp"]
    assert (strict["strict"], strict["parameters"]["additionalProperties"]) == (True, False)
    assert set(strict["parameters"]["required"]) == set(strict["parameters"]["properties"])
