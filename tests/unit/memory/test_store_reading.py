"""The store over a log in memory: what it reads, whoever wrote it, and what a restart, or one who gives up, leaves."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from headrace.codec import encode
from headrace.core.partitions import key_partition
from headrace.core.records import memory_key
from headrace.memory import StoreOptions, TopicMemoryStore
from headrace.memory.tables import key_of
from headrace.models import MemoryEntry
from headrace.ports import ConversationRef, MemorySnapshot, NewEntry, NewRecord
from headrace.testing import InMemoryCluster, InMemoryLog
from support.stores import HERE, PARTITION, TOPICS, compaction, ids, said


@pytest.fixture
def log() -> InMemoryLog:
    return InMemoryLog()


@pytest.fixture
async def store(log: InMemoryLog) -> AsyncIterator[TopicMemoryStore]:
    async with TopicMemoryStore(log, TOPICS) as started:
        yield started


async def test_a_compaction_by_a_writer_that_spells_names_otherwise_holds_too(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one", "two"))
    record = {"type": "compaction", "user_id": "ann", "conversation_id": "trip", "id": "c", "job_id": "j", "base_version": -1}
    value = orjson.dumps({**record, "supersedes": ["one"], "summary": "s", "at": "2026-01-01T00:00:00Z"})
    log.cluster.append(PARTITION, NewRecord(memory_key(*HERE, "token"), value))
    assert [entry.content for entry in (await store.read(HERE)).entries] == ["s", "two"]


def strange_records() -> list[NewRecord]:
    entry = MemoryEntry.model_validate(
        {"userId": "ann", "conversationId": "trip", "id": "x", "role": "user", "content": "x", "at": "2026-01-01T00:00:00Z"}
    )
    key = memory_key(*HERE, "token")
    return [
        NewRecord(key, b"no json"),
        NewRecord(key, b"[]"),
        NewRecord(key, b'{"type": "entry"}'),
        NewRecord(key, b'{"type": "compaction", "supersedes": []}'),
        NewRecord(key, None),
        NewRecord(b"no/key", encode(entry)),
        NewRecord(memory_key("default", "bob", "trip", "token"), encode(entry)),
    ]


async def test_a_record_that_is_not_what_it_should_be_costs_only_itself(store: TopicMemoryStore, log: InMemoryLog) -> None:
    await store.append(HERE, said("one"))
    for record in strange_records():
        log.cluster.append(PARTITION, record)
    await store.append(HERE, said("two"))
    assert ids(await store.read(HERE)) == ["one", "two"]


async def test_a_record_in_a_partition_of_other_conversations_is_left_out(store: TopicMemoryStore, log: InMemoryLog) -> None:
    entry = MemoryEntry.model_validate(
        {"userId": "bob", "conversationId": "b", "id": "x", "role": "user", "content": "x", "at": "2026-01-01T00:00:00Z"}
    )
    bob = ConversationRef("default", "bob", "b")
    assert key_partition(key_of(bob), TOPICS.memory.partitions) != PARTITION.partition
    log.cluster.append(PARTITION, NewRecord(memory_key(*bob, "token"), encode(entry)))
    await store.read(HERE)
    assert ids(await store.read(bob)) == []


async def test_a_restart_reads_one_record_again_and_a_deleted_view_all(log: InMemoryLog, tmp_path: Path) -> None:
    options = StoreOptions(view_path=tmp_path / "view" / "memory.sqlite")
    async with TopicMemoryStore(log, TOPICS, options) as first:
        await first.append(HERE, said(*(f"e{number}" for number in range(50))))
        await first.compact(HERE, compaction(await first.read(HERE), "e0", "e1"))
        expected = await first.read(HERE)
    async with TopicMemoryStore(log, TOPICS) as outside:
        await outside.append(HERE, said("later"))
    reads: list[int] = []
    log.cluster.fetched = lambda _, given: reads.append(len(given))
    async with TopicMemoryStore(log, TOPICS, options) as second:
        snapshot = await second.read(HERE)
        assert snapshot.entries[:-1] == expected.entries
        assert ids(snapshot)[-1] == "later"
        assert snapshot.compactions == expected.compactions
    assert sum(reads) == 2
    assert options.view_path is not None
    options.view_path.unlink()
    reads.clear()
    async with TopicMemoryStore(log, TOPICS, options) as third:
        assert await third.read(HERE) == snapshot
    assert sum(reads) == 52


@pytest.mark.parametrize("length", [0, 1, 3, 9])
async def test_a_view_of_another_log_is_made_anew(tmp_path: Path, length: int) -> None:
    options = StoreOptions(view_path=tmp_path / "memory.sqlite")
    async with TopicMemoryStore(InMemoryLog(), TOPICS, options) as first:
        await first.append(HERE, said("old1", "old2", "old3"))
    # Other times than in the log before, as a log that was made anew has.
    other = InMemoryLog(InMemoryCluster(now=lambda: 77_000))
    async with TopicMemoryStore(other, TOPICS) as writer:
        await writer.append(HERE, said(*(f"new{number}" for number in range(length))))
    async with TopicMemoryStore(other, TOPICS, options) as second:
        assert ids(await second.read(HERE)) == [f"new{number}" for number in range(length)]


async def test_two_stores_on_one_path_have_a_file_each(log: InMemoryLog, tmp_path: Path) -> None:
    options = StoreOptions(view_path=tmp_path / "memory.sqlite")
    async with TopicMemoryStore(log, TOPICS, options) as first, TopicMemoryStore(log, TOPICS, options) as second:
        await first.append(HERE, said("one"))
        assert await second.read(HERE) == await first.read(HERE)


async def test_a_read_that_is_given_up_loses_nothing(log: InMemoryLog, store: TopicMemoryStore) -> None:
    await store.read(HERE)
    async with TopicMemoryStore(log, TOPICS) as other:
        for number in range(200):
            await other.append(HERE, said(f"e{number}"))
            reading = asyncio.create_task(store.read(HERE))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    assert ids(await store.read(HERE)) == [f"e{number}" for number in range(200)]


async def test_one_who_gives_up_takes_nobody_with_him(log: InMemoryLog, store: TopicMemoryStore) -> None:
    await store.read(HERE)
    async with TopicMemoryStore(log, TOPICS) as other:
        for number in range(50):
            await other.append(HERE, said(f"e{number}"))
            readings = [asyncio.create_task(store.read(HERE)) for _ in range(3)]
            for _ in range(number % 10):
                await asyncio.sleep(0)
            readings[0].cancel()
            results = await asyncio.gather(*readings, return_exceptions=True)
            assert [len(ids(result)) for result in results[1:] if isinstance(result, MemorySnapshot)] == [number + 1] * 2


async def test_records_that_could_not_be_kept_are_read_again(
    log: InMemoryLog, store: TopicMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(HERE, said("one"))
    async with TopicMemoryStore(log, TOPICS) as other:
        await other.append(HERE, said("two"))

    def no_space(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("headrace.memory.follower.add_rows", no_space)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await store.read(HERE)
    assert ids(await store.read(HERE)) == ["one", "two"]


async def test_tens_of_thousands_of_entries(store: TopicMemoryStore) -> None:
    entries = [NewEntry(role="user", content=f"entry {number}", id=str(uuid.uuid4())) for number in range(20_000)]
    assert (await store.append(HERE, entries)).added == 20_000
    snapshot = await store.read(HERE)
    assert [entry.content for entry in snapshot.entries] == [entry.content for entry in entries]
    done = await store.compact(HERE, compaction(snapshot, *ids(snapshot)[:19_990]))
    assert done.applied.entries_after == 11
