"""Records that are appended together: what became of each, and how those that nobody waits for any more are taken back."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from headrace.errors import AppendTimeout
from headrace.kafka.lane import Call, Lane
from headrace.kafka.room import Room
from headrace.ports import AppendFailed, NewRecord, Outcome

# What a record takes beside its bytes while it waits: the objects that hold it.
_OVERHEAD_BYTES = 512


class Appending:
    """One call of `LogWriter.append_all`. Its records take room in their writer until their fate is known.

    Args:
        seconds: how long anything is waited for.
    """

    def __init__(self, count: int, room: Room, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._outcomes: list[Outcome | None] = [None] * count
        self._missing = count
        self._entered = 0
        self._room = room
        self._seconds = seconds
        self._deadline = self._loop.time() + seconds
        self._waiting: dict[int, tuple[Lane, Call]] = {}
        self._settled: asyncio.Future[None] = self._loop.create_future()

    async def enter(self, record: NewRecord) -> Call:
        """Waits until there is room for the next record. Raises: TimeoutError."""
        size = _OVERHEAD_BYTES + _size_of(record)
        if not self._room.take_at_once(size):
            async with asyncio.timeout_at(self._deadline):
                await self._room.take(size)
        index = self._entered
        self._entered += 1
        return Call((record,), int(time.time() * 1000), partial(self._settle, index, size))

    def placed(self, lane: Lane, call: Call) -> None:
        """Notes where the record that entered last waits."""
        self._waiting[self._entered - 1] = (lane, call)

    async def settled(self) -> None:
        """Waits until the fate of every record is known, or the time is over."""
        if not self._missing:
            return
        # A timer by itself: `asyncio.timeout` takes four times as long, and every job that is accepted comes by here.
        timer = self._loop.call_at(self._deadline, self._end_waiting)
        try:
            await self._settled
        finally:
            timer.cancel()

    def withdraw(self) -> None:
        """Takes back what is not on its way yet: the time is over."""
        if not self._waiting:
            return
        taken_back = _timeout(self._seconds, may_land=False)
        for lane, call in list(self._waiting.values()):
            if lane.withdraw(call):
                call.done(taken_back)
        self._waiting.clear()

    def outcomes(self) -> list[Outcome]:
        """What is known of each record by now, in their order."""
        if not self._missing:
            return [outcome for outcome in self._outcomes if outcome is not None]
        unanswered, outside = _timeout(self._seconds, may_land=True), _timeout(self._seconds, may_land=False)
        known = [outcome or unanswered for outcome in self._outcomes[: self._entered]]
        return known + [outside] * (len(self._outcomes) - self._entered)

    def _settle(self, index: int, size: int, outcome: Outcome) -> None:
        self._room.give_back(size)
        self._outcomes[index] = outcome
        self._waiting.pop(index, None)
        self._missing -= 1
        if not self._missing:
            self._end_waiting()

    def _end_waiting(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)


def _timeout(seconds: float, *, may_land: bool) -> AppendFailed:
    return AppendFailed(AppendTimeout(may_land=may_land, seconds=seconds), may_land=may_land)


def _size_of(record: NewRecord) -> int:
    size = len(record.key) + len(record.value or b"")
    return size + sum(len(name) + len(content) for name, content in record.headers) if record.headers else size
