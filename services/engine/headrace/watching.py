"""What a program can watch: jobs and workers, as they change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing

from headrace.models import DEFAULT_TENANT, Job, WorkerSummary
from headrace.views.job_queries import JobFilter, status_named
from headrace.views.on_demand import JobViewOnDemand
from headrace.views.watching import JobsChanged as JobsChanged
from headrace.views.watching import JobWatching
from headrace.views.worker_watching import WorkerWatching

READY_SECONDS = 10.0
"""How long a watcher waits for a view that is still being read."""


class Watching(ABC):
    """The part of a `Client` that watches jobs and workers."""

    _watching: JobWatching
    _watching_workers: WorkerWatching

    @property
    @abstractmethod
    def _view(self) -> JobViewOnDemand:
        """The view of jobs. Raises ConfigurationError when the client is not open."""

    async def watch_job(self, job_id: str, *, tenant: str = DEFAULT_TENANT) -> AsyncGenerator[Job]:
        """A job as it stands, at once and whole, and again whenever that has changed, up to its end.

        A state that another followed at once may be left out, the last one never is. Close it (`contextlib.aclosing`) when it
        is left early.

        Raises:
            JobUnknown: the tenant has no such job.
            WatchInterrupted: the view was closed or is made anew; watch the job again.
        """
        view = await self._view.open_caught_up(READY_SECONDS)
        async with aclosing(self._watching.watch_job(view, job_id, tenant)) as jobs:
            async for job in jobs:
                yield job

    async def watch_jobs(
        self,
        *,
        tenant: str = DEFAULT_TENANT,
        status: str | None = None,
        worker_name: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[JobsChanged]:
        """The jobs that change from now on and that have all that is given, as they stand after the change.

        It never ends by itself. First of all, and whenever a token for what was told is there, it gives one, with no jobs as the
        case may be. Between two looks a job may have changed several times: then its newest state is told, once. After a token
        each job that has changed since is told at least once, in its newest state. Close it (`contextlib.aclosing`) when done.

        Args:
            status: tells of a job only when it comes into this status, or changes within it.
            after: the token after which to go on; it may be another process's, and the view may have been made anew since.

        Raises:
            ArgumentsInvalid: there is no such status, or `after` is no token.
            ChangesGone: too much has happened since `after`, or it is of another log: list the jobs, and watch without it.
            WatchInterrupted: whoever iterates was too slow, or the view was closed or is made anew; go on from the last token.
        """
        wanted = JobFilter(
            tenant=tenant,
            status=status_named(status),
            worker_name=worker_name,
            user_id=user_id,
            conversation_id=conversation_id,
        )
        view = await self._view.open_caught_up(READY_SECONDS)
        async with aclosing(self._watching.watch_jobs(view, wanted, after)) as changes:
            async for change in changes:
                yield change

    async def watch_worker(
        self, name: str, *, tenant: str = DEFAULT_TENANT, user_id: str | None = None
    ) -> AsyncGenerator[WorkerSummary]:
        """A worker as it stands, at once and with the counts of its jobs, and again whenever that has changed.

        It never ends by itself. A new definition, an engine that comes or goes, a pause and its end are told at once; an engine
        that fell silent, when `list_workers` leaves it out; the counts at most once in three seconds, also where jobs have come
        and gone since the last count. Close it (`contextlib.aclosing`) when done.

        Args:
            tenant: whose jobs are counted.
            user_id: only those of this user.

        Raises:
            WorkerUnknown: no such worker is defined, or none any more.
            WatchInterrupted: the view was closed or is made anew; watch the worker again.
        """
        view = await self._view.open_caught_up(READY_SECONDS)
        async with aclosing(self._watching_workers.watch(view, name, tenant, user_id)) as summaries:
            async for summary in summaries:
                yield summary
