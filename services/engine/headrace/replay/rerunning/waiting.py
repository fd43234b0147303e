"""How long a replayed attempt waits for what is read of the history: time that its job did not have to wait then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from headrace.errors import BrokerError
from headrace.ports import ConversationRef, MemorySnapshot, RecordingKey
from headrace.replay.history import Began, History, ReadsMemoryAhead, RecordedJob
from headrace.replay.recorded.conversations import conversations_of

ReadT = TypeVar("ReadT")


class WaitedHistory:
    """What one attempt reads of the history.

    Attributes:
        failure: why something could not be read, if so: whatever the attempt makes of that says nothing of its code.
    """

    __slots__ = ("_ahead", "_began", "_history", "_reads", "_seconds", "failure")

    def __init__(self, history: History) -> None:
        self._history = history
        self._ahead: dict[tuple[str, int], Mapping[RecordingKey, bytes]] = {}
        self._reads = 0
        self._began = 0.0
        self._seconds = 0.0
        self.failure: BrokerError | None = None

    @property
    def seconds(self) -> float:
        """How long it has waited for that up to now; for several reads at a time no longer than for one."""
        return self._seconds + (time.perf_counter() - self._began if self._reads else 0.0)

    async def read_ahead(self, job: RecordedJob, attempt: int) -> None:
        """Reads what an attempt recorded before it is run: a time limit of the worker's own would not know of the reading."""
        self._ahead[job.id, attempt] = await self._history.recordings(job, attempt)

    async def read_memory_ahead(self, job: RecordedJob, *, at_most: int | None) -> None:
        """Does the same for the memory of the conversations that a job names; see `ReadsMemoryAhead`."""
        for conversation in conversations_of(job):
            if isinstance(self._history, ReadsMemoryAhead):
                await self._history.read_memory_ahead(conversation, at_most=at_most)

    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        """As `History.recordings`."""
        if (ahead := self._ahead.get((job.id, attempt))) is not None:
            return ahead
        return await self._waited(self._history.recordings(job, attempt))

    async def memory_at(self, conversation: ConversationRef, at: Began) -> MemorySnapshot:
        """As `History.memory_at`."""
        return await self._waited(self._history.memory_at(conversation, at))

    async def _waited(self, read: Awaitable[ReadT]) -> ReadT:
        if not self._reads:
            self._began = time.perf_counter()
        self._reads += 1
        try:
            return await read
        except BrokerError as error:
            self.failure = error
            raise
        finally:
            seconds = self.seconds
            self._reads -= 1
            if not self._reads:
                self._seconds = seconds
