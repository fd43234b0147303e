"""A view of jobs in a test: opened, looked at, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from headrace.views.job_intake import JobIntake
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.local_keeper import LocalKeeper
from headrace.views.workers import WorkerDirectory
from support.view_children import child_over
from support.written_jobs import TOPICS, WrittenLog

PATIENCE = 20.0

by_process = False
"""Whether views are kept as by a process of their own: set by the fixture `both_keepers`."""


@contextlib.asynccontextmanager
async def opened(log: WrittenLog, path: Path, *, wait: bool = True) -> AsyncIterator[JobView]:
    directory = WorkerDirectory(log, TOPICS)
    view = JobView(log, TOPICS, directory, path, process=child_over(log, TOPICS) if by_process else None)
    await directory.start()
    await view.start()
    try:
        if wait:
            await view.wait_caught_up(PATIENCE)
        yield view
    finally:
        await view.stop()
        await directory.stop()


def intake_of(view: JobView) -> JobIntake | None:
    """What keeps a view in this process; None where another one does."""
    keeper = view._keeper
    return keeper._intake if isinstance(keeper, LocalKeeper) else None


async def until(condition: Callable[[], bool]) -> None:
    """Polls, as nothing tells of it."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def statuses(view: JobView) -> dict[str, str]:
    found = await view.list_jobs(JobFilter(), limit=1000)
    assert found.next_cursor is None
    return {job.id: job.status.value for job in found.jobs}


async def eventually(view: JobView, expected: dict[str, str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while (found := await statuses(view)) != expected:
            assert found is not None
