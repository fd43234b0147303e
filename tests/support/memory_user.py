"""A process that uses one conversation's memory, for tests in which many do at once, or in which one is killed.

`share <servers> <namespace> <name> <view>`: says `ready`; at the next line it appends and compacts, many times. Of its first
compaction it has read what it needs when it says `checked`, and writes at the next line. In the end it says which jobs have
compacted, and at the next line what it sees.

`die <servers> <namespace> <job> <view>`: compacts for a job; acknowledged, it says `written` and never goes on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from headrace.core.topics import Topics
from headrace.errors import MemoryConflict
from headrace.kafka.log import KafkaLog
from headrace.kafka.writer import KafkaWriter
from headrace.memory import BoundMemory, StoreOptions, TopicMemoryStore
from headrace.memory.compaction import Compactor
from headrace.memory.window import WindowPolicy
from headrace.ports import Acknowledged, ConversationRef, MemorySnapshot, NewCompaction, NewEntry, NewRecord, TopicPartition
from headrace.settings import load_settings
from headrace.tool_models import (
    MemoryCompactionArguments,
)
from support.memories import AT, FirstWords

SHARED = ConversationRef("default", "ann", "shared")
ROUNDS = 12
ENTRIES = 8
POLICY = WindowPolicy(token_budget=120, keep_turns=3)


def seen(snapshot: MemorySnapshot) -> dict[str, Any]:
    """A snapshot as JSON, so that those of several processes can be compared."""
    return {
        "version": snapshot.version,
        "tokens": snapshot.tokens,
        "entries": [entry.to_wire() for entry in snapshot.entries],
        "compactions": [dataclasses.asdict(compaction) for compaction in snapshot.compactions],
    }


def say(what: object) -> None:
    sys.stdout.write(f"{what if isinstance(what, str) else json.dumps(what)}\n")
    sys.stdout.flush()


async def hear() -> None:
    await asyncio.to_thread(sys.stdin.readline)


class MeetingWriter(KafkaWriter):
    """A writer that waits before its first compaction, so that all processes have read before any of them writes."""

    waits = True

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        if self.waits:
            self.waits = False
            say("checked")
            await hear()
        return await super().append(target, record, timeout=timeout)


class MeetingLog(KafkaLog):
    """A log whose writers wait once."""

    def writer(self) -> KafkaWriter:
        return MeetingWriter(self._cluster, self._administration)


async def share(servers: str, namespace: str, name: str, view: str) -> None:
    """Appends and compacts again and again, in its own name, while others do the same."""
    log = MeetingLog(load_settings(bootstrap_servers=servers, namespace=namespace))
    async with TopicMemoryStore(log, Topics(namespace), StoreOptions(view_path=Path(view))) as store:
        say("ready")
        await hear()
        done = []
        for number in range(ROUNDS):
            entries = [
                NewEntry(role="user", content=f"{name} says {number} and {each}, twice or more", id=f"{name}-{number}-{each}")
                for each in range(ENTRIES)
            ]
            compactor = Compactor(BoundMemory(store, SHARED.tenant, f"{name}-job-{number}"), FirstWords(), POLICY, lambda: AT)
            arguments = MemoryCompactionArguments(user_id=SHARED.user_id, conversation_id=SHARED.conversation_id)
            appended, compacted = await asyncio.gather(
                store.append(SHARED, entries), compactor.compact(arguments), return_exceptions=True
            )
            if isinstance(appended, BaseException):
                raise appended
            if isinstance(compacted, MemoryConflict):
                continue  # the others came first in every round of it
            if isinstance(compacted, BaseException):
                raise compacted
            if compacted.compacted:
                done.append(f"{name}-job-{number}")
        say({"done": done})
        await hear()
        say(seen(await store.read(SHARED)))
    await log.close()


class LastWords(KafkaWriter):
    """A writer that never answers when a record is acknowledged."""

    async def append(self, target: TopicPartition, record: NewRecord, *, timeout: float) -> Acknowledged:
        await super().append(target, record, timeout=timeout)
        say("written")
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


class LastLog(KafkaLog):
    """A log whose writers never answer."""

    def writer(self) -> KafkaWriter:
        return LastWords(self._cluster, self._administration)


async def die(servers: str, namespace: str, job: str, view: str) -> None:
    """Writes a compaction, and is killed before it can look what became of it."""
    log = LastLog(load_settings(bootstrap_servers=servers, namespace=namespace))
    async with TopicMemoryStore(log, Topics(namespace), StoreOptions(view_path=Path(view))) as store:
        await store.compact(
            SHARED, NewCompaction(job_id=job, base_version=-1, supersedes=["e0", "e1"], summary="of the one that was killed")
        )


def main() -> None:
    mode, *arguments = sys.argv[1:]
    asyncio.run(share(*arguments) if mode == "share" else die(*arguments))


if __name__ == "__main__":
    main()
