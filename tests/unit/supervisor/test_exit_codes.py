"""The exit code of a supervisor, as its engines end. They are small programs here, which tell what engines tell."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPERVISOR = """
import sys
from headrace.supervisor.supervisor import Supervisor
sys.exit(Supervisor([sys.executable, *sys.argv[1:]], [], [sys.executable, "-c", ""], 1).run())
"""

# It takes one signal. Before the second comes, it has left the handling of signals to the system, as an engine that ends does.
ENGINE = """
import json, os, signal, sys
from pathlib import Path

folder, says_farewell = Path(sys.argv[1]), sys.argv[2] == "True"
report_to = int(sys.argv[4].split(",")[1])

def tell(**fields):
    os.write(report_to, json.dumps(fields).encode() + b"\\n")

def end(*_):
    if says_farewell:
        tell(farewell=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (folder / "ending").touch()

signal.signal(signal.SIGTERM, end)
tell(engine={"topic": "job-state"}, ready=True)
(folder / "running").touch()
while True:
    signal.pause()
"""


def appears(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} has not come"
        time.sleep(0.01)


@pytest.mark.parametrize(("says_farewell", "exit_code"), [(True, 0), (False, 128 + signal.SIGTERM)])
def test_a_further_signal_to_an_engine_that_has_ended_in_order_changes_nothing(
    tmp_path: Path, says_farewell: bool, exit_code: int
) -> None:
    engine = tmp_path / "engine.py"
    engine.write_text(ENGINE)
    command = [sys.executable, "-c", SUPERVISOR, str(engine), str(tmp_path), str(says_farewell)]
    with subprocess.Popen(command) as supervisor:
        try:
            appears(tmp_path / "running")
            supervisor.send_signal(signal.SIGTERM)
            appears(tmp_path / "ending")
            supervisor.send_signal(signal.SIGTERM)
            assert supervisor.wait(60) == exit_code
        finally:
            supervisor.kill()
