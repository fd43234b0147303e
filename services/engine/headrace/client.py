"""A program that enqueues jobs and looks at them: a `Client` needs no engine."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace.acceptance import Acceptance, AcceptsAgain, IdSource
from headrace.broker.discovery import given_settings, settings_of_this_folder
from headrace.control import Control, cancel_job, wait_for_end
from headrace.core.retry import RetryPolicy
from headrace.core.topics import Topics
from headrace.dead_letters.facade import Redriving
from headrace.errors import ArgumentsInvalid, BrokerUnreachable, ConfigurationError, JobUnknown
from headrace.idempotency import Accepted, check_same
from headrace.kafka.log import KafkaLog
from headrace.memory.facade import Remembering
from headrace.memory.store import TopicMemoryStore
from headrace.models import DEFAULT_TENANT, CallContext, Job, WorkerDefinition, WorkerSummary
from headrace.operating import ENQUEUE_SECONDS, Operating
from headrace.ports import Log
from headrace.resubmission import arguments_of, retry_failed
from headrace.runtime import wall_clock
from headrace.sandbox_refusal import provide_topics
from headrace.settings import Settings, load_settings
from headrace.submission import Arguments, WorkerReference, check_names, shared_fields
from headrace.tool_calls.facade import AnsweringCalls
from headrace.tool_models import JobList
from headrace.view_process import process_for
from headrace.views.job_queries import JobFilter, WorkerCounts, status_named
from headrace.views.jobs import JobView
from headrace.views.on_demand import JobViewOnDemand, Readiness
from headrace.views.watching import JobWatching
from headrace.views.worker_watching import WorkerWatching
from headrace.views.workers import WorkerDirectory
from headrace.watching import Watching

_logger = logging.getLogger(__name__)


_CATCH_UP_SECONDS = 60.0


class Client(Watching, Remembering, Redriving, AnsweringCalls, Operating):
    """Enqueues jobs, and looks at workers and jobs. An async context manager.

    Args:
        settings: from the environment when left out, with the broker that runs for this folder if it names none.
        log: a cluster that is in use already; it stays open when the client stops.
        view: begins to read the view of jobs at the start; otherwise the first look at jobs does.
        view_path: file of that view; one in the data directory when left out.
        view_process: has that view kept by a process of its own, which has a connection of its own by the settings. It pays off
            where much happens: this process does nothing for each job then.
        now: the time that it writes down, in milliseconds since the Unix epoch.
        randomness: makes so many random bytes, for ids.

    Every method raises a `BrokerError` when the brokers cannot be reached, and a `ConfigurationError` when it is not open.

    Attributes:
        closed: whether it was stopped; it is not started again.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        log: Log | None = None,
        view: bool = False,
        view_path: Path | None = None,
        view_process: bool = False,
        now: Callable[[], int] = wall_clock,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.settings = given_settings(settings) or (load_settings() if log else settings_of_this_folder())
        self.topics = Topics(self.settings.namespace)
        self._owns_log = log is None
        self._log = log or KafkaLog(self.settings)
        self._now = now
        self._randomness = randomness
        self._writer = self._log.writer()
        self._directory = WorkerDirectory(
            self._log, self.topics, presence_interval_seconds=self.settings.engine.presence_interval_seconds
        )
        path = view_path or self.settings.data_directory / "views" / self.settings.namespace / "jobs.sqlite"
        servers = self.settings.bootstrap_servers or ""
        process = process_for(self.settings) if view_process else None
        make = partial(JobView, self._log, self.topics, self._directory, path, process=process)
        self._views = JobViewOnDemand(make, servers, wanted=view)
        self._opened = self.closed = False
        self._memories = TopicMemoryStore(self._log, self.topics)
        self._watching = JobWatching(self._log, self.topics)
        self._watching_workers = WorkerWatching(self._directory)
        self._control = Control(self._writer, self.topics.control.name, now)
        self._accepted = Accepted(self.settings.engine.idempotency_window_seconds)
        self._acceptance = Acceptance(self._log, self._writer, self._directory, self.settings, IdSource(now, randomness))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connects. Creates topics that are missing, but none in a replay's sandbox. What was begun is ended again if it fails.

        Raises:
            SandboxUnknown: the namespace is named like a replay's sandbox, and there is none of that name.
        """
        try:
            await provide_topics(self._log, self.topics, [self.topics.workers, self.topics.control, self.topics.job_state])
            await self._writer.start()
            await self._directory.start()
            await self._directory.wait_ready(_CATCH_UP_SECONDS)
            if self._views.wanted:
                await self._views.open()
            self._opened = True
        except TimeoutError:
            await self.stop()
            raise BrokerUnreachable(
                f"{self.settings.bootstrap_servers}: the workers could not be read within {_CATCH_UP_SECONDS:g} s."
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends within a few seconds, also when the brokers are away."""
        self.closed = True
        await self._views.stop()
        await self._memories.stop()
        await self._directory.stop()
        await self._writer.stop(timeout=2.0)
        if self._owns_log:
            await self._log.close()

    # --- jobs -----------------------------------------------------------------------------------------------------------

    async def enqueue(
        self,
        worker: WorkerReference,
        args: Arguments,
        ctx: CallContext | Mapping[str, Any] | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
        idempotency_scope: str | None = None,
        retry: RetryPolicy | None = None,
        attempt_timeout: float | None = None,
        timeout: float = ENQUEUE_SECONDS,
    ) -> Job:
        """Accepts one job: it returns when all in-sync replicas have its record.

        Args:
            worker: the worker, its class, or its name.
            args: a JSON object, or the worker's own model.
            ctx: where the request comes from.
            ordering_key: jobs of one worker with equal keys run one after another; the worker's `order_by` decides when left out.
            idempotency_key: tells this request from others of the tenant, for the same worker and with the same ordering key.
                Whoever asks again with the same key gets the same job: it is done once, until an hour after its end
                (`HEADRACE_ENGINE_IDEMPOTENCY_WINDOW_SECONDS`), and for as long as this client's view knows it, if that is open.
            idempotency_scope: whose request it is, where several who must not meet each other's jobs choose keys of their own:
                the same key in another scope is another request. All of the tenant share one when left out.
            retry: how often the job is attempted; the worker's own policy holds when left out.
            attempt_timeout: seconds that each attempt may take; the worker's own `timeout` holds when left out.
            timeout: seconds above 0 that all of it may take, most of all the wait for the acknowledgement.

        Raises:
            WorkerUnknown: no such worker is defined; nothing was written.
            ArgumentsInvalid: the arguments do not fit the worker's model or, where the worker is given by name, the schema that
                it published; or the ordering key is empty, or the timeout no time. Nothing was written.
            IdempotencyConflict: the key belongs to a job with other arguments, as far as this client knows; nothing was written.
                What only the engine can know goes to dead-letters.
            PayloadTooLarge: arguments and context are over 512 KB; nothing was written.
            BrokerUnreachable: the brokers did not even say in time how the worker's queue stands; nothing was written.
            EnqueueTimeout: no acknowledgement came in time. What was not on its way by then was taken back; it says whether
                the job may be accepted all the same.
        """
        shared = shared_fields(tenant, ctx, ordering_key, retry, attempt_timeout)
        [job] = await self._accept(worker, [args], shared, ordering_key, timeout, [idempotency_key], idempotency_scope)
        return job

    async def enqueue_many(
        self,
        worker: WorkerReference,
        args: Sequence[Arguments],
        ctx: CallContext | Mapping[str, Any] | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        ordering_key: str | None = None,
        idempotency_keys: Sequence[str | None] | None = None,
        retry: RetryPolicy | None = None,
        attempt_timeout: float | None = None,
        timeout: float = ENQUEUE_SECONDS,
    ) -> list[Job]:
        """Accepts many jobs of one worker, far faster than one after another.

        Args:
            idempotency_keys: one for each job, in their order, None for a job without. With keys the call can be repeated.

        Raises as `enqueue`. After an `EnqueueTimeout` some of the jobs may have been accepted.
        """
        keys: Sequence[str | None] = [None] * len(args) if idempotency_keys is None else idempotency_keys
        if len(keys) != len(args):
            raise ArgumentsInvalid(f"There are {len(keys)} idempotency keys for {len(args)} jobs: give one for each, or None.")
        shared = shared_fields(tenant, ctx, ordering_key, retry, attempt_timeout)
        return await self._accept(worker, args, shared, ordering_key, timeout, keys)

    async def list_jobs(
        self,
        *,
        tenant: str = DEFAULT_TENANT,
        status: str | None = None,
        worker_name: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobList:
        """A page of jobs, newest first; of those created at or after `since` and before `until`, which have a zone, if given.

        Raises:
            ArgumentsInvalid: the cursor is none that a page gave, there is no such status, or a time has no zone.
        """
        who = JobFilter(tenant=tenant, worker_name=worker_name, user_id=user_id, conversation_id=conversation_id)
        wanted = replace(who, status=status_named(status), since=since, until=until)
        return await (await self._view.open()).list_jobs(wanted, limit=limit, cursor=cursor)

    async def get_job(self, job_id: str, *, tenant: str = DEFAULT_TENANT, fresh: bool = False) -> Job | None:
        """A job as it stands, whole; None when the tenant has no such job.

        Args:
            fresh: reads what stands in the log now, before it looks.
        """
        view = await (self._view.open_up_to_now() if fresh else self._view.open())
        return await view.get_job(job_id, tenant=tenant)

    async def retry_job(self, job_id: str, *, tenant: str = DEFAULT_TENANT, timeout: float = ENQUEUE_SECONDS) -> Job:
        """Does a failed job anew, as another job with its arguments and context; `retry_of` of the new one names it.

        A failed job is retried once, however often it is asked for: then the job that was made before is returned, as it stands.
        If that failed too, it is retried in turn.

        Raises:
            JobUnknown: the tenant has no such job.
            JobNotRetriable: it has not failed, or its arguments can no longer be read.
            Others as `enqueue`; the call can be repeated after an EnqueueTimeout.
        """
        submitter = await self._submitter()
        job = await submitter.find(job_id, tenant)
        if job is None:
            raise JobUnknown(f"There is no job {job_id!r}.")
        return await retry_failed(job, submitter, partial(arguments_of, self._log), timeout)

    async def cancel_job(
        self, job_id: str, *, tenant: str = DEFAULT_TENANT, wait: float = 0.0, timeout: float = ENQUEUE_SECONDS
    ) -> Job:
        """Cancels a job that waits or runs; it returns when the request is in the log, and needs no engine to be up.

        One that waits never starts. One that runs is stopped: `async def` at once; a plain function by `ctx.cancelled`, and it
        keeps its slot until it ends. Then the job is `cancelled`, whatever it returned or raised on its way out. A job that ends
        before its engine hears of the request ends as it would have. To cancel a job twice changes nothing.

        Args:
            wait: seconds to wait for the job's end; the job is returned as it stands then.
            timeout: seconds to wait for the acknowledgement of the request.

        Raises:
            JobUnknown: the tenant has no such job.
            JobNotCancellable: it has completed or failed.
            BrokerError: the request was not acknowledged in time; the call can be repeated.
        """
        view = await self._view.open_up_to_now()
        return await cancel_job(view, self._control, job_id, tenant, wait=wait, timeout=timeout)

    def readiness(self) -> Readiness:
        """Whether jobs can be accepted and the view of jobs has caught up, and how far it is."""
        if (failure := self._writer.failure) is not None:
            return Readiness(False, 0, str(failure))
        return self._views.readiness()

    # --- workers --------------------------------------------------------------------------------------------------------

    async def worker_definitions(self, *, fresh_within: float | None = None) -> dict[str, WorkerDefinition]:
        """All workers that were ever defined, by name.

        Args:
            fresh_within: waits up to so many seconds to read what stands in the log at the time of the call; otherwise, and
                when that takes longer, the answer is what was read so far.
        """
        self._check_open()
        if fresh_within is not None:
            with contextlib.suppress(TimeoutError):
                await self._directory.catch_up(fresh_within)
        return self._acceptance.definitions

    async def list_workers(self) -> list[WorkerSummary]:
        """All defined workers, by name, with how many live engines run each."""
        self._check_open()
        return self._directory.summaries()

    async def count_jobs(
        self, workers: Collection[str], *, tenant: str = DEFAULT_TENANT, user_id: str | None = None
    ) -> dict[str, WorkerCounts]:
        """How many jobs of each of these workers wait, run and have failed, of a tenant or of one user of it; 10,000 at most."""
        view = await self._view.open()
        return await view.count_of_workers(workers, tenant=tenant, user_id=user_id)

    async def wait_for_job(self, job_id: str, *, tenant: str = DEFAULT_TENANT, wait: float) -> Job | None:
        """A job as it stands at its end, or after `wait` seconds; None when the tenant has no such job."""
        return await wait_for_end(await self._view.open(), job_id, tenant, wait)

    def define(self, definition: WorkerDefinition) -> None:
        """Makes a worker known to this client before any engine has published it."""
        self._acceptance.define(definition)

    # --- inside ---------------------------------------------------------------------------------------------------------

    @property
    def _view(self) -> JobViewOnDemand:
        self._check_open()
        return self._views

    def _check_open(self) -> None:
        """Raises ConfigurationError: whoever asks one that was never opened would be told that there is nothing, or no broker."""
        if self.closed or not self._opened:
            how = "is closed" if self.closed else "is not open"
            raise ConfigurationError(f"This Client {how}: use it within `async with Client() as client:`.")

    async def _accept(
        self,
        worker: WorkerReference,
        args: Sequence[Arguments],
        shared: dict[str, Any],
        ordering_key: str | None,
        timeout: float,
        keys: Sequence[str | None],
        keys_scope: str | None = None,
    ) -> list[Job]:
        self._check_open()
        for key in keys:
            check_names({"idempotencyKey": key})
        find = None if all(key is None for key in keys) else self._find
        jobs = await self._acceptance.accept(
            worker, args, shared, ordering_key=ordering_key, timeout=timeout, keys=keys, keys_scope=keys_scope, find=find
        )
        if find is not None:
            for job in jobs:
                if job.idempotency_key is not None:
                    self._accepted.add(job, self._now())
        await self._views.show(jobs)
        return jobs

    async def _find(self, asked: Job) -> Job | None:
        """The job that was accepted for the same request, as it stands if the view is open, as far as it is known here."""
        accepted = self._accepted.find(asked, self._now())
        known = await self._views.find(asked.id, asked.tenant)
        if known is not None:
            check_same(asked, known)
        return known or accepted

    async def _submitter(self) -> AcceptsAgain:
        """For new jobs in place of old ones, by a view that knows of every job that there is now."""
        return AcceptsAgain(self._acceptance, await self._view.open_up_to_now(), self._views.show)
