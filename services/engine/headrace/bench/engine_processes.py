"""Engines under their supervisors as real processes, to be stopped and killed by a measurement."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class Noted:
    """A line that a job wrote: its attempt began, ended, or was stopped.

    Attributes:
        process_id: of the engine.
        parent_id: of its supervisor.
    """

    event: str
    job_id: str
    attempt: int
    process_id: int
    parent_id: int
    at: float


class Notes:
    """What the jobs wrote down, in the order of time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0
        self._all: list[Noted] = []
        self._first: dict[str, Noted] = {}

    def all(self) -> list[Noted]:
        """Everything so far; a line that is being written is left for later."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read += len(whole) + 1
                found = [self._parse(line) for line in whole.decode().splitlines()]
                self._all += found
                for noted in found:
                    if noted.event == "begin":
                        self._first.setdefault(noted.job_id, noted)
        return self._all

    @staticmethod
    def _parse(line: str) -> Noted:
        event, job_id, attempt, process_id, parent_id, at = line.split()
        return Noted(event, job_id, int(attempt), int(process_id), int(parent_id), float(at))

    def begins(self) -> dict[tuple[str, int], Noted]:
        """The beginning of each attempt, by job and number."""
        return {(noted.job_id, noted.attempt): noted for noted in self.all() if noted.event == "begin"}

    def first_begin(self, job_id: str) -> Noted | None:
        """When a job's worker first began with it. Not always as the first attempt: one may be interrupted before that."""
        self.all()
        return self._first.get(job_id)

    def running(self, process_id: int) -> dict[str, Noted]:
        """The attempts that an engine, or all engines of a supervisor, have begun and not ended, by job."""
        found: dict[str, Noted] = {}
        for noted in self.all():
            if process_id in (noted.process_id, noted.parent_id):
                if noted.event == "begin":
                    found[noted.job_id] = noted
                else:
                    found.pop(noted.job_id, None)
        return found


class SupervisedEngine:
    """`headrace engine` with one worker, under its supervisor, on the broker and namespace of the settings."""

    def __init__(self, settings: Settings, worker_path: str, log: Path, *options: str) -> None:
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
            "HEADRACE_NAMESPACE": settings.namespace,
            "HEADRACE_DATA_DIRECTORY": str(log.parent / "data"),
        }
        command = [sys.executable, "-m", "headrace", "engine", worker_path, "--no-shipped", *options]
        self._log = log
        self._begins_at = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def has_started(self) -> bool:
        """Whether its first engine runs."""
        return b" runs " in self._text()

    def _text(self) -> bytes:
        with self._log.open("rb") as file:
            file.seek(self._begins_at)
            return file.read()

    def terminate(self) -> None:
        """Asks it to end, unless it has ended."""
        self._process.send_signal(signal.SIGTERM)

    @property
    def process_id(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def kill_with_machine(self, engine: int) -> None:
        """Ends supervisor and engine at once, so that nobody says that they are gone."""
        self._process.kill()
        self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(engine, signal.SIGKILL)

    def remove(self) -> None:
        """Ends all of it, if it has not ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
