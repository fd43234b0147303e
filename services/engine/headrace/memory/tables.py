"""The SQLite tables in which a process keeps the records of the conversations that it has read.

The tables hold records and decide nothing: what is live is what `core.memory` makes of them, each time they are read.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from headrace.codec import decode, decode_object, encode, validate
from headrace.core.memory import CompactionFact, Conversation, EntryFact, Place
from headrace.core.partitions import key_partition
from headrace.core.records import conversation_key
from headrace.errors import RecordUndecodable
from headrace.memory.summarise.tokens import estimate_tokens
from headrace.models import MemoryCompaction, MemoryEntry
from headrace.ports import ConversationRef, MemorySnapshot, Record, StoredCompaction
from headrace.views.database import Schema

logger = logging.getLogger(__name__)

SCHEMA: Final = Schema(
    name="memory",
    version=1,
    statements=(
        "CREATE TABLE conversations (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)",
        # The text comes last, so that the fold, which needs none, reads only the beginning of each row.
        "CREATE TABLE records (conversation INTEGER NOT NULL, offset INTEGER NOT NULL, compacts INTEGER NOT NULL,"
        " id TEXT NOT NULL, weight INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL)",
        "CREATE UNIQUE INDEX records_in_order ON records (conversation, offset)",
        "CREATE INDEX records_by_id ON records (conversation, id, offset)",
    ),
)


class Row(NamedTuple):
    """A record that is what its topic promises."""

    conversation: str
    offset: int
    compacts: bool
    id: str
    weight: int
    key: bytes
    value: bytes


def key_of(conversation: ConversationRef) -> str:
    """By which the tables, and the topic's partitions, know a conversation."""
    return conversation_key(conversation.tenant, conversation.user_id, conversation.conversation_id)


def rows_of(records: Iterable[Record], partitions: int) -> list[Row]:
    """The rows of records. One that is not what the topic promises costs itself alone; tombstones are passed over."""
    rows: list[Row] = []
    keys: dict[ConversationRef, str] = {}
    for record in records:
        if record.value is None:
            continue
        try:
            rows.append(_row(record, record.value, partitions, keys))
        except RecordUndecodable as error:
            logger.warning("Record %d of %s/%d is left out: %s", record.offset, record.topic, record.partition, error)
    return rows


def _row(record: Record, value: bytes, partitions: int, keys: dict[ConversationRef, str]) -> Row:
    raw = decode_object(value)
    decoded = validate(MemoryCompaction, raw) if raw.get("type") == "compaction" else validate(MemoryEntry, raw)
    conversation = ConversationRef(decoded.tenant, decoded.user_id, decoded.conversation_id)
    key = keys.get(conversation) or keys.setdefault(conversation, key_of(conversation))
    named = record.key or b""
    if named.rpartition(b"/")[0] != key.encode():
        raise RecordUndecodable(f"its key {named!r} does not belong to its conversation, {key}")
    # Readers decide by offset, which means something only within one partition.
    if record.partition != key_partition(key, partitions):
        raise RecordUndecodable(f"the conversation {key} has another partition")
    if isinstance(decoded, MemoryEntry):
        return Row(key, record.offset, False, decoded.id, estimate_tokens(decoded.content), named, value)
    # Written anew, so that the fold need not validate it again, whoever wrote it and however the names were spelt.
    return Row(key, record.offset, True, decoded.id, estimate_tokens(decoded.summary), named, encode(decoded))


def add_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Adds rows. Those that are there already stay as they are."""
    numbers: dict[str, int] = {}
    for key in {row.conversation for row in rows}:
        connection.execute("INSERT OR IGNORE INTO conversations (key) VALUES (?)", (key,))
        numbers[key] = connection.execute("SELECT number FROM conversations WHERE key = ?", (key,)).fetchone()[0]
    connection.executemany(
        "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", [(numbers[row.conversation], *row[1:]) for row in rows]
    )


def _number(connection: sqlite3.Connection, conversation: ConversationRef) -> int:
    found = connection.execute("SELECT number FROM conversations WHERE key = ?", (key_of(conversation),)).fetchone()
    return -1 if found is None else int(found[0])


def first_keys(connection: sqlite3.Connection, conversation: ConversationRef, ids: Iterable[str]) -> dict[str, bytes]:
    """The key of the first entry that has each of the ids, where there is one."""
    number = _number(connection, conversation)
    found: dict[str, bytes] = {}
    for entry_id in ids:
        row = connection.execute(
            "SELECT key FROM records WHERE conversation = ? AND id = ? AND NOT compacts ORDER BY offset LIMIT 1",
            (number, entry_id),
        ).fetchone()
        if row is not None:
            found[entry_id] = row[0]
    return found


def differing(connection: sqlite3.Connection, conversation: ConversationRef, entries: Iterable[MemoryEntry]) -> list[str]:
    """Ids of the entries whose id is there with another role or another content."""
    number = _number(connection, conversation)
    found: list[str] = []
    for entry in entries:
        row = connection.execute(
            "SELECT value FROM records WHERE conversation = ? AND id = ? AND NOT compacts ORDER BY offset LIMIT 1",
            (number, entry.id),
        ).fetchone()
        if row is not None:
            stored = decode_object(row[0])
            if (stored["role"], stored["content"]) != (entry.role, entry.content):
                found.append(entry.id)
    return found


def fold(connection: sqlite3.Connection, conversation: ConversationRef) -> Conversation:
    """The conversation as its records make it. Of entries, only ids and weights are read."""
    folded = Conversation()
    rows = connection.execute(
        "SELECT offset, id, weight, CASE WHEN compacts THEN value END FROM records WHERE conversation = ? ORDER BY offset",
        (_number(connection, conversation),),
    )
    for offset, record_id, weight, compaction in rows:
        if compaction is None:
            folded.apply(EntryFact(offset, record_id, weight))
        else:
            # Not by the model again: it may name tens of thousands of ids.
            raw = decode_object(compaction)
            folded.apply(CompactionFact(offset, record_id, weight, raw["jobId"], raw["baseVersion"], raw["supersedes"]))
    return folded


def snapshot(connection: sqlite3.Connection, conversation: ConversationRef) -> MemorySnapshot:
    """The conversation as it is read now."""
    folded = fold(connection, conversation)
    return MemorySnapshot(
        version=folded.version,
        entries=_texts(connection, conversation, folded.live()),
        tokens=folded.weight,
        compactions=tuple(folded.compactions()),
    )


def history(connection: sqlite3.Connection, conversation: ConversationRef) -> list[tuple[MemoryEntry, str | None]]:
    """All that was ever part of the conversation, each with the id of the summary that replaced it and stands after it."""
    told = fold(connection, conversation).history()
    texts = _texts(connection, conversation, [place for place, _ in told])
    return list(zip(texts, (by for _, by in told), strict=True))


def compaction_of(
    connection: sqlite3.Connection, conversation: ConversationRef, folded: Conversation, job_id: str
) -> StoredCompaction | None:
    """The one compaction of a job that holds, or None."""
    applied = folded.compaction_of(job_id)
    if applied is None:
        return None
    raw = decode_object(_value(connection, _number(connection, conversation), applied.version))
    return StoredCompaction(applied, raw["summary"], raw.get("title"))


def _texts(connection: sqlite3.Connection, conversation: ConversationRef, places: Iterable[Place]) -> tuple[MemoryEntry, ...]:
    number = _number(connection, conversation)
    return tuple(entry_of(_value(connection, number, place.offset)) for place in places)


def _value(connection: sqlite3.Connection, number: int, offset: int) -> bytes:
    row = connection.execute("SELECT value FROM records WHERE conversation = ? AND offset = ?", (number, offset)).fetchone()
    return bytes(row[0])


def entry_of(value: bytes) -> MemoryEntry:
    """What is read of a record: the entry, or the summary in a compaction as one."""
    if decode_object(value).get("type") != "compaction":
        return decode(MemoryEntry, value)
    written = decode(MemoryCompaction, value)
    return MemoryEntry(
        tenant=written.tenant,
        user_id=written.user_id,
        conversation_id=written.conversation_id,
        id=written.id,
        role="summary",
        name=written.title,
        content=written.summary,
        at=written.at,
    )
