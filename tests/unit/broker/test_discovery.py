"""Which broker a process of this folder uses."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.broker import BrokerRequest, LocalBrokerOptions, discovery, provide_broker, resolve_bootstrap_servers
from headrace.broker.configuration import HOST
from headrace.broker.discovery import (
    BrokerNote,
    note_path,
    publish,
    read_note,
    retract,
    running_broker,
    with_broker_of_this_folder,
)
from headrace.broker.readiness import describe_cluster
from headrace.errors import BrokerNotConfigured, ConfigurationError
from headrace.settings import Settings, load_settings


@pytest.fixture
def nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    return load_settings(data_directory=tmp_path / ".headrace")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which nothing answers, and which nobody else is given."""
    with closing(socket.socket()) as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]


def note(port: int, *, pid: int | None = None) -> BrokerNote:
    return BrokerNote(
        kind="local", bootstrap_servers=f"{HOST}:{port}", cluster_id="an-id", pid=pid or os.getpid(), data_directory="/data"
    )


def test_with_nothing_named_and_nothing_running_the_error_says_what_to_do(nothing_named: Settings) -> None:
    with pytest.raises(BrokerNotConfigured, match="no broker runs for this folder") as caught:
        resolve_bootstrap_servers(nothing_named)
    assert f"({nothing_named.data_directory.absolute()}/broker.json would name it)" in str(caught.value)
    for way in ("--bootstrap-servers", "KAFKA_BOOTSTRAP_SERVERS", "headrace broker", "headrace dev"):
        assert way in str(caught.value)


def test_an_option_wins_over_the_environment_and_that_over_the_folder(
    nothing_named: Settings, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(nothing_named, note(silent_port))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "named.example:9092")
    assert resolve_bootstrap_servers(load_settings(data_directory=nothing_named.data_directory)) == "named.example:9092"
    assert resolve_bootstrap_servers(load_settings(bootstrap_servers="option.example:9092")) == "option.example:9092"


def test_a_broker_that_is_gone_is_not_used(nothing_named: Settings, silent_port: int) -> None:
    publish(nothing_named, note(silent_port))
    assert running_broker(nothing_named) is None
    with pytest.raises(BrokerNotConfigured, match=r"broker\.json names does not answer"):
        resolve_bootstrap_servers(nothing_named)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kind": "local"}', '{"unknown": 1}', "null"])
def test_a_note_that_cannot_be_read_is_none(nothing_named: Settings, content: str) -> None:
    note_path(nothing_named).parent.mkdir(parents=True)
    note_path(nothing_named).write_text(content)
    assert read_note(nothing_named) is None
    with pytest.raises(BrokerNotConfigured):
        resolve_bootstrap_servers(nothing_named)


def test_only_its_own_note_is_taken_away(nothing_named: Settings, silent_port: int) -> None:
    mine, other = note(silent_port), note(silent_port, pid=1)
    publish(nothing_named, other)
    retract(nothing_named, mine)
    assert read_note(nothing_named) == other
    retract(nothing_named, other)
    assert read_note(nothing_named) is None
    assert [path.name for path in note_path(nothing_named).parent.iterdir()] == []


def test_a_named_broker_is_taken_and_left_alone(nothing_named: Settings) -> None:
    named = nothing_named.model_copy(update={"bootstrap_servers": "named.example:9092"})
    with provide_broker(named) as broker:
        assert broker.kind == "external"
        assert broker.bootstrap_servers == "named.example:9092"
        assert broker.description.startswith("external: named.example:9092")
    assert not note_path(named).exists()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (BrokerRequest(data_directory=Path("x"), options=LocalBrokerOptions(ephemeral=True)), "leave out --data-directory"),
        (BrokerRequest(kind="docker", data_directory=Path("x")), "leave out --data-directory"),
        (BrokerRequest(kind="docker", options=LocalBrokerOptions(automatic_topic_creation=False)), "the port alone"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(nothing_named: Settings, request_: BrokerRequest, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        provide_broker(nothing_named, request_)


class Answering(threading.Thread):
    """Gives one connection an answer, whatever it asks, and closes it."""

    def __init__(self, server: socket.socket, answer: bytes) -> None:
        super().__init__()
        self._server = server
        self._answer = answer
        self.start()

    def run(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(self._answer)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00"])
def test_what_does_not_speak_kafka_is_no_broker(answer: bytes) -> None:
    with closing(socket.create_server((HOST, 0))) as server:
        program = Answering(server, answer)
        address = f"{HOST}:{server.getsockname()[1]}"
        assert describe_cluster(address, timeout_seconds=5) is None
        program.join(5)
        assert not program.is_alive()


@pytest.mark.parametrize("address", ["", "nonsense", "host:port", f"{HOST}:99999"])
def test_an_address_that_is_none_is_no_broker(address: str) -> None:
    assert describe_cluster(address, timeout_seconds=1) is None


def test_views_of_a_broker_that_keeps_nothing_are_its_own_and_go_with_it(
    nothing_named: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that follows now one log and now another one would be made anew each time, and say so."""
    kept, unkept, killed = (note(port) for port in (1, 2, 3))
    unkept, killed = (
        replace(unkept, cluster_id="one", data_directory=None),
        replace(killed, cluster_id="two", data_directory=None),
    )
    monkeypatch.setattr(discovery, "running_broker", read_note)

    def used() -> Path:
        directory = with_broker_of_this_folder(nothing_named).data_directory
        (directory / "views").mkdir(parents=True, exist_ok=True)
        return directory

    publish(nothing_named, kept)
    assert used() == nothing_named.data_directory
    publish(nothing_named, unkept)
    first = used()
    assert nothing_named.data_directory in first.parents and first == used()
    # Whoever names it by its address looks from anywhere.
    named = with_broker_of_this_folder(nothing_named.model_copy(update={"bootstrap_servers": unkept.bootstrap_servers}))
    assert named.data_directory == nothing_named.data_directory
    retract(nothing_named, unkept)
    assert not first.exists()
    publish(nothing_named, killed)
    second = used()
    assert second not in (first, nothing_named.data_directory)
    publish(nothing_named, kept)
    assert not second.exists() and (nothing_named.data_directory / "views").exists()
