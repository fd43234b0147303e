"""Chaos for a minute, as `make chaos` does it for five and more; and that nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from support.processes import alive, processes_naming, wait_until

TESTS = Path(__file__).parents[1]


def chaos(*options: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


@pytest.mark.long
def test_a_minute_of_chaos_breaks_no_promise(tmp_path: Path) -> None:
    run = chaos("--minutes", "1", "--seed", "3", "--json", str(tmp_path / "chaos.json"), "--keep", str(tmp_path / "run"))
    output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    report = json.loads((tmp_path / "chaos.json").read_text())
    assert report["passed"] is True
    verdict = report["verdict"]
    assert (verdict["lost"], verdict["overlaps"]) == ([], [])
    assert verdict["accepted"] >= 2_000
    assert sum(verdict["faults"].values()) >= 3
    assert "passed" in output
    assert processes_naming(tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_broken_off(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    with ExitStack() as stack:
        run = chaos("--minutes", "1", "--json", str(tmp_path / "chaos.json"), "--keep", str(folder))
        stack.callback(run.communicate)
        stack.callback(run.kill)
        ledger = folder / "ledger.jsonl"
        wait_until(lambda: ledger.exists() and ledger.stat().st_size > 0, "the first job runs", seconds=120)
        mine = _children_of(run.pid)
        assert len(mine) > 5, "three brokers, three engines and a loader"
        run.send_signal(number)
        assert run.wait(120) == (-signal.SIGKILL if number is signal.SIGKILL else 130)
        wait_until(lambda: not any(alive(pid) for pid in mine), "whatever it had started is gone", seconds=60)
    assert not (tmp_path / "chaos.json").exists()


def _children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
