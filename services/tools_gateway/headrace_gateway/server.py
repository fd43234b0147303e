"""The gateway as a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from headrace import Client, ConfigurationError, Settings
from headrace_gateway.access import check_exposure, is_required
from headrace_gateway.application import create_app
from headrace_gateway.gateway import Gateway, gateway_for
from headrace_gateway.http.protocol import EnvelopeProtocol
from headrace_gateway.ingress import KafkaIngress
from headrace_gateway.tools import ToolRegistry

# What a request may take beyond the wait for its acknowledgement, when the server stops.
_GRACE_SECONDS = 5.0
_BACKLOG = 2_048


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the process that it is a part of, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class GatewayServer:
    """A running gateway, for use inside another program's event loop.

    Attributes:
        url: where it answers, once it was started.
        gateway: what it serves, while it runs.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: Client | None = None,
        tools: ToolRegistry | None = None,
        gateway: Gateway | None = None,
    ) -> None:
        """
        Args:
            client: one that was started, and that its owner stops; else the server has its own.
            tools: the tools it offers; `scheduler` and `worker_manager` when left out.
            gateway: one over this client with tools of its own, that was started, and that its owner stops; else the server
                has the one that the settings ask for.
        """
        self.url = ""
        self._settings = settings
        self._client = client
        self._tools = tools
        self._server: _Server | None = None
        self._close_streams: Callable[[], None] = lambda: None
        self._serving: asyncio.Task[None] | None = None
        self._own_client: Client | None = None
        self._ingress: KafkaIngress | None = None
        self.gateway = gateway
        self._own_gateway: Gateway | None = None

    async def start(self) -> None:
        """Returns when it answers.

        Raises:
            ConfigurationError: the address cannot be listened on, or must not be while nobody is asked who they are.
            BrokerError: the broker cannot be reached.
        """
        listener = await _bind(self._settings)
        try:
            client = self._client
            if client is None:
                client = Client(self._settings, view=True, view_process=self._settings.gateway.view_process)
                await client.start()
                self._own_client = client
            if self.gateway is None:
                gateway = gateway_for(self._settings, client, self._tools)
                await gateway.start()
                self.gateway = self._own_gateway = gateway
            app = create_app(self._settings, client, gateway=self.gateway)
            ingress = KafkaIngress(self._settings, self.gateway, client) if self._settings.ingress.enabled else None
            if ingress is not None:
                # Before anybody can ask: it is not ready before it takes calls.
                app.state.needs.append(lambda: ingress.trouble)
            config = uvicorn.Config(
                app,
                http=EnvelopeProtocol,
                ws="none",
                lifespan="off",  # it is entered here, so that its errors reach the caller as they are
                log_config=None,
                access_log=False,
                server_header=False,
                # Where nobody is asked who they are, everything depends on where they come from: not even the environment says
                # that others than this machine's own proxies are believed. Else FORWARDED_ALLOW_IPS does.
                forwarded_allow_ips=None if is_required(self._settings) else "127.0.0.1,::1",
                timeout_graceful_shutdown=round(self._settings.gateway.enqueue_timeout_seconds + _GRACE_SECONDS),
            )
        except BaseException:
            listener.close()
            await self.stop()
            raise
        self._server = _Server(config)
        self._close_streams = app.state.close_streams
        self.url = _url(listener)
        self._serving = asyncio.create_task(_serve(app, self._server, listener), name="gateway")
        listening = asyncio.create_task(self._server.listening.wait())
        try:
            await asyncio.wait({listening, self._serving}, return_when=asyncio.FIRST_COMPLETED)
            if self._serving.done():
                self._serving.result()
        finally:
            listening.cancel()
        try:
            if ingress is not None:
                await ingress.start()
                self._ingress = ingress
        except BaseException:
            await self.stop()
            raise

    def request_stop(self) -> None:
        """Stops accepting connections, and lets `wait` return when the requests that were accepted are answered.

        Streams of events are closed: their readers are told to come again, and find another gateway or the next one.
        """
        self._close_streams()
        if self._server is not None:
            self._server.should_exit = True

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def stop(self) -> None:
        """Stops accepting, answers what was accepted, and returns. It may be called again, and without a start."""
        self.request_stop()
        try:
            if self._ingress is not None:
                ingress, self._ingress = self._ingress, None
                await ingress.stop()
            await self.wait()
        finally:
            if self._own_gateway is not None:
                gateway, self._own_gateway, self.gateway = self._own_gateway, None, None
                await gateway.stop()
            if self._own_client is not None:
                client, self._own_client = self._own_client, None
                await client.stop()

    async def __aenter__(self) -> GatewayServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def run_gateway(
    settings: Settings, *, tools: ToolRegistry | None = None, started: Callable[[GatewayServer], None] | None = None
) -> None:
    """Runs a gateway until SIGTERM or SIGINT; then stops accepting, and answers what was accepted.

    Args:
        tools: the tools it offers; `scheduler` and `worker_manager` when left out.
        started: called with the server once it answers.

    Raises:
        ConfigurationError: the address cannot be listened on, or must not be while nobody is asked who they are.
        BrokerError: the broker cannot be reached.
    """
    server = GatewayServer(settings, tools=tools)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, ended.set)
    try:
        starting = asyncio.create_task(server.start())
        asked = asyncio.create_task(ended.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return
        starting.result()
        if started is not None:
            started(server)
        serving = asyncio.create_task(server.wait())
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await server.stop()
        for number in signals:
            loop.remove_signal_handler(number)


async def _serve(app: FastAPI, server: _Server, listener: socket.socket) -> None:
    """Serves until the server is to stop, within the lifespan of the application, which has to begin and end in one task."""
    try:
        async with app.router.lifespan_context(app):
            await server.serve(sockets=[listener])
    finally:
        listener.close()


async def _bind(settings: Settings) -> socket.socket:
    host, port = settings.gateway.host, settings.gateway.port
    loop = asyncio.get_running_loop()
    try:
        family, kind, protocol, _, address = (
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )[0]
    except OSError as error:
        raise ConfigurationError(
            f"HEADRACE_GATEWAY_HOST (--host) is {host!r}, which is no address of this machine: {error.strerror}."
        ) from None
    check_exposure(settings, str(address[0]))
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
        # At once: until somebody listens, others can bind the same port, and callers of one would reach the other.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"The gateway cannot listen on {host}, port {port}: {error.strerror}. "
            "Give another address with --host and --port (HEADRACE_GATEWAY_HOST, HEADRACE_GATEWAY_PORT); port 0 takes a free one."
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
