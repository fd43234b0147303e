"""Ports that stay ours until Java listens on them."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from headrace.broker.configuration import HOST
from headrace.broker.ports import HeldPorts, PortTaken


def test_a_held_port_is_given_to_nobody_else_and_can_still_be_listened_on() -> None:
    held = HeldPorts()
    held.hold(["PLAINTEXT", "CONTROLLER"], required={}, preferred={})
    port = held.numbers["PLAINTEXT"]
    try:
        assert port != held.numbers["CONTROLLER"]
        with closing(socket.socket()) as ordinary, pytest.raises(OSError, match="in use"):
            ordinary.bind((HOST, port))
        with closing(socket.socket()) as java:
            java.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            java.bind((HOST, port))
            java.listen()
            with closing(socket.create_connection((HOST, port), timeout=5)) as client:
                assert client.getpeername()[1] == port
    finally:
        held.release()


def test_the_port_of_the_last_start_is_taken_again_if_it_is_free() -> None:
    first = HeldPorts()
    first.hold(["PLAINTEXT"], required={}, preferred={})
    first.release()
    second = HeldPorts()
    second.hold(["PLAINTEXT"], required={}, preferred=first.numbers)
    second.release()
    assert second.numbers == first.numbers


def test_a_preferred_port_in_use_is_let_be_and_a_required_one_is_an_error() -> None:
    with closing(socket.socket()) as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        held = HeldPorts()
        held.hold(["PLAINTEXT"], required={}, preferred={"PLAINTEXT": taken})
        held.release()
        assert held.numbers["PLAINTEXT"] != taken
        with pytest.raises(PortTaken, match=str(taken)):
            HeldPorts().hold(["CONTROLLER", "PLAINTEXT"], required={"PLAINTEXT": taken}, preferred={})
