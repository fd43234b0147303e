"""`headrace broker`, and how the processes of one folder come to use one broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.broker import BrokerRequest, LocalBrokerOptions, provide_broker
from headrace.broker.readiness import describe_cluster
from headrace.settings import load_settings
from support.processes import processes_naming, read_line, wait_until

COMMAND = [sys.executable, "-c", "from headrace.cli.broker import application; application()"]

USER = """
import sys
from headrace.broker import provide_broker
from headrace.settings import load_settings
print("ready", flush=True)
sys.stdin.readline()
with provide_broker(load_settings()) as broker:
    print(broker.kind, broker.bootstrap_servers, flush=True)
    sys.stdin.readline()
"""


class Folder:
    """A user's folder: commands run in it, and whatever they leave is ended with the test."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.note_file = path / ".headrace" / "broker.json"
        self._stack = stack
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"KAFKA_BOOTSTRAP_SERVERS", "HEADRACE_DATA_DIRECTORY"}
        }

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=self.path,
            env=self._environment | environment,
            start_new_session=True,
        )
        self._stack.callback(started.communicate)
        self._stack.callback(started.kill)
        return started

    def broker(self, *arguments: str) -> subprocess.Popen[str]:
        """`headrace broker` with the arguments, once it has said that it is there."""
        started = self.start([*COMMAND, *arguments])
        lines = [read_line(started) for _ in range(3)]
        assert lines[1].startswith("address: "), lines
        return started

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`headrace broker` with the arguments, to its end."""
        started = self.start([*COMMAND, *arguments], **environment)
        output, errors = started.communicate(timeout=60)
        return subprocess.CompletedProcess(started.args, started.returncode, output, errors)

    @property
    def note(self) -> dict[str, str]:
        loaded: dict[str, str] = json.loads(self.note_file.read_text())
        return loaded


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with ExitStack() as stack:
        yield Folder(tmp_path, stack)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_runs_a_broker_until_it_is_told_to_stop(folder: Folder, number: signal.Signals) -> None:
    started = folder.broker()
    description = describe_cluster(folder.note["bootstrap_servers"], timeout_seconds=30)
    assert description is not None
    assert description.cluster_id == folder.note["cluster_id"]
    assert folder.note["data_directory"] == str(folder.path / ".headrace" / "broker")
    # To the whole group, as a terminal does it.
    os.killpg(started.pid, number)
    output, errors = started.communicate(timeout=60)
    assert started.returncode == 0
    assert "Traceback" not in errors
    assert "has ended" in output
    assert not folder.note_file.exists()
    assert processes_naming(folder.path) == []
    assert (folder.path / ".headrace" / "broker" / "cluster-id").exists()


def test_the_command_stops_while_it_starts(folder: Folder) -> None:
    started = folder.start(COMMAND)
    wait_until(lambda: processes_naming(folder.path) != [], "Java is starting")
    started.send_signal(signal.SIGINT)
    output, errors = started.communicate(timeout=60)
    assert started.returncode == 0
    assert "Traceback" not in errors
    assert "address" not in output
    wait_until(lambda: processes_naming(folder.path) == [], "Java and its watchdog are gone")


def test_the_command_ends_when_its_broker_does(folder: Folder) -> None:
    started = folder.broker()
    for pid in processes_naming(folder.path / ".headrace" / "broker" / "node-1" / "server.properties"):
        os.kill(pid, signal.SIGKILL)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    assert "ended by itself" in errors


def test_a_second_command_finds_the_first_ones_broker(folder: Folder) -> None:
    first = folder.broker("--ephemeral")
    address = folder.note["bootstrap_servers"]
    assert not (folder.path / ".headrace" / "broker").exists()
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)

    first = folder.broker()
    address = folder.note["bootstrap_servers"]
    second = folder.run()
    assert second.returncode == 0
    assert f"running: local at {address}" in second.stdout
    assert folder.note["bootstrap_servers"] == address
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)


def test_a_broker_after_one_that_was_killed_takes_what_is_asked_of_its_nodes(folder: Folder) -> None:
    first = folder.broker()
    address = folder.note["bootstrap_servers"]
    first.kill()
    first.communicate(timeout=60)
    wait_until(lambda: processes_naming(folder.path) == [], "Java and its watchdog are gone")
    assert folder.note["bootstrap_servers"] == address, "nobody was there to take the note away"
    second = folder.broker()
    assert folder.note["bootstrap_servers"] == address
    assert int(folder.note["pid"]) == second.pid
    status = folder.run("status")
    assert f"run by process {second.pid}" in status.stdout, status.stderr
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=60)
    assert not folder.note_file.exists()


def test_a_broker_that_others_do_not_find_says_so(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder.broker()
    published = folder.note
    second = folder.start([*COMMAND, "--ephemeral"])
    lines = [read_line(second) for _ in range(3)]
    assert lines[0].startswith("local: "), lines
    assert "by its address alone" in lines[2]
    assert folder.note == published
    # What measures takes the folder's broker before one of its own.
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    request = BrokerRequest(options=LocalBrokerOptions(ephemeral=True), published=False, running_first=True)
    with provide_broker(load_settings(data_directory=folder.path / ".headrace"), request) as taken:
        assert (taken.kind, taken.bootstrap_servers) == ("running", published["bootstrap_servers"])
    for each in (second, first):
        each.send_signal(signal.SIGTERM)
        each.communicate(timeout=60)


def test_a_folder_that_cannot_be_used_is_named(folder: Folder) -> None:
    (folder.path / ".headrace").write_text("a file")
    result = folder.run("--ephemeral")
    assert result.returncode == 2
    assert str(Path(".headrace") / "broker.json") in result.stderr
    assert "HEADRACE_DATA_DIRECTORY" in result.stderr
    assert "Traceback" not in result.stderr
    assert processes_naming(folder.path) == []

    node = folder.path / "data" / "node-1"
    node.mkdir(parents=True)
    (node / "server.properties").mkdir()
    result = folder.run("--data-directory", "data")
    assert result.returncode == 2
    assert str(node) in result.stderr
    assert "--data-directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_says_that_a_named_broker_needs_no_start(folder: Folder) -> None:
    result = folder.run(KAFKA_BOOTSTRAP_SERVERS="named.example:9092")
    assert result.returncode == 0
    assert "external: named.example:9092" in result.stdout
    assert "nothing to start" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ephemeral", "--data-directory", "elsewhere"], "leave out --data-directory"),
        (["--data-directory", "a,b"], "no comma"),
        (["--data-directory", "/proc/none"], "cannot be used"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(folder: Folder, arguments: list[str], message: str) -> None:
    result = folder.run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_four_processes_at_once_share_one_broker(folder: Folder) -> None:
    users = [folder.start([sys.executable, "-c", USER]) for _ in range(4)]
    assert [read_line(user) for user in users] == ["ready"] * 4
    for user in users:
        assert user.stdin is not None
        user.stdin.write("go\n")
    taken = [read_line(user).split() for user in users]
    assert sorted(kind for kind, _ in taken) == ["local", "running", "running", "running"]
    assert len({address for _, address in taken}) == 1
    # Those that only use it can end without it.
    for user, (kind, _) in sorted(zip(users, taken, strict=True), key=lambda pair: pair[1][0] == "local"):
        user.communicate("done\n", timeout=60)
        assert user.returncode == 0
        assert (describe_cluster(taken[0][1], timeout_seconds=30) is None) is (kind == "local")
    assert processes_naming(folder.path) == []
