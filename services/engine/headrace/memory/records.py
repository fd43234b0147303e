"""The records that the store writes, checked before anything is sent."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Container, Sequence
from typing import Final

from pydantic import ValidationError

from headrace.codec import describe_problems, encode
from headrace.core.identifiers import fresh_id
from headrace.core.records import memory_key
from headrace.core.timestamps import from_milliseconds
from headrace.errors import ConversationInvalid, MemoryStoreError
from headrace.fields import check_plain
from headrace.models import PAYLOAD_LIMIT_BYTES, MemoryCompaction, MemoryEntry
from headrace.ports import ConversationRef, NewCompaction, NewEntry, NewRecord

# What is written of other moments is no time for any reader.
SUPERSEDES_LIMIT_BYTES: Final = 1024 * 1024
"""The most that the ids in one compaction may take as JSON, so that its record fits into the topic."""


def validated(conversation: ConversationRef, entries: Sequence[NewEntry]) -> list[MemoryEntry]:
    """The entries as they are to be stored, with ids and times made up where none were given.

    Raises:
        ConversationInvalid: one of them cannot be stored.
    """
    for name, value in (("userId", conversation.user_id), ("conversationId", conversation.conversation_id)):
        _check_plain(name, value)
    now = time.time_ns() // 1_000_000
    return [_validated(conversation, entry, number, now) for number, entry in enumerate(entries, start=1)]


def _validated(conversation: ConversationRef, entry: NewEntry, number: int, now: int) -> MemoryEntry:
    if entry.role == "summary":
        raise ConversationInvalid(f"Entry {number} has the role summary: only a compaction writes those.")
    _check_plain(f"The id of entry {number}", entry.id or "")
    try:
        made = MemoryEntry(
            **_address(conversation),
            id=entry.id or fresh_id(now, os.urandom(10)),
            role=entry.role,
            name=entry.name,
            content=entry.content,
            at=entry.at or from_milliseconds(now),
        )
        size = len(made.content.encode()) + len((made.name or "").encode())
    except ValidationError as error:
        raise ConversationInvalid(f"Entry {number} cannot be stored: {describe_problems(error)}.") from None
    except UnicodeEncodeError:
        raise ConversationInvalid(f"Entry {number} holds half a surrogate pair, which is no character.") from None
    if size > PAYLOAD_LIMIT_BYTES:
        raise ConversationInvalid(f"Entry {number} is longer than {PAYLOAD_LIMIT_BYTES // 1024} KB: divide it into several.")
    return made


def _check_plain(what: str, name: str) -> None:
    try:
        check_plain(name)
    except ValueError as error:
        raise ConversationInvalid(f"{what} is wrong: {error}.") from None


def entry_records(conversation: ConversationRef, entries: Sequence[MemoryEntry], known: Container[str]) -> dict[str, NewRecord]:
    """The records of entries by their ids, in their order: one for each id that is not known yet."""
    records: dict[str, NewRecord] = {}
    for entry in entries:
        if entry.id not in known and entry.id not in records:
            records[entry.id] = NewRecord(_own_key(conversation), encode(entry))
    return records


def compaction_record(conversation: ConversationRef, compaction: NewCompaction) -> NewRecord:
    """The record of a compaction.

    Raises:
        MemoryStoreError: it cannot be stored; the message says why.
    """
    try:
        record = MemoryCompaction(
            **_address(conversation),
            id=str(uuid.uuid4()),
            job_id=compaction.job_id,
            base_version=compaction.base_version,
            supersedes=list(compaction.supersedes),
            title=compaction.title,
            summary=compaction.summary,
            at=from_milliseconds(time.time_ns() // 1_000_000),
        )
    except ValidationError as error:
        raise MemoryStoreError(f"The compaction cannot be stored: {describe_problems(error)}.") from None
    if ids_bytes(record.supersedes) > SUPERSEDES_LIMIT_BYTES:
        raise MemoryStoreError(f"The compaction supersedes too many entries at once ({len(record.supersedes)}): take fewer.")
    return NewRecord(_own_key(conversation), encode(record))


def ids_bytes(ids: Sequence[str]) -> int:
    """About how much the ids take in a compaction's record."""
    return sum(len(entry_id.encode()) + 3 for entry_id in ids)


def _address(conversation: ConversationRef) -> dict[str, str]:
    return conversation._asdict()


def _own_key(conversation: ConversationRef) -> bytes:
    # A token of its own for every write: the log's compaction, which keeps one record a key, then never removes any.
    return memory_key(*conversation, uuid.uuid4().hex)
