"""What the process does that keeps a view: it follows the log into the file, tells its parent of it, and ends with that."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from headrace.core.topics import Topics
from headrace.errors import HeadraceError
from headrace.models import Job
from headrace.ports import Log
from headrace.views.database import Database
from headrace.views.job_intake import JobIntake
from headrace.views.job_rows import SCHEMA
from headrace.views.process.frames import Connection, Kind
from headrace.views.process.standing import Teller, Touched

TELL_SECONDS: Final = 0.1
"""How soon the parent hears of what no batch brought, such as a trouble."""
ALIVE_SECONDS: Final = 1.0
"""How often it hears that this process is well, if there is nothing else to be told."""


async def serve(connection: Connection, log: Log, topics: Topics) -> None:
    """Keeps the view until the parent says so, or is gone; then the file is closed."""
    await _Serving(connection, log, topics).run()


class _WorkersTold:
    """The workers that the parent has told of: it reads of them, too."""

    def __init__(self) -> None:
        self.definitions: set[str] = set()
        self._ready = asyncio.Event()
        self._calls: list[Callable[[], None]] = []

    def take(self, names: list[str], ready: bool) -> None:
        self.definitions = set(names)
        if ready:
            self._ready.set()
        for call in self._calls:
            call()

    def on_change(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    async def wait_ready(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._ready.wait()

    async def catch_up(self, timeout: float) -> None:
        """The parent has done that before it asks."""


class _ReadersThere:
    """Those who read the file in the parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._released = asyncio.Event()
        self.path = Path()

    def let_go(self) -> None:
        """They have let the file go."""
        self._released.set()

    @asynccontextmanager
    async def released(self) -> AsyncIterator[None]:
        self._released.clear()
        self._connection.send(Kind.RELEASE)
        await self._released.wait()
        try:
            yield
        finally:
            self._connection.send(Kind.RESUME, str(self.path))

    async def close(self) -> None:
        """They close the file before they have this process end."""


class _Serving:
    def __init__(self, connection: Connection, log: Log, topics: Topics) -> None:
        self._connection = connection
        self._log = log
        self._topics = topics
        self._workers = _WorkersTold()
        self._readers = _ReadersThere(connection)
        self._touched = Touched()
        self._begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._intake: JobIntake
        self._teller: Teller

    async def run(self) -> None:
        listening = asyncio.create_task(self._listen(), name="headrace-view-parent")
        keeping = asyncio.create_task(self._keep(), name="headrace-view-keeping")
        try:
            await asyncio.wait({listening, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = [listening, keeping, *self._requests.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._connection.close()

    async def _keep(self) -> None:
        self._readers.path = Path(await self._begun)
        try:
            database = await Database.open(self._readers.path, SCHEMA, identity=self._topics.namespace, readers=self._readers)
        except HeadraceError as error:
            self._connection.send(Kind.FAILED, _told(error))
            return
        self._intake = JobIntake(self._log, self._topics, self._workers, database, self._touched)
        self._teller = Teller(self._intake, self._touched)
        self._intake.start()
        self._connection.send(Kind.OPENED, str(database.path))
        try:
            await self._keep_telling()
        finally:
            await self._intake.stop()
            await database.close()

    async def _keep_telling(self) -> None:
        clock = asyncio.get_running_loop().time
        told, told_at = None, clock()
        while True:
            news = self._teller.news()
            if news != told or clock() - told_at >= ALIVE_SECONDS:
                self._connection.send(Kind.STANDING, news)
                told, told_at = (b"", None, False, [], *news[4:]), clock()
                await self._connection.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_SECONDS):
                    await self._touched.collected.wait()

    # --- what the parent says ---

    async def _listen(self) -> None:
        """Returns when it wants no more, or is gone."""
        while (frame := await self._connection.read()) is not None and frame.kind is not Kind.END:
            match frame.kind:
                case Kind.BEGIN:
                    self._begun.set_result(frame.content)
                case Kind.WORKERS:
                    self._workers.take(*frame.content)
                case Kind.LOOK_FOR:
                    self._intake.look_for(frame.content)
                case Kind.RELEASED:
                    self._readers.let_go()
                case Kind.REQUEST:
                    number, name, *arguments = frame.content
                    self._requests[number] = asyncio.create_task(self._answer(number, name, arguments))
                case Kind.CANCEL:
                    if (task := self._requests.get(frame.content)) is not None:
                        task.cancel()

    async def _answer(self, number: int, name: str, arguments: list[Any]) -> None:
        does: dict[str, Callable[..., Awaitable[None]]] = {
            "wait_caught_up": self._intake.wait_caught_up,
            "catch_up": self._intake.catch_up,
            "read_on": self._intake.read_on,
            "ask": self._intake.ask,
            "accept": self._accept,
            "mend": self._mend,
        }
        error: tuple[str, str] | None = None
        try:
            await does[name](*arguments)
        except Exception as raised:
            error = _told(raised)
        finally:
            del self._requests[number]
        # What has happened before the answer is told before it.
        self._connection.send(Kind.STANDING, self._teller.news())
        self._connection.send(Kind.ANSWER, (number, error))

    async def _accept(self, raws: list[dict[str, Any]]) -> None:
        self._intake.accepted.add([Job.model_validate(raw) for raw in raws])
        await self._intake.show_accepted()

    async def _mend(self, text: str, code: int) -> None:
        error = sqlite3.DatabaseError(text)
        error.sqlite_errorcode = code
        await self._intake.mend(error)


def _told(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error)
