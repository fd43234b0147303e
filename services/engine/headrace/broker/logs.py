"""The end of a program's logs, for the message that says why it failed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

LINES_SHOWN = 12


class LogTail:
    """What was written to some files since a moment: logs go on across restarts, an old error explains nothing."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._starts = dict.fromkeys(paths, 0)

    def begin(self) -> None:
        """From now on only what is written later counts."""
        for path in self._starts:
            self._starts[path] = path.stat().st_size if path.exists() else 0

    def text(self) -> str:
        """The last lines of each file."""
        lines: list[str] = []
        for path, start in self._starts.items():
            with contextlib.suppress(FileNotFoundError):
                content = path.read_bytes()
                # A file that has rolled over is new from its start.
                content = content[start:] if len(content) >= start else content
                lines += content.decode("utf-8", "replace").splitlines()[-LINES_SHOWN:]
        return "\n".join(lines)
