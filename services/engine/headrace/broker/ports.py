"""Ports that stay ours between the moment they are chosen and the moment Java listens on them."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterable, Mapping

from headrace.broker.configuration import HOST


class PortTaken(Exception):
    """Another process uses the port."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(f"Port {port} is in use.")


class HeldPorts:
    """Bound sockets that do not listen: nobody else is given the port, and Java, which reuses addresses, may bind it.

    They are held as long as the broker may be started again: while it is down, a client that knocks at its port could
    else be given that very number for its own end, connect to itself, and keep the broker out.
    Only Linux lets two sockets share an address so; elsewhere a port is free until Java takes it.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._sockets: list[socket.socket] = []

    def hold(self, names: Iterable[str], *, required: Mapping[str, int], preferred: Mapping[str, int]) -> None:
        """Hold one port for each name: the required one, else the preferred one if it is free, else any.

        Raises:
            PortTaken: a required port is in use. Nothing is held then.
        """
        try:
            for name in names:
                if name in required:
                    self.numbers[name] = self._bind(required[name])
                    continue
                try:
                    self.numbers[name] = self._bind(preferred.get(name, 0))
                except PortTaken:
                    self.numbers[name] = self._bind(0)
        except PortTaken:
            self.release()
            raise

    def _bind(self, port: int) -> int:
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((HOST, port))
        except OSError as error:
            held.close()
            raise PortTaken(port) from error
        self._sockets.append(held)
        return int(held.getsockname()[1])

    def before_start(self) -> None:
        """Call this right before each start of Java."""
        if sys.platform != "linux":
            self.release()

    def release(self) -> None:
        """Let go: the broker will not start again."""
        for held in self._sockets:
            with contextlib.suppress(OSError):
                held.close()
        self._sockets.clear()
