"""`headrace dev --ephemeral`, from its start to its end: from the source tree and from the wheel it must do the same."""

from __future__ import annotations

import re

import httpx

from support.processes import processes_naming
from support.terminal import Terminal


def check_ephemeral_dev(terminal: Terminal) -> None:
    """Runs it, asks its gateway for the tools, and presses Ctrl-C.

    Raises:
        AssertionError: it did not answer or end as it should, or something is left of it.
    """
    # So that whatever lies in a temporary folder can be told from what others have there.
    terminal.environment["TMPDIR"] = str(terminal.folder)
    before = {path for path in terminal.folder.rglob("*") if path.is_file()}
    dev = terminal.start("headrace", "dev", "--ephemeral")
    dev.wait_for("Ctrl-C ends")
    gateway = re.search(r"gateway +(http://[\d.:]+)/tools", dev.output)
    assert gateway is not None, dev.output
    answer = httpx.get(f"{gateway[1]}/tools", timeout=30, trust_env=False)
    assert answer.status_code == 200
    assert {tool["name"] for tool in answer.json()["tools"]} == {"scheduler", "worker_manager"}

    assert dev.interrupt() == 0, dev.output
    assert "Traceback" not in dev.output
    assert processes_naming(terminal.folder) == []
    # Nothing is kept: neither data nor views nor temporary files.
    after = {path for path in terminal.folder.rglob("*") if path.is_file() and not path.name.startswith("output-")}
    assert after <= before
