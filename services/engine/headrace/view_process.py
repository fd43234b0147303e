"""The process that keeps a client's view of jobs: how the client starts it, and what it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import threading
import time
from typing import Any, Final, NoReturn

from pydantic import SecretStr

from headrace.core.topics import Topics
from headrace.errors import HeadraceError
from headrace.kafka.log import KafkaLog
from headrace.processes.logs import LogForwarder, levels_set
from headrace.processes.starting import how_it_ended, leave_signals_to_parent, start_child
from headrace.runtime import run
from headrace.settings import Settings, SettingsGroup, load_settings
from headrace.views.process.child import StartChild
from headrace.views.process.frames import Connection, Kind
from headrace.views.process.serving import serve

_LOOK_SECONDS: Final = 0.02
_ORPHAN_SECONDS: Final = 1.0
_ORPHANS_END_SECONDS: Final = 20.0
_SETTINGS: Final = ("bootstrap_servers", "namespace", "kafka", "engine")
"""What the process needs of them. It gets them over its connection, and none from the environment: there may be secrets."""


def process_for(settings: Settings) -> StartChild:
    """What starts the process that keeps the view of jobs of a client with these settings."""

    async def start() -> ViewProcess:
        process = ViewProcess()
        try:
            await process.connect(settings)
        except BaseException:
            process.kill()
            await process.ended()
            raise
        return process

    return start


class ViewProcess:
    """The process, as its parent has it in hand.

    Attributes:
        connection: to it.
        pid: its process id.
    """

    connection: Connection

    def __init__(self) -> None:
        """Starts it; `connect` must follow."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "KAFKA_"))}
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = start_child(
                "headrace.view_process:main", theirs.fileno(), environment=environment
            )
        self.pid = self._process.pid

    async def connect(self, settings: Settings) -> None:
        """Gives it its settings."""
        self.connection = Connection(*await asyncio.open_unix_connection(sock=self._socket))
        given = {name: _plain(getattr(settings, name)) for name in _SETTINGS}
        self.connection.send(Kind.SETTINGS, (given, levels_set()))

    def kill(self) -> None:
        """Ends it at once, unless it has ended."""
        self._process.kill()

    async def ended(self) -> str:
        """Waits until it has ended, and tells how."""
        while self._process.poll() is None:  # noqa: ASYNC110 - nothing tells of it on every system
            await asyncio.sleep(_LOOK_SECONDS)
        return how_it_ended(self._process.returncode)


def main(descriptor: int, parent: int) -> None:
    """What the process runs.

    Args:
        descriptor: its end of the sockets.
        parent: the id of its parent.
    """
    leave_signals_to_parent()
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_after, args=(parent,), name="headrace-view-orphan", daemon=True).start()
    run(_keep(socket.socket(fileno=descriptor)))


def _end_after(parent: int) -> NoReturn:
    """The end of the connection ends this process in order when its parent is gone; whatever keeps it from that is cut off."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_SECONDS)
    time.sleep(_ORPHANS_END_SECONDS)
    os._exit(1)


async def _keep(own: socket.socket) -> None:
    connection = Connection(*await asyncio.open_unix_connection(sock=own))
    frame = await connection.read()
    if frame is None:
        return
    given, levels = frame.content
    loop = asyncio.get_running_loop()

    def send_log(told: bytes) -> None:
        loop.call_soon_threadsafe(connection.send, Kind.LOG, told)

    forwarder = LogForwarder(send_log)
    forwarder.install(levels)
    try:
        settings = load_settings(**given)
        log = KafkaLog(settings)
    except HeadraceError as error:
        connection.send(Kind.FAILED, (type(error).__name__, str(error)))
        await connection.close()
        return
    try:
        await serve(connection, log, Topics(settings.namespace))
    finally:
        logging.getLogger().removeHandler(forwarder)
        await log.close()


def _plain(value: Any) -> Any:
    """A setting as plain data; of a group, all that is set in it."""
    if isinstance(value, SettingsGroup):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
