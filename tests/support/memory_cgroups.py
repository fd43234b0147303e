"""Groups of processes with a limit of memory: the kernel kills who takes more, as it does when a machine's memory runs out.

Only who may make such a group can test that: on Linux root, as a rule, also in many containers.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from support.processes import wait_until

_MOUNTS = Path("/proc/self/mounts")


class _Names(NamedTuple):
    """What a kernel calls its files. In the first version the limit of memory must be there before that of memory and swap."""

    memory: str
    swap: str
    swap_counts_memory: bool
    kills: str


_VERSIONS = {
    "cgroup": _Names("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", True, "memory.oom_control"),
    "cgroup2": _Names("memory.max", "memory.swap.max", False, "memory.events"),
}


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    """A group whose processes share a limit of memory.

    Attributes:
        members: the file into which a process writes its id to belong to it.
    """

    members: Path
    _kills: Path

    def kills(self) -> int:
        """How many processes of it the kernel has killed for their memory."""
        counts = dict(line.split() for line in self._kills.read_text().splitlines())
        return int(counts["oom_kill"])


@contextlib.contextmanager
def memory_cgroup(most_bytes: int) -> Iterator[MemoryCgroup]:
    """A group with so much memory, which is gone when its processes are.

    Raises:
        OSError: none may be made here.
    """
    parent, names = _place()
    folder = parent / f"headrace-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        (folder / names.memory).write_text(str(most_bytes))
        if (swap := folder / names.swap).exists():
            swap.write_text(str(most_bytes if names.swap_counts_memory else 0))
        yield MemoryCgroup(folder / "cgroup.procs", folder / names.kills)
    finally:
        # A process that was just waited for may still be counted.
        wait_until(lambda: _removed(folder), f"{folder} is empty")


@cache
def memory_cgroups_can_be_made() -> bool:
    """Whether this process may make a group, and limit it."""
    try:
        with memory_cgroup(2**26):
            return True
    except OSError:
        return False


def _place() -> tuple[Path, _Names]:
    """Where groups are made that limit memory.

    Raises:
        OSError: there is no such place.
    """
    for line in _MOUNTS.read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(folder), _VERSIONS[kind]
        if kind == "cgroup2" and "memory" in (Path(folder) / "cgroup.subtree_control").read_text().split():
            return Path(folder), _VERSIONS[kind]
    raise FileNotFoundError("no groups here limit memory")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
