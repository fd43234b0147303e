"""Child processes end when their engine does, however it ends, and not before; a program's own workers are found by them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.processes import alive, wait_until

# Its worker stands in the program itself, as in a first attempt at headrace.
PROGRAM = """
import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from headrace import WorkerEngine, worker
from headrace.settings import load_settings
from headrace.testing import InMemoryCluster, InMemoryLog

HERE = Path(__file__).parent


@worker(executor="process", concurrency=3)
def nap(args, ctx):
    (HERE / args["name"]).write_text(str(os.getpid()))
    if args.get("holds"):
        ctypes.PyDLL(None).sleep(60)
    while not (HERE / "go").exists():
        time.sleep(0.02)
    return "slept"


async def main():
    cluster = InMemoryCluster()
    log = InMemoryLog(cluster)
    engine = WorkerEngine(load_settings(namespace="script", data_directory=HERE), log=log)
    engine.register_worker(nap)
    await engine.start()
    for name in sys.argv[1:]:
        await engine.enqueue("nap", {"name": name, "holds": name == "holds"})
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print("started", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    drained = await engine.stop(grace_seconds=40)
    snapshots = [json.loads(record.value) for record in cluster.topic_records("script.job-state") if b'"args"' in record.value]
    print(json.dumps([drained, [[snapshot["status"], snapshot.get("result")] for snapshot in snapshots]]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop

        del sys.argv[1]
        uvloop.run(main())
    asyncio.run(main())
"""


@contextmanager
def program(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, in a process group of its own; nothing of it is left at the end."""
    file = folder / "program.py"
    file.write_text(PROGRAM)
    started = subprocess.Popen([sys.executable, str(file), *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        assert started.stdout is not None
        started.stdout.close()
        started.wait(20)


def pid_of(folder: Path, name: str) -> int:
    file = folder / name
    wait_until(lambda: file.exists() and file.read_text() != "", f"the start of {name}", seconds=60)
    return int(file.read_text())


def test_children_die_with_an_engine_that_is_killed(tmp_path: Path) -> None:
    """Also one that runs nothing, and one whose interpreter nobody can reach."""
    with program(tmp_path, "naps", "holds") as engine:
        children = [pid_of(tmp_path, name) for name in ("naps", "holds")]
        assert len({*children, engine.pid}) == 3
        engine.kill()
        wait_until(lambda: not any(map(alive, children)), "the end of the children")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_is_sent_to_the_whole_group_ends_no_attempt(tmp_path: Path, loop: str) -> None:
    with program(tmp_path, *(["uvloop"] if loop == "uvloop" else []), "naps") as engine:
        child = pid_of(tmp_path, "naps")
        os.killpg(engine.pid, signal.SIGTERM)
        assert engine.stdout is not None
        assert [engine.stdout.readline().strip() for _ in range(2)] == ["started", "stopping"]
        os.killpg(engine.pid, signal.SIGINT)
        (tmp_path / "go").touch()
        drained, written = json.loads(engine.stdout.readline())
        assert drained
        assert written == [["running", None], ["completed", "slept"]], "it was let finish, in its first attempt"
        wait_until(lambda: not alive(child), "the end of the child")


def test_a_signal_that_comes_while_a_child_starts_does_not_end_it(tmp_path: Path) -> None:
    with program(tmp_path, "naps") as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline().strip() == "started"
        wait_until(lambda: bool(children_of(engine.pid)), "the start of the child", seconds=60)
        [child] = children_of(engine.pid)
        os.kill(child, signal.SIGTERM)
        assert pid_of(tmp_path, "naps") == child


def children_of(pid: int) -> list[int]:
    return [each.pid for each in psutil.Process(pid).children()]
