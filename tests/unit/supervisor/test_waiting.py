"""A supervisor that has killed an engine waits for its end, however long the system takes to end it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import alive, wait_until

LOOKS = 3

# Its engine ends at the third look after it was killed: one with much memory, or one that waits for a disk, takes its time, too.
SUPERVISOR = f"""
import os, selectors, signal, sys
from headrace.supervisor import supervisor

looks = []

class Selector(selectors.DefaultSelector):
    def select(self, timeout=None):
        late = [child for child in made._children if child.is_late]
        if late:
            looks.append(timeout)
            if len(looks) == {LOOKS}:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(late[0].pid, signal.SIGKILL)
        return super().select(timeout)

selectors.DefaultSelector = Selector
supervisor._END_SECONDS = 0.0
supervisor.EngineChild.kill_group = lambda child: child.exit_code is not None
made = supervisor.Supervisor([sys.executable, *sys.argv[1:]], [], [sys.executable, "-c", ""], 1)
made.run()
print(looks)
"""

ENGINE = """
import json, os, signal, sys
from pathlib import Path

signal.alarm(60)  # if the test fails
signal.signal(signal.SIGTERM, signal.SIG_IGN)
file, told, report_to = Path(sys.argv[1]), sys.argv[2], int(sys.argv[4].split(",")[1])
os.write(report_to, told.encode() + b"\\n")
file.write_text(str(os.getpid()))
while True:
    signal.pause()
"""


@pytest.mark.parametrize("told", [{"until": 0.0}, {"grace": 0.0}], ids=["its-lease-is-over", "it-does-not-end"])
def test_it_does_not_look_again_and_again(tmp_path: Path, told: dict[str, float]) -> None:
    engine, file = tmp_path / "engine.py", tmp_path / "pid"
    engine.write_text(ENGINE)
    command = [sys.executable, "-c", SUPERVISOR, str(engine), str(file), json.dumps(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        try:
            wait_until(lambda: file.exists() and file.read_text() != "", "the engine runs")
            if "grace" in told:
                supervisor.send_signal(signal.SIGTERM)
            said, _ = supervisor.communicate(timeout=30)
        finally:
            supervisor.kill()
    looks = json.loads(said)
    assert len(looks) >= LOOKS and min(looks[:LOOKS]) > 0.1, "it waits, and the end of a process wakes it"
    assert not alive(int(file.read_text()))
