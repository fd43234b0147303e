"""What has begun to end is not broken off by who is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from types import TracebackType

import pytest

from headrace.runtime import ended_in_order


class Thing:
    """Ends when it may."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.ending = asyncio.Event()
        self.may_end = asyncio.Event()
        self.has_ended = False
        self.seen: BaseException | None = None

    async def __aenter__(self) -> Thing:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seen = error
        self.ending.set()
        await self.may_end.wait()
        self.has_ended = True
        if self.fails is not None:
            raise self.fails


async def used(thing: Thing, error: Exception | None = None) -> None:
    async with ended_in_order(thing):
        if error is not None:
            raise error


async def test_who_is_cancelled_twice_while_it_ends_hears_of_it_when_it_has_ended() -> None:
    thing = Thing()
    task = asyncio.create_task(used(thing))
    await thing.ending.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    thing.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert thing.has_ended


async def test_it_hears_what_has_ended_the_block_and_the_caller_what_its_end_raises() -> None:
    thing, error = Thing(), ValueError("of the block")
    thing.may_end.set()
    with pytest.raises(ValueError, match="of the block"):
        await used(thing, error)
    assert thing.seen is error

    failing = Thing(fails=KeyError("of the end"))
    failing.may_end.set()
    with pytest.raises(KeyError, match="of the end"):
        await used(failing)
