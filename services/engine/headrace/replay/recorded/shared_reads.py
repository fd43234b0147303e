"""Reads of the log for which several wait at a time: whoever of them gives up, the others get what is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

KeyT = TypeVar("KeyT")
ReadT = TypeVar("ReadT")


class SharedReads(Generic[KeyT, ReadT]):
    """Of each key one read at a time, in a task of its own. What it gives is not kept."""

    def __init__(self) -> None:
        self._under_way: dict[KeyT, asyncio.Task[ReadT]] = {}

    async def read(self, key: KeyT, read: Callable[[], Coroutine[Any, Any, ReadT]]) -> ReadT:
        """What the read of that key gives which is under way, or else this one. Raises what it raises."""
        task = self._under_way.get(key)
        # One that has just ended stays until the loop's next turn, and what it gives may be too little for who comes now.
        if task is None or task.done():
            task = self._under_way[key] = asyncio.create_task(read(), name="history-read")
            task.add_done_callback(partial(self._ended, key))
        return await asyncio.shield(task)

    def _ended(self, key: KeyT, task: asyncio.Task[ReadT]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]

    async def stop(self) -> None:
        """Ends what is under way, and waits for its end."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
