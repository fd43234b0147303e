"""A small program that runs one other program and never leaves it behind.

    python watchdog.py [--nice N] [--remove DIRECTORY] [--grace SECONDS] [--pass-fd N] --output FILE -- command ...

It is started by its path, with the standard library alone, so that it costs a few milliseconds. It prints the process id
of the program, then obeys lines on its standard input: `stop` (SIGTERM, then SIGKILL after the grace), `kill` (SIGKILL).
When the standard input ends, or its parent is gone, it stops the program and removes the directory. When it is killed
itself, the kernel kills the program (on Linux). It ends with the program's exit code, or 128 plus a signal's number.

A program whose parent died cannot be asked to clean up, and a request to the kernel to be killed at a parent's death acts
on the death of the *thread* that started it; so neither the parent nor the program can do this alone.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT_CHECK_SECONDS = 0.25
# Nobody waits for an orphan's result any more.
ORPHAN_GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--remove", type=Path)
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("--pass-fd", type=int, action="append", default=[])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    # Signals meant for the parent's terminal or service manager are the parent's to answer; it tells us by the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    program = _start(options)
    for descriptor in options.pass_fd:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # the parent may be gone already
        os.write(1, f"{program.pid}\n".encode())
    orphaned = _watch(program, wake_read, options)
    code = program.wait()
    if orphaned and options.remove is not None:
        shutil.rmtree(options.remove, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _start(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    watchdog = os.getpid()
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if options.nice:
            os.nice(options.nice)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if library is not None:
            library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != watchdog:  # it died before the request was made
                os._exit(1)

    with options.output.open("ab") as output:
        return subprocess.Popen(
            options.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=options.pass_fd,
            preexec_fn=prepare,  # noqa: PLW1509 - this program has no threads
        )


def _watch(program: subprocess.Popen[bytes], wake: int, options: argparse.Namespace) -> bool:
    """Obey until the program has ended. Returns whether the parent was gone by then."""
    orphaned = False
    kill_at: float | None = None
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    while program.poll() is None:
        ready = {key.fd for key, _ in selector.select(PARENT_CHECK_SECONDS)}
        if wake in ready:
            os.read(wake, 512)
        commands = os.read(0, 512) if 0 in ready else None
        if not orphaned and (commands == b"" or os.getppid() != options.parent):
            orphaned = True
            selector.unregister(0)
            program.terminate()
            kill_at = time.monotonic() + min(options.grace, ORPHAN_GRACE_SECONDS)
            commands = None
        for command in (commands or b"").split():
            if command == b"kill":
                program.kill()
            elif command == b"stop" and kill_at is None:
                program.terminate()
                kill_at = time.monotonic() + options.grace
        if kill_at is not None and time.monotonic() >= kill_at:
            program.kill()
    return orphaned or os.getppid() != options.parent


if __name__ == "__main__":
    sys.exit(main())
