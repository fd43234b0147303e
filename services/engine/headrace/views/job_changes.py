"""Who is to be told that jobs have changed, and of which: the hub between the one who reads the log and those who watch.

A watcher is told which jobs, never what of them: it reads their rows when it comes to it. So what waits for a slow one is a set
of keys, in which each job stands once however often it changes, and what it reads is never older than what it read before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Final, TypeVar

from headrace.errors import WatchInterrupted
from headrace.models import Job
from headrace.views.job_rows import JobKey, JobRow, job_key, name_key
from headrace.views.job_table import Fact, Repeated

MOST_WAITING: Final = 10_000
"""Changed jobs that may wait for one watcher: about a megabyte. One that falls behind further is sent away."""

KeyT = TypeVar("KeyT", int, JobKey)
WatcherT = TypeVar("WatcherT")


class _Woken:
    """Somebody who waits until something has changed. For the event loop."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._ended: str | None = None

    def end(self, reason: str) -> None:
        """It is told no more: what waits for it is let go."""
        self._ended = reason
        self._woken.set()

    async def wait(self, seconds: float | None) -> None:
        """Returns when something has changed, or after so many seconds.

        Raises:
            WatchInterrupted: it is told no more.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._check()

    def _check(self) -> None:
        if self._ended is not None:
            raise WatchInterrupted(f"The watching was ended: {self._ended}. Go on from the last id that was read.")


class Bell(_Woken):
    """Tells one watcher that jobs have changed, and not which: nothing waits for it, however slow it is. Made by
    `JobChanges.bell`."""

    def __init__(self) -> None:
        super().__init__()
        self._touched = False

    def strike(self) -> None:
        """Jobs have changed."""
        self._touched = True
        self._woken.set()

    def ring(self) -> None:
        """Something else has changed that the watcher looks at."""
        self._woken.set()

    def take(self) -> bool:
        """Whether jobs have changed since the last time.

        Raises:
            WatchInterrupted: it is told no more.
        """
        self._check()
        taken, self._touched = self._touched, False
        self._woken.clear()
        return taken


class Watcher(_Woken):
    """What one watcher has yet to look at. Made by `JobChanges.watch`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._touched: dict[JobKey, None] = {}

    def touch(self, key: JobKey) -> None:
        """A job has changed."""
        if self._ended is None:
            self._touched[key] = None
            self._woken.set()
            if len(self._touched) > self._most:
                self.end(f"more than {self._most:,} changed jobs waited to be read")

    def end(self, reason: str) -> None:
        """It is told no more: what waits for it is let go."""
        self._touched = {}
        super().end(reason)

    def take(self) -> list[JobKey]:
        """The jobs that have changed since the last time: those of everything that the view has taken in by now.

        Raises:
            WatchInterrupted: it is told no more.
        """
        self._check()
        taken, self._touched = list(self._touched), {}
        self._woken.clear()
        return taken


class JobChanges:
    """Tells watchers which jobs have changed. As long as nobody watches it does nothing."""

    def __init__(self) -> None:
        self._of_tenant: dict[int, set[Watcher]] = {}
        self._of_worker: dict[int, set[Bell]] = {}
        self._of_job: dict[JobKey, set[Watcher]] = {}

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._of_tenant or self._of_worker or self._of_job)

    @contextmanager
    def watch(self, *, tenant: str, job_id: str | None = None) -> Iterator[Watcher]:
        """A watcher of a tenant's jobs, or of one job, for as long as the block lasts.

        It is told of all that the view takes in from now on.
        """
        watcher = Watcher(MOST_WAITING)
        if job_id is None:
            with _kept(self._of_tenant, name_key("tenant", tenant), watcher):
                yield watcher
        else:
            with _kept(self._of_job, job_key(job_id), watcher):
                yield watcher

    @contextmanager
    def bell(self, *, tenant: str, worker: str) -> Iterator[Bell]:
        """What rings for as long as the block lasts whenever a tenant's jobs of one worker change."""
        bell = Bell()
        with _kept(self._of_worker, name_key("worker", tenant, worker), bell):
            yield bell

    def tell(self, facts: Iterable[Fact]) -> None:
        """Tells of a batch that was taken in: every job that a record was about, whether or not it has changed by that. Only
        whoever reads the row can know whether it was told of it before.
        """
        if not self.watched:
            return
        removed = False
        for key, fact in facts:
            row = fact.row if isinstance(fact, Repeated) else fact
            if isinstance(row, JobRow):
                self._touch(key, row.tenant_key, row.worker_key)
            else:
                removed = True
        if removed:
            # What removes a job says not whose it was.
            for bell in chain.from_iterable(self._of_worker.values()):
                bell.strike()

    def tell_accepted(self, jobs: Iterable[Job]) -> None:
        """Tells of jobs that were accepted here, and are in the table before they are read from the log."""
        if self.watched:
            for job in jobs:
                worker_key = name_key("worker", job.tenant, job.worker_name)
                self._touch(job_key(job.id), name_key("tenant", job.tenant), worker_key)

    def interrupt(self, reason: str) -> None:
        """Sends all watchers away: what they were told so far is true, and they can go on from there."""
        for watchers in (*self._of_tenant.values(), *self._of_worker.values(), *self._of_job.values()):
            for watcher in watchers:
                watcher.end(reason)

    def _touch(self, key: JobKey, tenant_key: int, worker_key: int) -> None:
        for watcher in self._of_tenant.get(tenant_key, ()):
            watcher.touch(key)
        for bell in self._of_worker.get(worker_key, ()):
            bell.strike()
        for watcher in self._of_job.get(key, ()):
            watcher.touch(key)


@contextmanager
def _kept(watchers: dict[KeyT, set[WatcherT]], key: KeyT, watcher: WatcherT) -> Iterator[None]:
    """Has a watcher among those of a key for as long as the block lasts."""
    watchers.setdefault(key, set()).add(watcher)
    try:
        yield
    finally:
        found = watchers[key]
        found.discard(watcher)
        if not found:
            del watchers[key]
