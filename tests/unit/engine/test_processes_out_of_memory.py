"""An attempt in a child process that takes more memory than there is: the system kills that process, and nothing else is lost.

Who may make no group of processes with a limit of memory cannot have the kernel kill one of them. There the signal that it would
send stands in for it; the test's name says which of both it was, and so does the head of the report.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.memory_cgroups import memory_cgroup, memory_cgroups_can_be_made
from support.memory_engines import Bench
from support.process_workers import Behaves
from support.processes import alive
from unit.engine.test_processes import end_of, result_of, running

MOST_BYTES = 48 * 1024 * 1024


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@contextlib.contextmanager
def killed_by_the_kernel() -> Iterator[dict[str, Any]]:
    with memory_cgroup(MOST_BYTES) as group:
        yield {"name": "takes-memory", "members": str(group.members)}
        assert group.kills() == 1, "it was the kernel, and for its memory"


@contextlib.contextmanager
def killed_by_a_signal() -> Iterator[dict[str, Any]]:
    yield {"name": "killed"}


@pytest.mark.parametrize("greedy", [killed_by_the_kernel if memory_cgroups_can_be_made() else killed_by_a_signal])
async def test_an_attempt_that_is_killed_for_its_memory_costs_itself_alone(
    bench: Bench, tmp_path: Path, greedy: Callable[[], contextlib.AbstractContextManager[dict[str, Any]]]
) -> None:
    file = tmp_path / "go"
    with greedy() as args:
        async with running(bench, Behaves()):
            beside = bench.enqueue("waits-for", args={"name": "waits-for", "file": str(file)})
            died = await result_of(bench, args["name"], args=args)
            assert died.status == "failed" and died.error is not None
            assert died.error.type == "headrace.errors.WorkerProcessDied"
            assert "was killed by signal 9 (SIGKILL), as the system does when memory runs out" in died.error.message
            assert (died.failures, died.crashes) == (1, 0)
            assert bench.statuses(beside) == ["running"], "its neighbour runs on"
            other = await result_of(bench, "pid")
            file.touch()
            kept = await end_of(bench, beside)
            assert [(each.attempt, each.status) for each in kept.attempts] == [(1, "completed")]
            assert kept.result != other.result
            assert alive(kept.result) and alive(other.result), "both go on to other jobs"
