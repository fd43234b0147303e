"""`headrace bench failover` measures real processes, and ends all of them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from headrace.broker import Broker
from headrace.cli.main import application
from support.processes import processes_naming


@pytest.mark.long
def test_it_says_how_long_work_stands_still(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    result = CliRunner().invoke(application, ["bench", "failover", "--rounds", "1", "--no-machine", "--json"])
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout.splitlines()[-1])
    assert measured["restart_jobs"] > 0 and measured["restart_short_attempts"] > 0 and measured["killed_jobs"] > 0
    # How quick it was is a matter of the machine; that nothing was lost is not.
    assert measured["restart_short_passed"] and measured["jobs_passed"], measured
    told = [line for line in result.stderr.splitlines() if "the aim is" in line]
    assert len(told) == 2 and "a machine was lost, supervisor and engine: not measured" in result.stderr, result.stderr
    assert processes_naming("headrace.bench.failover_worker") == []
