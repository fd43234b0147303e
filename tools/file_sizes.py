"""Fails when a module is too long to be read at a sitting. `make check` runs it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

MOST_LINES = 400
FOLDERS = ("services", "tests", "tools")


def long_modules(root: Path, folders: Iterable[str] = FOLDERS) -> Iterator[tuple[Path, int]]:
    """The modules of more than 400 lines below these folders, with how many they have."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            with path.open(encoding="utf-8") as module:
                lines = sum(1 for _ in module)
            if lines > MOST_LINES:
                yield path.relative_to(root), lines


def main() -> int:
    """The exit code."""
    found = list(long_modules(Path(__file__).resolve().parent.parent))
    for path, lines in found:
        sys.stderr.write(f"{path} has {lines} lines, more than {MOST_LINES}: divide it.\n")
    if not found:
        sys.stdout.write(f"No module has more than {MOST_LINES} lines.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
