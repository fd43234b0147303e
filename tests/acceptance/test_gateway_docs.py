"""The example of docs/tools.md, as it is written there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import headrace_gateway
from headrace import Settings
from headrace_gateway import GatewayServer, ToolRegistry
from headrace_gateway.http.answers import STATUSES
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
