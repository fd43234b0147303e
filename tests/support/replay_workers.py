"""Workers of a module, as commands of replays load them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from headrace import AbstractWorker, JobContext


class Count(AbstractWorker[dict[str, Any]]):
    """Returns its number; in a replay it does what REPLAY_MODE says."""

    name = "count"
    description = "Counts."
    barrier: asyncio.Barrier | None = None
    running = 0

    async def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        number = int(args["number"])
        mode = os.environ["REPLAY_MODE"] if ctx.replaying else ""
        if mode == "fail" and number % 2:
            raise ValueError(f"odd: {number}")
        if mode == "hang" and number >= 10:
            await asyncio.get_running_loop().create_future()
        if mode == "ask":
            return int(await ctx.recorded("number", lambda: _note(number)))
        if mode == "gated":
            while number >= _opened_to():  # noqa: ASYNC110 - by another process
                await asyncio.sleep(0.02)
        if mode == "together":
            await self.meet(int(os.environ["REPLAY_TOGETHER"]))
        return number

    async def meet(self, count: int) -> None:
        """Waits until so many run together, and notes how many do."""
        self.barrier = self.barrier or asyncio.Barrier(count)
        self.running += 1
        _note(self.running)
        await self.barrier.wait()
        self.running -= 1


if "REPLAY_HOLD" in os.environ:
    from support.held_replays import hold_as_told

    hold_as_told()


def _opened_to() -> int:
    """Those below this number may end."""
    return int(Path(os.environ["REPLAY_GATE"]).read_text() or 0)


def _note(number: int) -> int:
    """Has an effect outside: a line in a file."""
    with Path(os.environ["REPLAY_NOTES"]).open("a") as notes:
        notes.write(f"{number}\n")
    return number
