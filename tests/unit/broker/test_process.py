"""A child process that never outlives its parent, whichever of the two, or the watchdog between them, is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.broker.process import ProcessOptions, WatchedProcess
from headrace.errors import LocalBrokerError
from support.processes import alive, freeze, wait_until

# It answers SIGTERM as it is told to, and says when it is ready to be tried.
PROGRAM = """
import signal, sys
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "orderly" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
signal.pause()
"""

PARENT = """
import signal, sys
from pathlib import Path
from headrace.broker.process import ProcessOptions, WatchedProcess
directory = Path(sys.argv[1])
watched = WatchedProcess(
    sys.argv[2:], ProcessOptions(output=directory / "output", removed=directory / "removed", grace_seconds=0.5)
)
print(watched.pid, watched.watchdog_pid, flush=True)
signal.pause()
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", PROGRAM, *arguments]


def wait_until_ready(output: Path) -> None:
    wait_until(lambda: output.exists() and "ready" in output.read_text(), "the program is up")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def started() -> Iterator[list[WatchedProcess]]:
    """Programs that a test starts; whatever it does, they are gone afterwards."""
    programs: list[WatchedProcess] = []
    yield programs
    for program in programs:
        program.kill()


def test_stop_ends_the_program_in_order(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess(command(), ProcessOptions(output=output)))
    wait_until_ready(output)
    assert started[0].poll() is None
    assert started[0].stop() == 128 + signal.SIGTERM
    assert not alive(started[0].pid)
    assert not alive(started[0].watchdog_pid)
    assert started[0].stop() == 128 + signal.SIGTERM


def test_stop_kills_what_does_not_end_in_time(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess(command("stubborn"), ProcessOptions(output=output, grace_seconds=0.2)))
    wait_until_ready(output)
    assert started[0].stop() == 128 + signal.SIGKILL


def test_stop_ends_a_frozen_program(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess(command("orderly"), ProcessOptions(output=output, grace_seconds=0.2)))
    wait_until_ready(output)
    freeze(started[0].pid)
    assert started[0].stop() == 128 + signal.SIGKILL


def test_the_end_of_the_program_is_seen(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess([sys.executable, "-c", "raise SystemExit(7)"], ProcessOptions(output=output)))
    assert started[0].wait(20) == 7


def test_a_program_that_cannot_be_started_is_an_error(output: Path) -> None:
    with pytest.raises(LocalBrokerError, match="cannot be started"):
        WatchedProcess(["/no/such/program"], ProcessOptions(output=output))
    assert "/no/such/program" in output.read_text()


@pytest.mark.parametrize("stubborn", [False, True])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, output: Path, stubborn: bool) -> None:
    (tmp_path / "removed" / "deep").mkdir(parents=True)
    arguments = command("stubborn") if stubborn else command()
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), *arguments], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        program, watchdog = map(int, parent.stdout.readline().split())
        wait_until_ready(output)
        assert alive(program)
        parent.kill()
    wait_until(lambda: not alive(program), "the program is gone")
    wait_until(lambda: not alive(watchdog), "the watchdog is gone")
    assert not (tmp_path / "removed").exists()


def test_nothing_is_left_when_a_fork_of_the_parent_lives_on(tmp_path: Path, output: Path) -> None:
    # The fork holds the pipe open: its end alone does not tell that the parent is gone.
    forking = PARENT.replace("signal.pause()", "import os\nif os.fork() == 0: print(os.getpid(), flush=True)\nsignal.pause()")
    with subprocess.Popen(
        [sys.executable, "-c", forking, str(tmp_path), *command()], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        program, _ = map(int, parent.stdout.readline().split())
        fork = int(parent.stdout.readline())
        wait_until_ready(output)
        parent.kill()
        try:
            wait_until(lambda: not alive(program), "the program is gone")
            assert alive(fork)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_nothing_is_left_when_the_watchdog_is_killed(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess(command("stubborn"), ProcessOptions(output=output)))
    wait_until_ready(output)
    os.kill(started[0].watchdog_pid, signal.SIGKILL)
    wait_until(lambda: not alive(started[0].pid), "the program is gone")


def test_the_program_outlives_the_thread_that_started_it(output: Path, started: list[WatchedProcess]) -> None:
    thread = threading.Thread(target=lambda: started.append(WatchedProcess(command(), ProcessOptions(output=output))))
    thread.start()
    thread.join()
    wait_until_ready(output)
    assert started[0].poll() is None
    assert alive(started[0].pid)


def test_the_terminals_interrupt_does_not_reach_the_program(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess(command(), ProcessOptions(output=output)))
    wait_until_ready(output)
    assert os.getpgid(started[0].pid) != os.getpgid(0)
    assert os.getsid(started[0].pid) != os.getsid(0)


def test_only_the_program_keeps_what_it_inherits(tmp_path: Path, output: Path, started: list[WatchedProcess]) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    options = ProcessOptions(output=output, inherited=(descriptor,))
    started.append(WatchedProcess(command(), options))
    os.close(descriptor)
    wait_until_ready(output)

    def holders() -> list[int]:
        return [
            pid
            for pid in (started[0].pid, started[0].watchdog_pid)
            if str(tmp_path / "lock") in {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        ]

    assert holders() == [started[0].pid]


def test_a_program_can_be_told_to_yield(output: Path, started: list[WatchedProcess]) -> None:
    started.append(WatchedProcess(command(), ProcessOptions(output=output, niceness=7)))
    wait_until_ready(output)
    assert os.getpriority(os.PRIO_PROCESS, started[0].pid) == os.getpriority(os.PRIO_PROCESS, 0) + 7
