"""Several who wait for one read of the log."""

from __future__ import annotations

import asyncio

from headrace.replay.recorded.shared_reads import SharedReads


async def test_who_comes_in_the_turn_in_which_a_read_ended_gets_one_of_their_own() -> None:
    """Whoever asks again and again until enough was read would ask for ever, and nobody else would have a turn."""
    reads: SharedReads[str, int] = SharedReads()

    async def first() -> int:
        return 1

    async def second() -> int:
        return 2

    waiting = asyncio.create_task(reads.read("key", first))
    while not (under_way := reads._under_way.get("key")) or not under_way.done():
        assert not waiting.done()
        await asyncio.sleep(0)
    assert await reads.read("key", second) == 2
    assert await waiting == 1
    assert reads._under_way == {}
