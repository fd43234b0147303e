"""Looking for processes, and waiting for what they do, without sleeping longer than needed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 20.0) -> None:
    """Poll until the condition holds.

    Raises:
        AssertionError: it did not in time; `what` says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_SECONDS)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_naming(text: str | Path) -> list[int]:
    """The processes whose command line has the text in it: whatever was started for a directory, by whomever."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(text) in " ".join(process.info["cmdline"] or ())
    ]


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that a child prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
