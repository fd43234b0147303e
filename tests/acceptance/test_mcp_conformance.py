"""The protocol's official conformance suite, whose fixtures are done by real jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace import Client, Settings, WorkerEngine
from headrace_gateway import GatewayServer
from support.gateway import with_gateway
from support.mcp_bench import LEGACY, MODERN, mcp_bench
from support.mcp_conformance import differences, expected_of, run_required, run_scenarios
from support.mcp_fixtures import FixtureWorker, fixture_tools

SMOKE = {
    LEGACY: ["server-initialize", "tools-call-with-progress", "resources-list"],
    MODERN: ["tasks-lifecycle", "tasks-capability-negotiation", "tools-list"],
}
TASKS = {"tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-required-task-error"}


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
async def test_some_scenarios(tmp_path: Path, revision: str) -> None:
    async with mcp_bench(tmp_path / "bench", FixtureWorker, tools=fixture_tools()) as bench:
        results = await run_scenarios(bench.url, revision, SMOKE[revision], tmp_path / "results")
    assert results.keys() == set(SMOKE[revision])
    assert differences(results, {}, complete=True) == []


@pytest.mark.long
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
async def test_all_scenarios_on_the_real_broker(settings: Settings, tmp_path: Path, revision: str) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(FixtureWorker())
    await engine.start()
    try:
        async with (
            Client(settings, view=True) as jobs,
            GatewayServer(with_gateway(settings), client=jobs, tools=fixture_tools()) as server,
        ):
            results = await run_required(f"{server.url}/mcp", revision, tmp_path / "results")
    finally:
        await engine.stop()
    assert differences(results, expected_of(revision), complete=True) == []
    if revision == MODERN:
        # What is skipped looks green: these did check something.
        assert all(any(check.fine for check in results[scenario].values()) for scenario in TASKS)
