"""A worker whose module a child process cannot import before a file is there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from support.process_workers import Behaves

GATE: Final = "IMPORTED_WHEN_THIS_IS_THERE"
"""The environment's variable that names the file; without it nothing is waited for."""
TOO_LATE: Final = "too-late"
"""Name of another file, beside that one: it is there when somebody has waited in vain."""
_PATIENCE_SECONDS: Final = 30.0


class ImportedLate(Behaves):
    """Does what the names of its jobs say, once it could be imported."""


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            file.with_name(TOO_LATE).touch()
            raise ImportError(f"{file} is not there after {_PATIENCE_SECONDS:g} s")
        time.sleep(0.02)


if GATE in os.environ:
    _wait_for(Path(os.environ[GATE]))
