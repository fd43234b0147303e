"""Where `/healthz` is answered: from when its address is told, and by one engine only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import uvicorn

from headrace.engine.health_server import HealthServer
from headrace.engine.loop_watch import LoopWatch
from headrace.errors import ConfigurationError


@contextlib.contextmanager
def started_late(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """The address of a server whose thread begins only afterwards, as on a machine that has no time for it."""
    begin = threading.Event()
    run = uvicorn.Server.run

    def late(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        begin.wait()
        run(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", late)
    server = HealthServer("127.0.0.1", 0, dict, LoopWatch())
    server.start()
    url = urlsplit(server.url)
    assert url.hostname is not None and url.port is not None
    try:
        yield url.hostname, url.port
    finally:
        begin.set()
        server.stop()


async def test_who_is_told_its_address_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with started_late(monkeypatch) as (host, port):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()


async def test_a_second_engine_is_told_that_the_port_is_taken_however_soon_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    with started_late(monkeypatch) as (host, port):
        second = HealthServer(host, port, dict, LoopWatch())
        with pytest.raises(ConfigurationError, match=f"cannot answer at {host}, port {port}"):
            second.start()
        second.stop()
