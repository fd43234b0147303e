"""The memory of conversations for programs that are no worker: put a conversation in, and look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from headrace.broker.discovery import settings_of_this_folder
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.memory.importing import ParsedConversation, load_conversation
from headrace.memory.store import StoreOptions, TopicMemoryStore
from headrace.models import DEFAULT_TENANT, MemoryEntry
from headrace.ports import Appended, ConversationRef, MemorySnapshot, NewEntry
from headrace.settings import Settings


class Remembering:
    """The part of a `Client` that has to do with conversations."""

    _memories: TopicMemoryStore

    def memory(self, *, tenant: str = DEFAULT_TENANT) -> Memory:
        """The memory of a tenant's conversations, for as long as the client runs: it needs no `async with` of its own."""
        return Memory._over(self._memories, tenant)


class Memory:
    """The memory of one tenant's conversations. Use it as `async with Memory(settings) as memory:`.

    It reads only the partitions of the conversations that are asked for, and keeps nothing on disk when it is closed.

    Args:
        settings: names the broker and the namespace; the environment's when None, with this folder's broker if it names none.
    """

    def __init__(self, settings: Settings | None = None, *, tenant: str = DEFAULT_TENANT) -> None:
        self._settings = settings or settings_of_this_folder()
        self._tenant = tenant
        self._resources = AsyncExitStack()
        self._store: TopicMemoryStore

    @classmethod
    def _over(cls, store: TopicMemoryStore, tenant: str) -> Memory:
        """One that shares a store, which its owner stops."""
        memory = cls.__new__(cls)
        memory._tenant = tenant
        memory._store = store
        return memory

    async def __aenter__(self) -> Memory:
        """Connects.

        Raises:
            BrokerError: the broker cannot be used.
            ConfigurationError: no broker is named, or the topic would lose data.
        """
        async with AsyncExitStack() as resources:
            log = KafkaLog(self._settings)
            resources.push_async_callback(log.close)
            self._store = await resources.enter_async_context(
                TopicMemoryStore(log, Topics(self._settings.namespace), StoreOptions())
            )
            self._resources = resources.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    async def import_conversation(
        self,
        source: str | Path | Mapping[str, Any] | ParsedConversation,
        *,
        user_id: str | None = None,
        conversation_id: str | None = None,
    ) -> Appended:
        """Puts a conversation in. Turns that are there already, by their number, are not added again.

        Args:
            source: path of a JSON or JSON lines file, the JSON object itself, or what `load_conversation` made of either.
            user_id: whose it is; what the source says when None.
            conversation_id: what it is called; what the source says when None.

        Raises:
            ConversationInvalid: the source is no conversation, or a turn of that number is there with another role or text;
                nothing was put in.
        """
        if not isinstance(source, ParsedConversation):
            source = load_conversation(source, user_id=user_id, conversation_id=conversation_id)
        return await self._store.append(self._ref(source.user_id, source.conversation_id), source.entries, same=True)

    async def append(self, user_id: str, conversation_id: str, entries: Sequence[NewEntry]) -> Appended:
        """Adds entries in this order. Those whose id is there already are not added again.

        Raises:
            ConversationInvalid: an entry cannot be stored; none was.
        """
        return await self._store.append(self._ref(user_id, conversation_id), entries)

    async def read(self, user_id: str, conversation_id: str) -> MemorySnapshot:
        """What the conversation's memory is now. One never heard of is empty."""
        return await self._store.read(self._ref(user_id, conversation_id))

    async def history(self, user_id: str, conversation_id: str) -> list[tuple[MemoryEntry, str | None]]:
        """All that was ever part of it, each with the id of the summary that replaced it and stands after it."""
        return await self._store.history(self._ref(user_id, conversation_id))

    def _ref(self, user_id: str, conversation_id: str) -> ConversationRef:
        return ConversationRef(self._tenant, user_id, conversation_id)
