"""`headrace bench`: each measurement runs to its end and says what it found. What it finds is no matter of a test."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from headrace.broker import Broker
from headrace.cli.main import application

KEYS = {
    "engine --jobs 1000 --rounds 1": {"jobs", "rounds", "jobs_per_second", "bare_per_second", "ratio"},
    "enqueue --seconds 0.5 --many 1000": {
        "calls_per_second", "bare_per_second", "ratio", "jobs_per_second", "many_bare_per_second", "many_ratio",
    },
    "latency --jobs 100 --per-second 200": {
        "jobs", "start_ms_p50", "start_ms_p99", "bare_ms_p50", "bare_ms_p99", "ratio", "ratio_p99",
    },
    "view --jobs 1000": {
        "jobs", "records", "records_per_second", "bare_per_second", "ratio", "page_ms_p50", "page_ms_p99", "pages", "bytes",
    },
}  # fmt: skip


@pytest.mark.parametrize("command", KEYS)
def test_a_measurement_is_one_json_object_on_the_last_line(broker: Broker, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    result = CliRunner().invoke(application, ["bench", *command.split(), "--json"])
    assert result.exit_code == 0, result.output
    assert "external: " in result.stderr
    measured = json.loads(result.stdout.splitlines()[-1])
    assert set(measured) == KEYS[command]
    assert all(value > 0 for value in measured.values() if isinstance(value, int | float))
