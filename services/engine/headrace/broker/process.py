"""A child process that never outlives this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import LocalBrokerError

WATCHDOG = Path(__file__).with_name("watchdog.py")
# Beyond the grace that the watchdog gives: the time in which a killed process is gone.
REAP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """How a program is run.

    Attributes:
        output: the file that takes what it prints.
        inherited: descriptors that it keeps open as long as it lives.
        removed: a directory that goes when this process dies without having said good-bye.
        niceness: added to its priority number; higher yields more.
        grace_seconds: from the request to stop until it is killed.
    """

    output: Path
    inherited: tuple[int, ...] = ()
    removed: Path | None = None
    niceness: int = 0
    grace_seconds: float = 10.0


class WatchedProcess:
    """A program under a watchdog of its own (`watchdog.py`), which stops it when this process ends, however it ends."""

    def __init__(self, command: Sequence[str], options: ProcessOptions) -> None:
        """Start the program.

        Raises:
            LocalBrokerError: it cannot be started.
        """
        self._grace_seconds = options.grace_seconds
        with options.output.open("ab") as output:
            self._watchdog = subprocess.Popen(
                _watchdog_command(command, options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                pass_fds=options.inherited,
                # Ctrl-C goes to every process of the terminal's group; the broker stops when its owner says so.
                start_new_session=True,
            )
        assert self._watchdog.stdout is not None
        with self._watchdog.stdout as answers:
            line = answers.readline()
        if not line:
            self._close()
            raise LocalBrokerError(f"{command[0]} cannot be started; {options.output} says why.")
        self.pid = int(line)

    @property
    def watchdog_pid(self) -> int:
        """The id of the process that watches over the program."""
        return self._watchdog.pid

    def poll(self) -> int | None:
        """The exit code once the program has ended (128 plus its number for a signal), else None."""
        return self._watchdog.poll()

    def request_stop(self) -> None:
        """Ask the program to end by SIGTERM, after the grace by SIGKILL, and do not wait for it."""
        self._tell(b"stop\n")

    def stop(self) -> int:
        """End the program by SIGTERM, after the grace by SIGKILL, and wait for it. Returns its exit code."""
        return self._end(b"stop\n", self._grace_seconds + REAP_SECONDS)

    def kill(self) -> int:
        """End the program by SIGKILL and wait for it. Returns its exit code."""
        return self._end(b"kill\n", REAP_SECONDS)

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait for the program to end by itself. Returns its exit code, or None when the time is over."""
        try:
            code = self._watchdog.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        self._close()
        return code

    def _end(self, request: bytes, seconds: float) -> int:
        self._tell(request)
        try:
            return self._watchdog.wait(seconds)
        except subprocess.TimeoutExpired:
            # A watchdog that does not answer is stopped or swapped out; with its end the kernel ends the program.
            self._watchdog.kill()
            return self._watchdog.wait(REAP_SECONDS)
        finally:
            self._close()
            if sys.platform != "linux" and self._watchdog.returncode < 0:
                # Only Linux ends a program whose watchdog was killed.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def _tell(self, request: bytes) -> None:
        assert self._watchdog.stdin is not None
        if self._watchdog.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.write(request)
                self._watchdog.stdin.flush()

    def _close(self) -> None:
        if self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.close()
        self._watchdog.wait(REAP_SECONDS)


def _watchdog_command(command: Sequence[str], options: ProcessOptions) -> list[str]:
    arguments = [sys.executable, "-I", "-S", str(WATCHDOG)]
    arguments += ["--parent", str(os.getpid()), "--output", str(options.output)]
    arguments += ["--nice", str(options.niceness), "--grace", str(options.grace_seconds)]
    for descriptor in options.inherited:
        arguments += ["--pass-fd", str(descriptor)]
    if options.removed is not None:
        arguments += ["--remove", str(options.removed)]
    return [*arguments, "--", *command]
