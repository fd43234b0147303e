"""The file of a view: what is written together, and when it is not trusted."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.ports import TopicPartition
from headrace.views import database as module
from headrace.views.database import Database, Position, Schema, is_damage, store_positions

SCHEMA = Schema("things", 1, ("CREATE TABLE things (name TEXT PRIMARY KEY)",))
PARTITION = TopicPartition("topic", 3)


@asynccontextmanager
async def opened(path: Path, schema: Schema = SCHEMA, identity: str = "one") -> AsyncIterator[Database]:
    database = await Database.open(path, schema, identity=identity)
    try:
        yield database
    finally:
        await database.close()


async def add(database: Database, name: str, next_offset: int = 1) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES (?)", (name,))
        store_positions(connection, {PARTITION: Position(next_offset, next_offset - 1, 99)})

    await database.write(work)


async def names(database: Database) -> list[str]:
    return await database.read(
        lambda connection: [name for (name,) in connection.execute("SELECT name FROM things ORDER BY name")]
    )


def put_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def spoil(path: Path) -> None:
    """Leaves the first page of a file as it is, and nothing else."""
    content = path.read_bytes()
    size = int.from_bytes(content[16:18], "big")  # where SQLite's format has the size of a page
    path.write_bytes(content[:size] + b"\xaa" * len(content[size:]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "views" / "things.sqlite"


async def test_rows_and_positions_survive(path: Path) -> None:
    async with opened(path) as database:
        await add(database, "a", 7)
    async with opened(path) as database:
        assert await names(database) == ["a"]
        assert await database.positions() == {PARTITION: Position(7, 6, 99)}


async def test_a_transaction_holds_as_a_whole_or_not_at_all(path: Path) -> None:
    async with opened(path) as database:
        await add(database, "a", 1)

        def fails(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO things VALUES ('b')")
            store_positions(connection, {PARTITION: Position(2)})
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await database.write(fails)
        assert await names(database) == ["a"]
        assert (await database.positions())[PARTITION].next == 1
        await add(database, "c", 3)
        assert await names(database) == ["a", "c"]


async def test_reading_goes_on_while_a_transaction_is_open(path: Path) -> None:
    async with opened(path) as database:
        await add(database, "a")
        written, go_on = threading.Event(), threading.Event()

        def slow(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO things VALUES ('b')")
            written.set()
            assert go_on.wait(10)

        writing = asyncio.create_task(database.write(slow))
        assert await asyncio.to_thread(written.wait, 10)
        assert await names(database) == ["a"]
        go_on.set()
        await writing
        assert await names(database) == ["a", "b"]


async def test_readers_cannot_write(path: Path) -> None:
    async with opened(path) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(lambda connection: connection.execute("INSERT INTO things VALUES ('x')"))


@pytest.mark.parametrize(
    ("schema", "identity", "said"),
    [
        (replace(SCHEMA, version=2), "one", "things/1"),
        (SCHEMA, "two", "a view of one, not of two"),
    ],
)
async def test_a_file_of_something_else_is_made_anew(
    path: Path, schema: Schema, identity: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as database:
        await add(database, "a")
    with caplog.at_level(logging.WARNING):
        async with opened(path, schema, identity) as database:
            assert await names(database) == []
            assert await database.positions() == {}
    assert said in caplog.text


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000, b"SQLite format 3\x00" + b"\x07" * 9000])
async def test_a_damaged_file_is_made_anew(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    put_file(path, content)
    with caplog.at_level(logging.WARNING):
        async with opened(path) as database:
            await add(database, "a")
            assert await names(database) == ["a"]
    assert "is made anew" in caplog.text
    async with opened(path) as database:
        assert await names(database) == ["a"]


async def test_damage_is_told_from_other_errors(path: Path) -> None:
    async with opened(path) as database:
        await add(database, "a")
        with pytest.raises(sqlite3.IntegrityError) as wrong:
            await add(database, "a")
        assert not is_damage(wrong.value)
    spoil(path)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError) as damaged:
        connection.execute("SELECT * FROM things").fetchall()
    connection.close()
    assert is_damage(damaged.value)


async def test_a_file_that_was_not_kept_equal_for_too_long_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    schema = replace(SCHEMA, oldest_seconds=3600.0)
    clock = [1_000_000.0]
    monkeypatch.setattr("headrace.views.database.time.time", lambda: clock[0])
    async with opened(path, schema) as database:
        await add(database, "a")
        clock[0] += 3000
        await database.touch()
    clock[0] += 3000
    async with opened(path, schema) as database:
        assert await names(database) == ["a"]
    clock[0] += 3601
    with caplog.at_level(logging.WARNING):
        async with opened(path, schema) as database:
            assert await names(database) == []
    assert "may have missed deletions" in caplog.text


async def test_a_file_has_one_owner_at_a_time(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        assert first.path == path
        assert second.path == path.with_stem("things-2")
        await add(first, "a")
        await add(second, "b")
        assert (await names(first), await names(second)) == (["a"], ["b"])
    async with opened(path) as again:
        assert again.path == path
        assert await names(again) == ["a"]


async def test_too_many_owners(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 1)
    async with opened(path):
        with pytest.raises(ConfigurationError, match="HEADRACE_DATA_DIRECTORY"):
            await Database.open(path, SCHEMA, identity="one")


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="HEADRACE_DATA_DIRECTORY"):
        await Database.open(tmp_path / "file" / "views" / "things.sqlite", SCHEMA, identity="one")


async def test_a_lock_that_cannot_be_made(path: Path) -> None:
    path.with_name(f"{path.name}.lock").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot hold a view"):
        await Database.open(path, SCHEMA, identity="one")


async def test_discarding_ends_what_is_being_read_and_begins_empty(path: Path) -> None:
    async with opened(path) as database:
        await add(database, "a")
        begun, go_on = threading.Event(), threading.Event()

        def slow(connection: sqlite3.Connection) -> int:
            begun.set()
            assert go_on.wait(10)
            return len(connection.execute("SELECT * FROM things").fetchall())

        reading = asyncio.create_task(database.read(slow))
        assert await asyncio.to_thread(begun.wait, 10)
        discarding = asyncio.create_task(database.discard("a test wants it"))
        later = asyncio.create_task(names(database))
        go_on.set()
        assert await reading == 1
        await discarding
        assert await later in (["a"], [])
        assert await names(database) == []
        assert await database.positions() == {}


async def test_a_closed_file_is_not_used(path: Path) -> None:
    async with opened(path) as database:
        pass
    with pytest.raises(RuntimeError):
        await database.positions()
