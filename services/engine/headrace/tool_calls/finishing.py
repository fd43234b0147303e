"""The end of what is under way in partitions that are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from headrace.tool_calls.partition import CallPartition

_LOOK_SECONDS: Final = 0.1

CUT_OFF_SECONDS: Final = 2.0
"""For so long a call that is cut off may tell that it was."""


async def finish(partitions: Collection[CallPartition], seconds: float) -> None:
    """Returns when nothing is under way any more: what is being done has so many seconds, and what waits for its turn is left.

    What is not done by then is cut off, and has `CUT_OFF_SECONDS`; what goes on all the same does so without being able to write
    anything: somebody else may have the partition.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    left: set[asyncio.Task[None]] = set()
    while (works := _under_way(partitions)) and clock() < deadline:
        # What only now turns out to have to wait is left, too.
        for work in {work for partition in partitions for work in partition.waiting_works()} - left:
            left.add(work)
            work.cancel()
        await asyncio.wait(works, timeout=min(_LOOK_SECONDS, max(0.0, deadline - clock())))
    if works:
        for work in works:
            work.cancel()
        await asyncio.wait(works, timeout=CUT_OFF_SECONDS)
    for partition in partitions:
        partition.lost = True


def _under_way(partitions: Collection[CallPartition]) -> list[asyncio.Task[None]]:
    return [work for partition in partitions for work in partition.under_way.values() if not work.done()]
