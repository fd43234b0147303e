"""Workers of a module, as commands of replays load them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from headrace import AbstractWorker, JobContext


class Count(AbstractWorker[dict[str, Any]]):
    """Returns its number; in a replay it does what REPLAY_MODE says."""

    name = "count"
    description = "Counts."

    async def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        number = int(args["number"])
        mode = os.environ["REPLAY_MODE"] if ctx.replaying else ""
        if mode == "fail" and number % 2:
            raise ValueError(f"odd: {number}")
        if mode == "hang" and number >= 10:
            await asyncio.get_running_loop().create_future()
        return number
