"""Workers that do what a test says, and one call that runs a recorded job of theirs again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace import AbstractWorker, JobContext
from headrace.replay import RecordedJob, Rerun, Rerunner, RerunOptions
from support.histories import InMemoryHistory


class Does(AbstractWorker[dict[str, Any]]):
    """Does what the test says."""

    name = "does"

    def __init__(self, behaves: Callable[..., Any], **attributes: Any) -> None:
        self.behaves = behaves
        for name, value in attributes.items():
            setattr(self, name, value)

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        return await self.behaves(args, ctx)


class DoesInThread(Does):
    """The same as a plain function."""

    def run(self, args: dict[str, Any], ctx: JobContext) -> Any:  # a plain function, and not a coroutine function
        return self.behaves(args, ctx)


async def rerun(
    worker: AbstractWorker[Any],
    job: RecordedJob,
    history: InMemoryHistory | None = None,
    *,
    attempt: int | None = None,
    options: RerunOptions | None = None,
) -> Rerun:
    async with Rerunner(history or InMemoryHistory(), [worker], options) as rerunner:
        return await rerunner.rerun(job, attempt=attempt)
