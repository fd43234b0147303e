"""Conversations' memory as it was, from the records of `memory`: those partitions that are asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from functools import partial
from threading import Lock
from typing import Final, NamedTuple

from headrace.core.partitions import key_partition
from headrace.core.topics import Topics
from headrace.memory import tables
from headrace.ports import ConversationRef, Log, MemorySnapshot, Record, TopicPartition
from headrace.reading import batches_between
from headrace.replay.history import Began
from headrace.replay.recorded.past_conversation import BY_BROKER, PastConversation, TimedRow
from headrace.replay.recorded.scanning import reading
from headrace.replay.recorded.shared_reads import SharedReads

_MOST_FOLDED: Final = 200_000
"""Records of conversations that are kept folded, those of the one that was asked for last aside."""


class PastConversations:
    """The records of conversations, in the order of the log. It may be asked from any thread, also while more are added."""

    def __init__(self, *, most_folded: int = _MOST_FOLDED) -> None:
        self._rows: dict[str, list[TimedRow]] = {}
        self._most_folded = most_folded
        self._folded: OrderedDict[str, PastConversation] = OrderedDict()
        self._records_folded = 0
        self._lock = Lock()

    def add(self, records: Iterable[Record], partitions: int) -> None:
        """Takes in records of one partition, which come in their order."""
        with self._lock:
            for record in records:
                for row in tables.rows_of([record], partitions):
                    by_broker = record.timestamp_type == BY_BROKER
                    if (folded := self._folded.pop(row.conversation, None)) is not None:
                        self._records_folded -= len(folded.rows)
                    self._rows.setdefault(row.conversation, []).append(TimedRow(record.timestamp, by_broker, row))

    def records_until(self, conversation: ConversationRef, at: int) -> Sequence[TimedRow]:
        """The records of a conversation of which its memory at a time, or before it, is made."""
        with self._lock:
            past = self._of(conversation)
            return past.rows[: past.seen(at)]

    def at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        """The conversation as it was read; see `History.memory_at`."""
        with self._lock:
            past = self._of(conversation)
            return past.after(past.seen(at))

    def _of(self, conversation: ConversationRef) -> PastConversation:
        key = tables.key_of(conversation)
        past = self._folded.get(key)
        if past is None:
            past = self._folded[key] = PastConversation(self._rows.get(key, ()))
            self._records_folded += len(past.rows)
            # Who asks comes again soon, with the conversation's next job.
            while self._records_folded > self._most_folded and len(self._folded) > 1:
                self._records_folded -= len(self._folded.popitem(last=False)[1].rows)
        self._folded.move_to_end(key)
        return past


class _Read(NamedTuple):
    """What was read of a partition, the offset up to which, and for which look at the log."""

    past: PastConversations
    end: int
    look: int


class MemoryHistory:
    """The memory that a namespace's conversations had. Those partitions are read that are asked for, each once, and on when
    another look is wanted; what was read is kept.
    """

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topic = topics.memory.name
        self._counting: SharedReads[None, int] = SharedReads()
        self._reading: SharedReads[int, None] = SharedReads()
        self._sizing: SharedReads[int, None] = SharedReads()
        self._partitions: int | None = None
        self._sizes: dict[int, int] = {}
        self._read: dict[int, _Read] = {}
        self._look = self._counted_at = 0

    def look_again(self) -> None:
        """From now on what is given is by all that is in the log now."""
        self._look += 1

    async def at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        """A conversation's memory as it was; see `History.memory_at`. One never heard of is empty.

        Raises:
            BrokerError: the brokers cannot be reached.
        """
        return await asyncio.to_thread((await self._of(conversation)).at, conversation, at)

    async def records_until(self, conversation: ConversationRef, at: int) -> Sequence[TimedRow]:
        """The records from which `at` makes it, for that time or one before it."""
        return await asyncio.to_thread((await self._of(conversation)).records_until, conversation, at)

    async def read_ahead(self, conversation: ConversationRef, *, at_most: int | None) -> None:
        """Reads the partition of a conversation, so that who asks for it later need not wait.

        Args:
            at_most: one that has more records than so many is left alone; None for any.

        Raises:
            BrokerError: the brokers cannot be reached.
        """
        number = await self._number_of(conversation)
        if number is None or self._is_current(number, self._look):
            return
        if at_most is not None:
            if number not in self._sizes:
                await self._sizing.read(number, partial(self._measure, number))
            if self._sizes[number] > at_most:
                return
        await self._of(conversation)

    async def stop(self) -> None:
        """Ends what is being read."""
        await self._counting.stop()
        await self._sizing.stop()
        await self._reading.stop()

    async def _of(self, conversation: ConversationRef) -> PastConversations:
        number = await self._number_of(conversation)
        if number is None or self._partitions is None:
            return PastConversations()
        look = self._look
        # A read that was under way may have been an earlier look.
        while not self._is_current(number, look):
            await self._reading.read(number, partial(self._read_partition, number, self._partitions, look))
        return self._read[number].past

    def _is_current(self, number: int, look: int) -> bool:
        return (read := self._read.get(number)) is not None and look <= read.look

    async def _number_of(self, conversation: ConversationRef) -> int | None:
        """The partition of a conversation; None where there is no such topic."""
        look = self._look
        if self._partitions is None or (not self._partitions and self._counted_at < look):
            self._partitions = await self._counting.read(None, self._count)
            self._counted_at = look
        return key_partition(tables.key_of(conversation), self._partitions) if self._partitions else None

    async def _measure(self, number: int) -> None:
        place = TopicPartition(self._topic, number)
        async with reading(self._log) as reader:
            starts, ends = await reader.start_offsets([place]), await reader.end_offsets([place])
        self._sizes[number] = ends[place] - starts[place]

    async def _count(self) -> int:
        exists = self._topic in await self._log.topic_names()
        return await self._log.partition_count(self._topic) if exists else 0

    async def _read_partition(self, number: int, partitions: int, look: int) -> None:
        place, before = TopicPartition(self._topic, number), self._read.get(number)
        past = PastConversations() if before is None else before.past
        more: list[Sequence[Record]] = []
        async with reading(self._log) as reader:
            starts, ends = await reader.start_offsets([place]), await reader.end_offsets([place])
            first = starts[place] if before is None else before.end
            bounds = {place: (first, ends[place])} if first < ends[place] else {}
            async with aclosing(batches_between(reader, bounds)) as batches:
                async for _, records in batches:
                    if before is None:
                        await asyncio.to_thread(past.add, records, partitions)
                    else:
                        more.append(records)
        # Of a read that fails in its midst nothing is taken in: it begins there anew.
        for records in more:
            await asyncio.to_thread(past.add, records, partitions)
        # Here, and not by who waits: all who waited may have given up.
        self._read[number] = _Read(past, max(first, ends[place]), look)
