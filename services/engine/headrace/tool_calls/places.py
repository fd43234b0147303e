"""How many calls are done at a time, and who comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Places:
    """Of each caller one call at a time waits for a place, so that whoever has many of them comes no sooner than others.

    Args:
        count: how many calls may be done at a time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._left = asyncio.Event()

    async def turn(self, line: asyncio.Lock, turn: Callable[[], Awaitable[None]] | None) -> None:
        """Returns when a call may be done, which then has to take its place at once.

        Args:
            line: where the calls of its caller stand.
            turn: returns when the caller may do so much; None where nobody has to wait.
        """
        async with line:
            while True:
                if turn is not None:
                    await turn()
                # It may have been the caller's turn, and not be any more when a place is left: so both hold at one moment.
                if self._free > 0:
                    return
                self._left.clear()
                await self._left.wait()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A call is done, for as long as the block lasts."""
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
            self._left.set()
