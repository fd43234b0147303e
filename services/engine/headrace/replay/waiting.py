"""How long a replayed attempt waits for what is read of the history: time that its job did not have to wait then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from headrace.ports import ConversationRef, MemorySnapshot, RecordingKey
from headrace.replay.history import History

ReadT = TypeVar("ReadT")


class WaitedHistory:
    """What one attempt reads of the history.

    Attributes:
        seconds: that it waited for it.
    """

    __slots__ = ("_history", "seconds")

    def __init__(self, history: History) -> None:
        self._history = history
        self.seconds = 0.0

    async def recordings(self, job_id: str, attempt: int) -> Mapping[RecordingKey, bytes]:
        """As `History.recordings`."""
        return await self._waited(self._history.recordings(job_id, attempt))

    async def memory_at(self, conversation: ConversationRef, at: int) -> MemorySnapshot:
        """As `History.memory_at`."""
        return await self._waited(self._history.memory_at(conversation, at))

    async def _waited(self, read: Awaitable[ReadT]) -> ReadT:
        began = time.perf_counter()
        try:
            return await read
        finally:
            self.seconds += time.perf_counter() - began
