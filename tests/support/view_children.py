"""What keeps a view in a process of its own, run in the test's event loop over a log in memory: all of it but the process."""

from __future__ import annotations

import asyncio
import socket

from headrace.core.topics import Topics
from headrace.ports import Log
from headrace.views.process.child import StartChild
from headrace.views.process.frames import Connection
from headrace.views.process.serving import serve


class ChildHere:
    """Serves as the process does, at the other end of real sockets."""

    connection: Connection

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topics = topics
        self._serving: asyncio.Task[None]

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(*await asyncio.open_unix_connection(sock=ours))
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        self._serving = asyncio.create_task(serve(Connection(reader, writer), self._log, self._topics))
        # As the system does, also for one that was killed before it began.
        self._serving.add_done_callback(lambda _: writer.close())

    def kill(self) -> None:
        self._serving.cancel()

    async def ended(self) -> str:
        await asyncio.wait([self._serving])
        return "ended"


def child_over(log: Log, topics: Topics) -> StartChild:
    """What starts it."""

    async def start() -> ChildHere:
        child = ChildHere(log, topics)
        await child.start()
        return child

    return start
