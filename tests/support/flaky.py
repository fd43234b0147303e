"""A worker whose jobs fail as often as a test says, and which remembers when each attempt began."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any

from headrace import JobContext, RetryPolicy
from support.memory_engines import GatedWorker


class FlakyWorker(GatedWorker):
    """Its jobs raise what they are told to, one exception an attempt, and then they complete.

    Attributes:
        started_at: when each attempt began, in seconds of the loop's time, by the job's name.
    """

    def __init__(self, retry: RetryPolicy | None = None, *, timeout: float | None = None, concurrency: int = 10) -> None:
        super().__init__(concurrency=concurrency)
        self.retry = retry
        self.timeout = timeout
        self.started_at: dict[str, list[float]] = {}
        self._errors: dict[str, deque[BaseException]] = {}

    def fail(self, name: str, *errors: BaseException) -> None:
        """The next attempts of a job raise these."""
        self._errors.setdefault(name, deque()).extend(errors)

    def waits(self, name: str) -> list[int]:
        """The whole seconds between the beginnings of a job's attempts."""
        moments = self.started_at.get(name, [])
        return [round(later - earlier) for earlier, later in itertools.pairwise(moments)]

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        name = args["name"]
        self.started_at.setdefault(name, []).append(asyncio.get_running_loop().time())
        result = await super().run(args, ctx)
        if errors := self._errors.get(name):
            raise errors.popleft()
        return result
