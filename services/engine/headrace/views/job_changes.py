"""Who is to be told that jobs have changed, and of which: the hub between the one who reads the log and those who watch.

A watcher is told which jobs, never what of them: it reads their rows when it comes to it. So what waits for a slow one is a set
of keys, in which each job stands once however often it changes, and what it reads is never older than what it read before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, TypeVar

from headrace.errors import WatchInterrupted
from headrace.models import Job
from headrace.views.job_rows import STATUS_NUMBERS, JobKey, JobRow, job_key, name_key
from headrace.views.job_table import Fact, Repeated

MOST_WAITING: Final = 10_000
"""Changed jobs that may wait for one watcher: about a megabyte. One that falls behind further is sent away."""
_REMEMBERED: Final = 4_096

KeyT = TypeVar("KeyT", int, JobKey)
Touch = tuple[JobKey, int, int, int, int | None]
"""A job that a record was about: its key, the keys of its tenant and its worker, its status, and its user's key. In place of one
that was removed stands None."""


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


class Heard(NamedTuple):
    """What a bell has rung for.

    Attributes:
        changed: jobs may be other in number.
        mine: the status of some job that the watcher may see has changed, if perhaps forth and back.
    """

    changed: bool
    mine: bool


class Bell(_Woken):
    """Tells one watcher that jobs have changed, and not which: nothing waits for it, however slow it is. Made by
    `JobChanges.bell`.

    Args:
        user_key: of the only user whose jobs matter; None for those of all.
    """

    def __init__(self, user_key: int | None) -> None:
        super().__init__()
        self._user_key = user_key
        self._heard = _NOTHING

    def strike(self, user_key: int | None) -> None:
        """The status of a user's job has changed."""
        if self._user_key in (None, user_key):
            self._heard = Heard(changed=True, mine=True)
            self._woken.set()

    def strike_unknown(self) -> None:
        """A job was removed, and it is not known whose."""
        self._heard = Heard(changed=True, mine=self._heard.mine)
        self._woken.set()

    def ring(self) -> None:
        """Something else has changed that the watcher looks at."""
        self._woken.set()

    def take(self) -> Heard:
        """What it has rung for since the last time.

        Raises:
            WatchInterrupted: it is told no more.
        """
        self._check()
        taken, self._heard = self._heard, _NOTHING
        self._woken.clear()
        return taken


_NOTHING: Final = Heard(changed=False, mine=False)


class _Bells:
    """The bells for one worker of a tenant, and the statuses of its jobs that changed last: most records of a job that runs tell
    of its progress alone."""

    def __init__(self) -> None:
        self.all: set[Bell] = set()
        self._statuses: dict[JobKey, int] = {}

    def touch(self, key: JobKey, status: int, user_key: int | None) -> None:
        if self._statuses.pop(key, None) != status:
            for bell in self.all:
                bell.strike(user_key)
        self._statuses[key] = status
        if len(self._statuses) > _REMEMBERED:
            del self._statuses[next(iter(self._statuses))]


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
        self._of_worker: dict[int, _Bells] = {}
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
    def bell(self, *, tenant: str, worker: str, user_id: str | None = None) -> Iterator[Bell]:
        """What rings for as long as the block lasts whenever a tenant's jobs of one worker change, or those of one user."""
        bell = Bell(None if user_id is None else name_key("user", tenant, user_id))
        worker_key = name_key("worker", tenant, worker)
        bells = self._of_worker.setdefault(worker_key, _Bells())
        bells.all.add(bell)
        try:
            yield bell
        finally:
            bells.all.discard(bell)
            if not bells.all:
                del self._of_worker[worker_key]

    def tell(self, facts: Iterable[Fact]) -> None:
        """Tells of a batch that was taken in: every job that a record was about, whether or not it has changed by that. Only
        whoever reads the row can know whether it was told of it before.
        """
        if self.watched:
            self.tell_touched(touches_of(facts))

    def tell_accepted(self, jobs: Iterable[Job]) -> None:
        """Tells of jobs that were accepted here, and are in the table before they are read from the log."""
        if self.watched:
            self.tell_touched(map(touch_of, jobs))

    def tell_touched(self, touches: Iterable[Touch | None]) -> None:
        """Tells of the same, as `touches_of` has it."""
        removed = False
        for touch in touches:
            if touch is None:
                removed = True
                continue
            key, tenant_key, worker_key, status, user_key = touch
            self._touch(key, tenant_key)
            if (bells := self._of_worker.get(worker_key)) is not None:
                bells.touch(key, status, user_key)
        if removed:
            # What removes a job says not whose it was.
            for bells in self._of_worker.values():
                for bell in bells.all:
                    bell.strike_unknown()

    def interrupt(self, reason: str) -> None:
        """Sends all watchers away: what they were told so far is true, and they can go on from there."""
        for watchers in (*self._of_tenant.values(), *self._of_job.values()):
            for watcher in watchers:
                watcher.end(reason)
        for bells in self._of_worker.values():
            for bell in bells.all:
                bell.end(reason)

    def _touch(self, key: JobKey, tenant_key: int) -> None:
        for watcher in self._of_tenant.get(tenant_key, ()):
            watcher.touch(key)
        for watcher in self._of_job.get(key, ()):
            watcher.touch(key)


def touches_of(facts: Iterable[Fact]) -> Iterator[Touch | None]:
    """What watchers need to know of facts."""
    for key, fact in facts:
        row = fact.row if isinstance(fact, Repeated) else fact
        yield (key, row.tenant_key, row.worker_key, row.status, row.user_key) if isinstance(row, JobRow) else None


def touch_of(job: Job) -> Touch:
    """What they need to know of a job that was accepted."""
    user = job.ctx.user_id
    return (
        job_key(job.id),
        name_key("tenant", job.tenant),
        name_key("worker", job.tenant, job.worker_name),
        STATUS_NUMBERS[job.status],
        None if user is None else name_key("user", job.tenant, user),
    )


@contextmanager
def _kept(watchers: dict[KeyT, set[Watcher]], key: KeyT, watcher: Watcher) -> Iterator[None]:
    """Has a watcher among those of a key for as long as the block lasts."""
    watchers.setdefault(key, set()).add(watcher)
    try:
        yield
    finally:
        found = watchers[key]
        found.discard(watcher)
        if not found:
            del watchers[key]
