"""`headrace bench`: each measurement runs to its end and says what it found. What it finds is no matter of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from headrace.bench import gateway
from headrace.broker import Broker
from headrace.cli.main import application
from headrace.errors import HeadraceError
from headrace.kafka.log import KafkaLog
from headrace.settings import Settings

BENCH = ("-m", "headrace", "bench")
GATEWAY = "gateway --agents 5 --seconds 0.5 --rounds 1"
OF_GATEWAY = {
    "agents", "seconds", "rounds", "view_jobs", "calls_per_second", "p50_ms", "p99_ms", "microseconds_per_call",
    "bare_calls_per_second", "bare_p50_ms", "bare_p99_ms", "bare_microseconds_per_call", "ratio", "layers",
    "view_process_microseconds_per_call",
}  # fmt: skip
OF_FULL_VIEW = {
    "view_calls_per_second", "view_p50_ms", "view_p99_ms", "view_microseconds_per_call", "view_ratio",
    "view_view_process_microseconds_per_call",
}  # fmt: skip
KEYS = {
    "engine --jobs 1000 --rounds 1": {"jobs", "rounds", "jobs_per_second", "bare_per_second", "ratio"},
    "enqueue --seconds 0.5 --many 1000": {
        "calls_per_second", "bare_per_second", "ratio", "jobs_per_second", "many_bare_per_second", "many_ratio",
    },
    GATEWAY: OF_GATEWAY,
    "latency --jobs 100 --per-second 200": {
        "jobs", "start_ms_p50", "start_ms_p99", "bare_ms_p50", "bare_ms_p99", "ratio", "ratio_p99",
    },
    "view --jobs 1000": {
        "jobs", "records", "records_per_second", "bare_per_second", "ratio", "page_ms_p50", "page_ms_p99", "pages", "bytes",
    },
    "recovery --records 1000 --rounds 1": {
        "records", "empty_ms_p50", "empty_ms_max", "tail_ms", "tail_start_ms", "bare_ms", "ratio",
        "without_ms", "without_start_ms", "long_ms", "long_start_ms",
    },
    "replay --jobs 1000 --rounds 1": {
        "jobs", "rounds", "scanned_per_second", "bare_per_second", "ratio", "replayed_per_second",
    },
    "waiting --jobs 500 --seconds 0.5": {
        "jobs", "seconds_each", "at_once", "elapsed_seconds", "before_megabytes", "peak_megabytes",
    },
}  # fmt: skip


@pytest.mark.parametrize("command", KEYS)
def test_a_measurement_is_one_json_object_on_the_last_line(broker: Broker, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measured_by(broker, command, monkeypatch)
    assert set(measured) == KEYS[command]
    assert measured.pop("view_jobs", 0) == 0
    assert all(value > 0 for value in measured.values() if isinstance(value, int | float))


@pytest.mark.long
def test_a_gateway_is_measured_with_a_full_view_too(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measured_by(broker, f"{GATEWAY} --view-jobs 1000", monkeypatch)
    assert set(measured) == OF_GATEWAY | OF_FULL_VIEW
    assert all(value > 0 for value in measured.values() if isinstance(value, int | float))


def measured_by(broker: Broker, command: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a measurement tells in this process."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    if command.startswith("recovery"):  # which waits for the end of one
        monkeypatch.setenv("HEADRACE_ENGINE_LEASE_SECONDS", "4")
    result = CliRunner().invoke(application, ["bench", *command.split(), "--json"])
    assert result.exit_code == 0, result.output
    assert "external: " in result.stderr
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return told


async def test_a_gateway_whose_calls_are_refused_fails_the_measurement_and_leaves_nothing(
    broker: Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "call_body", lambda _: b'{"kind":"none of that name"}')
    log, before = KafkaLog(settings), set(psutil.Process().children(recursive=True))
    try:
        topics = await log.topic_names()
        with pytest.raises(HeadraceError, match=r"calls of gateway were not accepted: .*kind_unknown"):
            await gateway.measure_gateway(settings, agents=2, seconds=0.5, rounds=1, say=lambda _: None)
        assert set(psutil.Process().children(recursive=True)) - before == set()
        assert await log.topic_names() <= topics
    finally:
        await log.close()


# The jobs end when all of them run, however long it takes until they do.
TOGETHER = """
import asyncio
import json

from headrace.bench import waiting
from headrace.settings import load_settings


class Together(waiting.Waiter):
    def __init__(self, jobs, seconds):
        super().__init__(jobs, seconds)
        self.all_run = asyncio.Event()

    async def run(self, args, ctx):
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == self.concurrency:
            self.all_run.set()
        await self.all_run.wait()
        return {"answer": "It depends."}


waiting.Waiter = Together
print(json.dumps(asyncio.run(waiting.measure_waiting(load_settings(), jobs=10_000, seconds=0.0, say=lambda _: None))))
"""


def measured_apart(broker: Broker, *arguments: str) -> Any:
    """What a measurement in a process of its own finds, of which the memory is its own too."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_ten_thousand_jobs_wait_at_once_in_one_engine_in_less_than_a_gigabyte(broker: Broker) -> None:
    measured = measured_apart(broker, "-c", TOGETHER)
    assert measured["at_once"] == 10_000
    assert measured["peak_megabytes"] < 1_000


@pytest.mark.long
def test_ten_thousand_jobs_that_wait_at_once_take_little_longer_than_one(broker: Broker) -> None:
    measured = measured_apart(broker, *BENCH, *["waiting", "--jobs", "10000", "--seconds", "30", "--json"])
    assert measured["at_once"] == 10_000
    assert measured["peak_megabytes"] < 1_000
    assert measured["elapsed_seconds"] < 65, "one after another they would take days"


@pytest.mark.long
def test_a_take_over_takes_no_longer_than_promised(broker: Broker) -> None:
    measured = measured_apart(broker, *BENCH, "recovery", "--json")
    assert measured["records"] == 100_000
    assert measured["empty_ms_p50"] < 100
    assert measured["tail_ms"] < 5_000
    assert measured["long_ms"] < measured["without_ms"] + 500
    assert measured["long_start_ms"] < measured["without_start_ms"] + 500
