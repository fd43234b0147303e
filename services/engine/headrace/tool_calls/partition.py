"""A partition of calls, as the member of the group that holds it knows it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from headrace.core.watermark import Watermark
from headrace.ports import TopicPartition
from headrace.tool_calls.calls import CallKey

MOST_REMEMBERED: Final = 100_000
"""How many answered calls of a partition are known at a time; the oldest are forgotten first."""


class CallPartition:
    """What is under way in a partition, and what is done.

    Attributes:
        live: whether it is still held.
        ready: whether it is known which calls are answered.
        closed: whether nothing more is taken in.
        lost: whether nothing more is written of it.
        under_way: the tasks that answer calls, by the offsets of these.
        waiting: the offsets of those among them that are not being done yet.
        committed: the offset that the group has.
    """

    def __init__(self, source: TopicPartition) -> None:
        self.source = source
        self.live = True
        self.ready = False
        self.closed = False
        self.lost = False
        self.under_way: dict[int, asyncio.Task[None]] = {}
        self.waiting: set[int] = set()
        self.committed: int | None = None
        self._watermark: Watermark | None = None
        self._next = 0
        self._answered: OrderedDict[CallKey, None] = OrderedDict()
        self._asked: dict[CallKey, int] = {}
        self._ids: Counter[str] = Counter()

    def learn(self, answered: Iterable[CallKey]) -> None:
        """Takes note of calls that were answered, oldest first."""
        for key in answered:
            self.answered(key)

    def begin(self, offset: int) -> bool:
        """Takes note of a record that was read; tells whether it is a new one."""
        if self._watermark is None:
            # The first that is read stands where the group has committed, or where the log starts.
            self._watermark, self._next = Watermark(offset), offset
        if offset < self._next:
            return False
        self._watermark.skip(self._next, offset)
        self._next = offset + 1
        return True

    def doing(self, key: CallKey, offset: int) -> asyncio.Task[None] | None:
        """What answers this call for another record of it, if that is under way."""
        asked = self._asked.get(key, offset)
        return None if asked == offset else self.under_way.get(asked)

    def is_new(self, key: CallKey, offset: int) -> bool:
        """Whether the call at this offset is neither answered nor under way at another; if so, it is under way from now on."""
        if key in self._answered or self._asked.get(key, offset) != offset:
            return False
        if key not in self._asked:
            self._asked[key] = offset
            self._ids[key.call_id] += 1
        return True

    def knows(self, call_id: str) -> bool:
        """Whether a call of this id is under way, or answered, whoever's it is."""
        return call_id in self._ids

    def work(self, offset: int, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begins to do what the record at an offset asks for."""
        task = self.under_way[offset] = asyncio.create_task(doing, name=f"tool-call-{self.source.partition}-{offset}")
        task.add_done_callback(partial(self._ended, offset))
        return task

    def _ended(self, offset: int, task: asyncio.Task[None]) -> None:
        self.under_way.pop(offset, None)
        if task.cancelled() or task.exception() is not None:
            # Another record of the same call must not be taken for one whose first is under way.
            for key in [key for key, asked in self._asked.items() if asked == offset]:
                self.given_up(key)

    def waiting_works(self) -> list[asyncio.Task[None]]:
        """The tasks that are not doing anything yet."""
        return [work for offset, work in self.under_way.items() if offset in self.waiting]

    @contextmanager
    def waits(self, offset: int) -> Iterator[None]:
        """The call at an offset is not being done, for as long as the block lasts."""
        self.waiting.add(offset)
        try:
            yield
        finally:
            self.waiting.discard(offset)

    def answered(self, key: CallKey) -> None:
        """The answer to a call is acknowledged."""
        if key not in self._answered:
            self._ids[key.call_id] += 1
        self._answered[key] = None
        self._answered.move_to_end(key)
        self.given_up(key)
        if len(self._answered) > MOST_REMEMBERED:
            oldest, _ = self._answered.popitem(last=False)
            self._forget(oldest)

    def given_up(self, key: CallKey) -> None:
        """It is under way no more: unless it was answered, a record of it that comes is a new one."""
        if self._asked.pop(key, None) is not None:
            self._forget(key)

    def _forget(self, key: CallKey) -> None:
        self._ids[key.call_id] -= 1
        if not self._ids[key.call_id]:
            del self._ids[key.call_id]

    def finish(self, offset: int) -> None:
        """Nothing more is to be done for the record at an offset. Of a lost partition that is not so: nothing was written."""
        if self.lost:
            return
        assert self._watermark is not None
        self._watermark.finish(offset)

    def to_commit(self) -> int | None:
        """The offset below which everything is done, where the group does not have it yet."""
        if self._watermark is None or self._watermark.position == self.committed:
            return None
        return self._watermark.position
