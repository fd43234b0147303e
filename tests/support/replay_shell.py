"""`headrace replay job`, as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from headrace import Settings

COMMAND = [sys.executable, "-m", "headrace", "replay", "job"]


class Shell:
    """Runs `headrace replay job` on the workers of a file, as a user does."""

    def __init__(self, settings: Settings, folder: Path, workers: str) -> None:
        self._settings = settings
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.write(workers)

    @property
    def file(self) -> Path:
        return self.folder / "shop.py"

    def write(self, workers: str) -> None:
        self.file.write_text(textwrap.dedent(workers))

    def replay(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """What it prints, when it ends with this exit code."""
        done = self._run(*arguments, stdin=stdin)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def debugged(self, *arguments: str, stdin: str) -> subprocess.CompletedProcess[str]:
        """What comes of it when this is typed in."""
        return self._run(*arguments, stdin=stdin)

    def export(self, file: str) -> None:
        """Exports the last hour."""
        exported = [sys.executable, "-m", "headrace", "export", "--from", "1h", "--output", file]
        subprocess.run(exported, cwd=self.folder, env=self.environment, check=True, capture_output=True, timeout=120)

    def refused(self, *arguments: str) -> str:
        """The one line that it says in refusing something."""
        done = self._run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begins to run it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=self.folder, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def _run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What its commands see."""
        variables = {
            "KAFKA_BOOTSTRAP_SERVERS": self._settings.bootstrap_servers or "",
            "HEADRACE_NAMESPACE": self._settings.namespace,
            "HEADRACE_DATA_DIRECTORY": str(self._settings.data_directory),
            "HEADRACE_LOG_LEVEL": "ERROR",
            "COLUMNS": "200",
        }
        return {**os.environ, **variables}
