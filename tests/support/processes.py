"""Looking for processes, and waiting for what they do, without sleeping longer than needed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def freeze(pid: int) -> None:
    """Stops a process where it is, until `SIGCONT`; one that has just ended stands still, too.

    `kill` comes back before that has happened: on a busy machine other threads of the process run on for as long as
    the one that takes the signal waits for its turn, and answer what they are asked meanwhile.
    """
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _stands_still(pid), f"process {pid} stands still")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that stands still meanwhile."""
    try:
        freeze(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    threads = [thread.id for thread in psutil.Process(pid).threads()] if psutil.LINUX else [pid]
    try:
        return all(psutil.Process(each).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) for each in threads)
    except psutil.NoSuchProcess:  # a thread that has ended meanwhile: others may run
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
