"""A bound for the bytes of records that a writer holds for its callers."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """So many bytes, given out in the order in which they are asked for.

    Args:
        capacity: bytes. What is larger than all of it is let in when nothing else is there.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._closed = False
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes that are taken and not given back."""
        return self._used

    def take_at_once(self, size: int) -> bool:
        """Takes room for `size` bytes, unless `take` would have to wait for it: then it takes nothing, and returns False."""
        if not self._closed and (self._waiting or not self._fits(size)):
            return False
        self._used += size
        return True

    async def take(self, size: int) -> None:
        """Waits until there is room for `size` bytes and nobody waits before, and takes it; returns at once after `close`."""
        if self.take_at_once(size):
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, admitted)
        self._waiting.append(entry)
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.give_back(size)
            else:
                self._waiting.remove(entry)
                # What waits behind may be small enough for what is free.
                self._admit()
            raise

    def give_back(self, size: int) -> None:
        """Frees what was taken."""
        self._used -= size
        self._admit()

    def close(self) -> None:
        """Lets in everybody who waits or comes: nothing is kept any more."""
        self._closed = True
        self._admit()

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._capacity

    def _admit(self) -> None:
        while self._waiting and (self._closed or self._fits(self._waiting[0][0])):
            size, admitted = self._waiting.popleft()
            self._used += size
            admitted.set_result(None)
