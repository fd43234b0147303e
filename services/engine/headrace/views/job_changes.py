"""Who is to be told that jobs have changed, and of which: the hub between the one who reads the log and those who watch.

A watcher is told which jobs, never what of them: it reads their rows when it comes to it. So what waits for a slow one is a set
of keys, in which each job stands once however often it changes, and what it reads is never older than what it read before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from headrace.errors import WatchInterrupted
from headrace.models import Job
from headrace.views.job_rows import JobKey, JobRow, job_key, name_key
from headrace.views.job_table import Fact, Repeated

MOST_WAITING: Final = 10_000
"""Changed jobs that may wait for one watcher: about a megabyte. One that falls behind further is sent away."""


class Watcher:
    """What one watcher has yet to look at. Made by `JobChanges.watch`; for the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._touched: dict[JobKey, None] = {}
        self._woken = asyncio.Event()
        self._ended: str | None = None

    def touch(self, key: JobKey) -> None:
        """A job has changed."""
        if self._ended is None:
            self._touched[key] = None
            self._woken.set()
            if len(self._touched) > self._most:
                self.end(f"more than {self._most:,} changed jobs waited to be read")

    def end(self, reason: str) -> None:
        """It is told no more: what waits for it is let go."""
        self._ended = reason
        self._touched = {}
        self._woken.set()

    async def wait(self, seconds: float | None) -> None:
        """Returns when a job has changed, or after so many seconds.

        Raises:
            WatchInterrupted: it is told no more.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._check()

    def take(self) -> list[JobKey]:
        """The jobs that have changed since the last time: those of everything that the view has taken in by now.

        Raises:
            WatchInterrupted: it is told no more.
        """
        self._check()
        taken, self._touched = list(self._touched), {}
        self._woken.clear()
        return taken

    def _check(self) -> None:
        if self._ended is not None:
            raise WatchInterrupted(f"The watching was ended: {self._ended}. Go on from the last id that was read.")


class JobChanges:
    """Tells watchers which jobs have changed. As long as nobody watches it does nothing."""

    def __init__(self) -> None:
        self._of_tenant: dict[int, set[Watcher]] = {}
        self._of_job: dict[JobKey, set[Watcher]] = {}

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._of_tenant or self._of_job)

    @contextmanager
    def watch(self, *, tenant: str, job_id: str | None = None) -> Iterator[Watcher]:
        """A watcher of a tenant's jobs, or of one job, for as long as the block lasts.

        It is told of all that the view takes in from now on.
        """
        watcher = Watcher(MOST_WAITING)
        tenant_key = name_key("tenant", tenant)
        if job_id is None:
            self._of_tenant.setdefault(tenant_key, set()).add(watcher)
        else:
            self._of_job.setdefault(job_key(job_id), set()).add(watcher)
        try:
            yield watcher
        finally:
            if job_id is None:
                _leave(self._of_tenant, tenant_key, watcher)
            else:
                _leave(self._of_job, job_key(job_id), watcher)

    def tell(self, facts: Iterable[Fact]) -> None:
        """Tells of a batch that was taken in: every job that a record was about, whether or not it has changed by that. Only
        whoever reads the row can know whether it was told of it before.
        """
        if not self.watched:
            return
        for key, fact in facts:
            row = fact.row if isinstance(fact, Repeated) else fact
            if isinstance(row, JobRow):
                self._touch(key, row.tenant_key)

    def tell_accepted(self, jobs: Iterable[Job]) -> None:
        """Tells of jobs that were accepted here, and are in the table before they are read from the log."""
        if self.watched:
            for job in jobs:
                self._touch(job_key(job.id), name_key("tenant", job.tenant))

    def interrupt(self, reason: str) -> None:
        """Sends all watchers away: what they were told so far is true, and they can go on from there."""
        for watchers in (*self._of_tenant.values(), *self._of_job.values()):
            for watcher in watchers:
                watcher.end(reason)

    def _touch(self, key: JobKey, tenant_key: int) -> None:
        for watcher in self._of_tenant.get(tenant_key, ()):
            watcher.touch(key)
        for watcher in self._of_job.get(key, ()):
            watcher.touch(key)


def _leave(watchers: dict[int, set[Watcher]] | dict[JobKey, set[Watcher]], key: int | JobKey, watcher: Watcher) -> None:
    found: set[Watcher] = watchers[key]  # type: ignore[index]  # a key of that dictionary
    found.discard(watcher)
    if not found:
        del watchers[key]  # type: ignore[arg-type]
