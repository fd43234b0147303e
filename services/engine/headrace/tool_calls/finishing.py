"""The end of what is under way in partitions that are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from headrace.tool_calls.partition import CallPartition

_LOOK_SECONDS: Final = 0.1


async def finish(partitions: Collection[CallPartition], seconds: float) -> None:
    """Returns when nothing is under way any more: what is being done has so many seconds, and what waits for its turn is left."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while works := [work for partition in partitions for work in partition.under_way.values() if not work.done()]:
        late = works if clock() >= deadline else [work for partition in partitions for work in partition.waiting_works()]
        for work in late:
            work.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        # What only now turns out to have to wait is left, too.
        await asyncio.wait(works, timeout=min(_LOOK_SECONDS, max(0.0, deadline - clock())))
