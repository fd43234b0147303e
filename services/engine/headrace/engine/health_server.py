"""Answers `GET /healthz` from a thread of its own, so that it tells of a blocked event loop, too."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from headrace.engine.health import Health, Look
from headrace.engine.loop_watch import LoopWatch
from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from uvicorn import Server

_logger = logging.getLogger(__name__)

_BACKLOG = 128
_LOOK_SECONDS = 1.0
_STOP_SECONDS = 2.0


class HealthServer:
    """Looks at the engine once a second, in its loop, and answers by the last look.

    Args:
        look: how each worker is doing.

    Attributes:
        url: where it answers; empty before the start.
    """

    def __init__(self, host: str, port: int, look: Look, watch: LoopWatch) -> None:
        self._host, self._port = host, port
        self._look = look
        self._watch = watch
        self._newest = Health(time.monotonic(), {})
        self._timer: asyncio.TimerHandle | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def start(self) -> None:
        """Begins to answer.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        from uvicorn import Config, Server

        listener = self._bind()
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/healthz" if ":" in host else f"http://{host}:{port}/healthz"
        # Not uvloop: that of the engine runs beside it, and a probe a second needs none.
        self._server = Server(
            Config(
                self._answer,
                interface="asgi3",
                lifespan="off",
                log_config=None,
                log_level="warning",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=1,
                loop="asyncio",
            )
        )
        self._take_a_look()
        serve: Callable[..., None] = self._server.run
        self._thread = threading.Thread(target=serve, kwargs={"sockets": [listener]}, name="headrace-health", daemon=True)
        self._thread.start()
        _logger.info("this engine tells how it is doing at %s", self.url)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_SECONDS)

    def _bind(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise ConfigurationError(
                f"HEADRACE_ENGINE_HEALTH_HOST is {self._host!r}, which is no address of this machine: {error.strerror}."
            ) from None
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # At once: until somebody listens, others can bind the same port, and whoever is told the address is refused.
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"The engine cannot answer at {self._host}, port {self._port}: {error.strerror}. Give "
                "another with HEADRACE_ENGINE_HEALTH_HOST and HEADRACE_ENGINE_HEALTH_PORT: several engines "
                "of one command take the ports from there on."
            ) from None
        return listener

    def _take_a_look(self) -> None:
        self._newest = Health(time.monotonic(), self._look())
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._take_a_look)

    async def _answer(self, scope: dict[str, Any], _: Any, send: Any) -> None:
        """The whole ASGI application."""
        if scope["type"] != "http":
            return
        if scope["path"] != "/healthz" or scope["method"] not in ("GET", "HEAD"):
            status, body = 404, b'{"status":"unknown","troubles":["only GET /healthz is answered here"]}'
        else:
            well, answer = self._newest.answer(self._watch.silence, self._watch.blocks, self._watch.longest)
            status, body = 200 if well else 503, orjson.dumps(answer)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
