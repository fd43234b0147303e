"""Reading from the SQLite file of a view, in threads of their own, while it is kept by this process or by another one."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

ResultT = TypeVar("ResultT")

READING_THREADS: Final = 2
_PRAGMAS: Final = ("PRAGMA query_only=ON", "PRAGMA cache_size=-16384", "PRAGMA mmap_size=1073741824")


def connected(path: Path, pragmas: Iterable[str]) -> sqlite3.Connection:
    """A connection in which transactions begin and end only where the code says so. Threads hand it on, and never share it."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        for pragma in pragmas:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


class Readers:
    """Threads with a connection each. All methods are for the event loop, and none of them blocks it.

    Attributes:
        path: the file that is read. It is set, and set anew, while `released`.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        self._threads = self._new_threads()
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readable = asyncio.Event()
        self._readable.set()

    @property
    def can_read(self) -> bool:
        """Whether nothing has to wait for `resume`."""
        return self._readable.is_set()

    async def read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Runs `work` in a reading thread, once there is a file to be read."""
        await self._readable.wait()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(self._connection()))

    @asynccontextmanager
    async def released(self) -> AsyncIterator[None]:
        """Within the block nobody reads, and nothing of the file is open here. Reading that is under way ends first."""
        try:
            await self.release()
            yield
        finally:
            self.resume()

    async def release(self) -> None:
        """Lets the file go; what is to be read waits until `resume`."""
        self._readable.clear()
        await self.close()

    def resume(self) -> None:
        """Reads on, in the file that stands at the path now."""
        self._threads = self._new_threads()
        self._local = threading.local()
        self._readable.set()

    async def close(self) -> None:
        """Ends what is under way, and lets the file go."""
        threads = self._threads
        await asyncio.to_thread(threads.shutdown, wait=True)
        for connection in self._connections:
            connection.close()
        self._connections = []

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(READING_THREADS, thread_name_prefix=f"headrace-{self._name}-reader")

    # --- in a reading thread ---

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connected(self.path, _PRAGMAS)
            self._connections.append(connection)
        return connection
