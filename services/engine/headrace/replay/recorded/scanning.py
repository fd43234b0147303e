"""Reading many partitions side by side, each in the order of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from headrace.ports import Log, LogReader

READERS: Final = 4
"""How many connections read at a time."""

WorkT = TypeVar("WorkT")
FoundT = TypeVar("FoundT")


@asynccontextmanager
async def reading(log: Log) -> AsyncIterator[LogReader]:
    """A started reader for as long as the block lasts."""
    reader = log.reader()
    try:
        await reader.start()
        yield reader
    finally:
        await reader.stop()


async def side_by_side(
    log: Log, work: Sequence[WorkT], read: Callable[[LogReader, WorkT], AsyncGenerator[FoundT]]
) -> AsyncGenerator[FoundT]:
    """What is found by each piece of work, as it comes. A few readers do one piece after the other, each with one at a time.

    Raises what the reading raises; what is under way ends then, and when nobody wants any more.
    """
    waiting = list(reversed(work))
    found: asyncio.Queue[FoundT | _Over] = asyncio.Queue(maxsize=2 * READERS)

    async def read_on() -> None:
        async with reading(log) as reader:
            while waiting:
                async with aclosing(read(reader, waiting.pop())) as pieces:
                    async for piece in pieces:
                        await found.put(piece)

    async def read_all() -> None:
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(READERS, len(work))):
                    group.create_task(read_on())
        except ExceptionGroup as failed:
            failure = failed.exceptions[0]
        await found.put(_Over(failure))

    reading_all = asyncio.create_task(read_all(), name="history-reading")
    try:
        while not isinstance(piece := await found.get(), _Over):
            yield piece
        if piece.failure is not None:
            raise piece.failure
    finally:
        reading_all.cancel()
        await asyncio.gather(reading_all, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Over:
    """All was read, or something failed."""

    failure: Exception | None
