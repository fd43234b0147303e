"""Commands as a user types them: in a folder of their own, with what was installed on the path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from support.processes import alive, wait_until

START_SECONDS = 60.0


class Command:
    """A command that runs.

    Attributes:
        process: its process; `process.pid` leads a group of its own, as in a terminal.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, environment: dict[str, str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, text: str, *, seconds: float = START_SECONDS) -> None:
        """Returns when the text was printed.

        Raises:
            AssertionError: it was not in time, or the command ended before.
        """
        wait_until(lambda: text in self.output or self.process.poll() is not None, f"{text!r} in {self.output}", seconds=seconds)
        assert text in self.output, f"ended with {self.process.returncode}: {self.output}"

    def interrupt(self, *, seconds: float = 60.0) -> int:
        """Presses Ctrl-C, which reaches the whole group, and returns the exit code. Nothing that it started is left.

        Raises:
            AssertionError: a process that it had started lives on.
        """
        family = [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))]
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(seconds)
        wait_until(lambda: not any(alive(pid) for pid in family), f"processes {family} are gone", seconds=10)
        return code


class Terminal:
    """A folder to type commands in.

    Attributes:
        folder: where they run.
        environment: what they see: the caller's environment without any broker or data directory, so that they find their own.
    """

    def __init__(self, folder: Path, *, programs: Path | None = None) -> None:
        """
        Args:
            programs: the folder that comes first on the path; the one with this Python's programs when left out.
        """
        unset = {"KAFKA_BOOTSTRAP_SERVERS", "HEADRACE_DATA_DIRECTORY", "HEADRACE_NAMESPACE", "PYTHONPATH", "VIRTUAL_ENV"}
        path = f"{programs or Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name not in unset} | {
            "PATH": path,
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
        }
        self._started: list[Command] = []

    def start(self, *arguments: str) -> Command:
        """Starts a command."""
        output = self.folder / f"output-{len(self._started)}.txt"
        command = Command(arguments, self.folder, self.environment, output)
        self._started.append(command)
        return command

    def run(self, *arguments: str, seconds: float = START_SECONDS) -> str:
        """Runs a command to its end and returns what it printed.

        Raises:
            AssertionError: its exit code is not 0.
        """
        command = self.start(*arguments)
        code = command.process.wait(seconds)
        assert code == 0, f"{arguments} ended with {code}: {command.output}"
        return command.output

    def close(self) -> None:
        """Kills what runs on."""
        for command in self._started:
            if command.process.poll() is None:
                os.killpg(command.process.pid, signal.SIGKILL)
                command.process.wait()


@contextmanager
def opened_terminal(folder: Path, *, programs: Path | None = None) -> Iterator[Terminal]:
    """A terminal whose commands end with the block, whatever happens in it."""
    terminal = Terminal(folder, programs=programs)
    try:
        yield terminal
    finally:
        terminal.close()
