"""A SQLite file that holds a view: its rows, and how far in the log they are, written in one transaction.

The file can be thrown away at any time, and is, whenever it cannot be trusted: another version of the schema, another
namespace, damage, or an age at which tombstones may have left the log unseen. One thread writes; each reading thread has a
connection of its own.

A file belongs to one process at a time. Where it is taken, `Database.open` goes on to a file beside it with a number in its
name (`jobs-2.sqlite`), so that two gateways in one folder each have a view of their own.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from headrace.errors import ConfigurationError
from headrace.ports import TopicPartition
from headrace.views.reading import Readers, connected

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

MOST_FILES: Final = 32
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WRITER_PRAGMAS: Final = (
    # For a new file. A view's rows are about a kilobyte long: of the usual pages of 4 KB a quarter would stay empty, and four
    # times as many would be written.
    "PRAGMA page_size=16384",
    "PRAGMA journal_mode=WAL",
    # A power cut may cost the last transactions, never the file: what is missing is read from the log again.
    "PRAGMA synchronous=NORMAL",
    # Index pages are written again and again while a view catches up: fewer checkpoints write each page fewer times. The file
    # beside the view grows to 200 MB by it at most, and goes when the view is closed.
    "PRAGMA wal_autocheckpoint=12500",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-131072",
    "PRAGMA secure_delete=OFF",
)
_OWN_TABLES: Final = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE positions (topic TEXT, partition INTEGER, next INTEGER NOT NULL, last INTEGER NOT NULL,"
    " last_timestamp INTEGER NOT NULL, PRIMARY KEY (topic, partition)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class Schema:
    """The tables of a view.

    Attributes:
        name: what the view is of.
        version: rises with every change of `statements` or of what the rows mean; a file of another version is discarded.
        statements: create the tables and indexes in an empty file.
        oldest_seconds: how long ago a file may have been equal to the log at the last `touch`; None: as long as one likes.
    """

    name: str
    version: int
    statements: tuple[str, ...]
    oldest_seconds: float | None = None


class Position(NamedTuple):
    """How far a view has read a partition.

    Attributes:
        next: offset of the next record to read.
        last: offset of the last record that was read; -1 for none. It may lie well below `next` in a compacted topic.
        last_timestamp: that record's timestamp: whether it is still the same log is seen by it.
    """

    next: int
    last: int = -1
    last_timestamp: int = -1


Positions = dict[TopicPartition, Position]


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file is damaged, and not that the call was wrong or the disk is full."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and code is not None and code & 0xFF in _DAMAGE


def store_positions(connection: sqlite3.Connection, positions: Positions) -> None:
    """Writes positions in the transaction that is open, beside the rows that were read up to them."""
    connection.executemany(
        "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)",
        [(topic, partition, *position) for (topic, partition), position in positions.items()],
    )


def load_positions(connection: sqlite3.Connection) -> Positions:
    rows = connection.execute("SELECT topic, partition, next, last, last_timestamp FROM positions")
    return {TopicPartition(topic, partition): Position(*position) for topic, partition, *position in rows}


class Reading(Protocol):
    """Those who read the file, wherever they are."""

    path: Path

    def released(self) -> AbstractAsyncContextManager[None]:
        """Within the block nobody reads, and none of them has anything of the file open."""

    async def close(self) -> None:
        """Lets the file go for good."""


class Database:
    """An open file of a view. Made by `Database.open`; all methods are for the event loop, and none of them blocks it."""

    def __init__(self, path: Path, schema: Schema, identity: str, lock: sqlite3.Connection, readers: Reading) -> None:
        self.path = path
        self._schema = schema
        self._identity = identity
        self._lock = lock
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix=f"headrace-{schema.name}-writer")
        self._readers = readers
        self._writer: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: Path, schema: Schema, *, identity: str, readers: Reading | None = None) -> Database:
        """Opens the view file at `path`, or makes it. What cannot be trusted is discarded, with a warning.

        Args:
            path: where the file stands; the folder is made. A numbered one beside it is used if another process has it.
            identity: what the view is of, beyond its schema: a file of another identity is discarded.
            readers: those who read it in another process; `read` needs them to be in this one, as they are when left out.

        Raises:
            ConfigurationError: the folder cannot be written to, or too many processes have a view in it.
        """
        path, lock = await asyncio.to_thread(_lock_free_file, path)
        if readers is None:
            readers = Readers(path, schema.name)
        readers.path = path
        database = cls(path, schema, identity, lock, readers)
        try:
            reason = await database._in_writer_thread(database._connect)
            if reason is not None:
                await database._make_anew()
        except BaseException:
            await database.close()
            raise
        return database

    async def write(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Runs `work` in the writing thread, in one transaction: all of what it writes holds, or, if it raises, nothing."""

        def transact() -> ResultT:
            connection = self._open_writer()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return result

        return await self._in_writer_thread(transact)

    async def read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Runs `work` in a reading thread, while writing goes on."""
        assert isinstance(self._readers, Readers)
        return await self._readers.read(work)

    async def positions(self) -> Positions:
        """How far the rows are; nothing in a new file."""
        return await self.write(load_positions)

    async def touch(self) -> None:
        """Notes that the rows are as new as the log: the age at which the file is discarded counts from now."""
        alive = "INSERT OR REPLACE INTO about VALUES ('alive', ?)"
        await self.write(lambda connection: connection.execute(alive, (str(time.time()),)))

    async def discard(self, reason: str) -> None:
        """Throws the file away and makes an empty one. Reading that is under way ends first."""
        logger.warning("The view %s is made anew from the log: %s", self.path, reason)
        await self._make_anew()

    async def _make_anew(self) -> None:
        async with self._readers.released():
            await self._in_writer_thread(self._remake)

    async def close(self) -> None:
        """Ends what is under way, closes the file and gives it free."""
        await self._readers.close()
        await self._in_writer_thread(self._disconnect)
        self._writer_thread.shutdown(wait=False)
        self._lock.close()

    # --- in the writing thread ---

    async def _in_writer_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._writer_thread, work)

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise sqlite3.ProgrammingError(f"the view {self.path} is closed")
        return self._writer

    def _connect(self) -> str | None:
        """Opens the file; why it has to be made anew, or None."""
        if not self.path.exists():
            return "there is none."
        try:
            self._writer = connected(self.path, _WRITER_PRAGMAS)
            reason = self._distrust(self._writer)
        except sqlite3.DatabaseError as error:
            reason = f"it cannot be read ({error})."
        if reason is not None:
            logger.warning("The view %s is made anew from the log: %s", self.path, reason)
        return reason

    def _distrust(self, connection: sqlite3.Connection) -> str | None:
        """Why the file cannot be used, or None."""
        about = dict(connection.execute("SELECT name, value FROM about"))
        load_positions(connection)
        found, wanted = about.get("schema"), f"{self._schema.name}/{self._schema.version}"
        if found != wanted:
            return f"its schema is {found}, and this version of headrace has {wanted}."
        if about.get("identity") != self._identity:
            return f"it is a view of {about.get('identity')}, not of {self._identity}."
        oldest = self._schema.oldest_seconds
        if oldest is not None and time.time() - float(about["alive"]) > oldest:
            return f"it was last equal to the log more than {oldest / 3600:g} h ago, and may have missed deletions."
        return None

    def _remake(self) -> None:
        self._disconnect()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        writer = self._writer = connected(self.path, _WRITER_PRAGMAS)
        writer.execute("BEGIN IMMEDIATE")
        for statement in (*_OWN_TABLES, *self._schema.statements):
            writer.execute(statement)
        about = {
            "schema": f"{self._schema.name}/{self._schema.version}",
            "identity": self._identity,
            "alive": str(time.time()),
        }
        writer.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        writer.execute("COMMIT")

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _lock_free_file(path: Path) -> tuple[Path, sqlite3.Connection]:
    """The first of `path` and its numbered neighbours that no other process has, and the lock by which it is ours now.

    The lock is that of an empty SQLite file: the system drops it when the process ends, however it ends, on every platform.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The folder {path.parent} for views cannot be made: {error.strerror}. {_ADVICE}") from error
    for number in range(1, MOST_FILES + 1):
        candidate = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        lock: sqlite3.Connection | None = None
        try:
            lock = sqlite3.connect(f"{candidate}.lock", timeout=0, isolation_level=None, check_same_thread=False)
            lock.execute("BEGIN EXCLUSIVE")
            return candidate, lock
        except sqlite3.OperationalError as error:
            if lock is not None:
                lock.close()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ConfigurationError(f"The folder {path.parent} cannot hold a view: {error}. {_ADVICE}") from error
    raise ConfigurationError(f"{MOST_FILES} processes have a view in {path.parent} already. {_ADVICE}")


_ADVICE: Final = "Give this process a folder of its own with HEADRACE_DATA_DIRECTORY."
