"""The processes in which seeds run do not outlive whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.processes import alive, wait_until

OWNER = """
import os, time
from headrace.testing.simulation.seeds import process_pool

if __name__ == "__main__":
    with process_pool(2) as pool:
        # The first one is still busy when the second is wanted.
        waiting = [pool.submit(time.sleep, 0.1), pool.submit(time.sleep, 0.1)]
        for each in waiting:
            each.result()
        print(*pool._processes, flush=True)
        time.sleep(60)
"""


def test_they_end_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        workers = [int(pid) for pid in owner.stdout.readline().split()]
        try:
            assert len(workers) == 2
            assert all(map(alive, workers))
            owner.kill()
            wait_until(lambda: not any(map(alive, workers)), "they are gone")
        finally:
            owner.kill()
            for pid in filter(alive, workers):
                os.kill(pid, signal.SIGKILL)
