"""Watches one worker change: what it is, on how many engines it runs, whether it is paused, and how many jobs of it there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from headrace.errors import WorkerUnknown
from headrace.models import WorkerSummary
from headrace.views.job_queries import WorkerCounts
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory

COUNT_SECONDS: Final = 3.0
"""Jobs of one worker are counted at most so often, however many change and however many watch."""


class WorkerWatching:
    """Watches workers.

    Args:
        directory: says which workers and engines there are.
        seconds: how far apart the jobs of one worker are counted for the same tenant and user, at least;
            `COUNT_SECONDS` when left out.
    """

    def __init__(self, directory: WorkerDirectory, seconds: float | None = None) -> None:
        self._directory = directory
        self._seconds = COUNT_SECONDS if seconds is None else seconds
        self._counting: dict[tuple[str, str, str | None], _Counting] = {}

    async def watch(self, view: JobView, name: str, tenant: str, user_id: str | None) -> AsyncGenerator[WorkerSummary]:
        """See `Client.watch_worker`."""
        clock = asyncio.get_running_loop().time
        told: WorkerSummary | None = None
        with (
            self._counts(view, name, tenant, user_id) as counting,
            view.changes.bell(tenant=tenant, worker=name, user_id=user_id) as bell,
            self._directory.watch(bell.ring),
        ):
            changed: float | None = clock()
            mine = False
            # What was counted for others a moment ago will do for the beginning.
            counts = await counting.after(clock() - self._seconds)
            while True:
                # Before it is told who is up: who listens may take longer than that.
                lapse = self._directory.seconds_to_lapse(name)
                lapses_at = None if lapse is None else clock() + lapse
                summary = self._directory.summary(name)
                if summary is None:
                    raise WorkerUnknown(f"There is no worker {name!r}.")
                shown = summary.model_copy(update=counts._asdict())
                if shown != told:
                    yield shown
                    told = shown
                await bell.wait(_longest(clock(), lapses_at, None if changed is None else counting.at + self._seconds))
                heard = bell.take()
                mine = mine or heard.mine
                changed = clock() if heard.changed else changed
                if changed is not None and (counting.at > changed or clock() >= counting.at + self._seconds):
                    counts = await counting.after(changed)
                    # A job may have come and gone since the last count. Whoever read the worker meanwhile has seen it, and has to
                    # hear that this is over, though it was never told.
                    told = None if mine else told
                    changed, mine = None, False

    @contextmanager
    def _counts(self, view: JobView, name: str, tenant: str, user_id: str | None) -> Iterator[_Counting]:
        """What counts for all who watch the same, for as long as somebody does."""

        async def count() -> WorkerCounts:
            return (await view.count_of_workers([name], tenant=tenant, user_id=user_id))[name]

        key = name, tenant, user_id
        counting = self._counting.setdefault(key, _Counting(count))
        counting.watchers += 1
        try:
            yield counting
        finally:
            counting.watchers -= 1
            if not counting.watchers:
                del self._counting[key]


class _Counting:
    """Counts jobs for several watchers at once.

    Attributes:
        at: when the newest count began, by the event loop's clock.
        watchers: how many there are.
    """

    def __init__(self, count: Callable[[], Awaitable[WorkerCounts]]) -> None:
        self._count = count
        self._lock = asyncio.Lock()
        self._found = WorkerCounts(0, 0, 0)
        self.at = float("-inf")
        self.watchers = 0

    async def after(self, moment: float) -> WorkerCounts:
        """What a count tells that began after this moment: one that another watcher had made, or a new one."""
        async with self._lock:
            if self.at <= moment:
                began = asyncio.get_running_loop().time()
                self._found = await self._count()
                self.at = began
            return self._found


def _longest(now: float, lapses_at: float | None, counts_at: float | None) -> float | None:
    """How long nobody has to look, in seconds, unless it is said that something has changed."""
    # The directory's clock counts in milliseconds.
    moments = [*([] if lapses_at is None else [lapses_at + 0.002]), *([] if counts_at is None else [counts_at])]
    return max(0.0, min(moments) - now) if moments else None
