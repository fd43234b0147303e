"""A program that enqueues jobs and looks at them: a `Client` needs no engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace.arguments import PublishedSchemas
from headrace.broker.discovery import settings_of_this_folder
from headrace.core.status import JobStatus
from headrace.core.topics import Topics
from headrace.errors import AppendTimeout, ArgumentsInvalid, BrokerUnreachable, EnqueueTimeout, WorkerUnknown
from headrace.kafka.log import KafkaLog
from headrace.models import (
    DEFAULT_TENANT,
    CallContext,
    Job,
    JobList,
    WorkerDefinition,
    WorkerSummary,
)
from headrace.ports import Acknowledged, AppendFailed, Log
from headrace.runtime import wall_clock
from headrace.settings import Settings, load_settings
from headrace.submission import Arguments, Prepared, WorkerReference, ordering_key_of, plain_arguments, plain_context, prepare
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory
from headrace.worker import AbstractWorker

_logger = logging.getLogger(__name__)


ENQUEUE_SECONDS = 10.0
_CATCH_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a client can accept jobs, and its view of jobs has caught up with the log.

    Attributes:
        ready: whether jobs can be accepted, and `list_jobs` tells of everything that had happened when the client started.
        behind: how many records it has yet to read.
        detail: the same in words.
    """

    ready: bool
    behind: int
    detail: str


class Client:
    """Enqueues jobs, and looks at workers and jobs. An async context manager.

    Args:
        settings: from the environment when left out, with the broker that runs for this folder if it names none.
        log: a cluster that is in use already; it stays open when the client stops.
        view: begins to read the view of jobs at the start; otherwise the first look at jobs does.
        view_path: file of that view; one in the data directory when left out.
        now: the time that it writes down, in milliseconds since the Unix epoch.
        randomness: makes so many random bytes, for ids.

    Every method raises a `BrokerError` when the brokers cannot be reached.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        log: Log | None = None,
        view: bool = False,
        view_path: Path | None = None,
        now: Callable[[], int] = wall_clock,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.settings = settings or (load_settings() if log else settings_of_this_folder())
        self.topics = Topics(self.settings.namespace)
        self._owns_log = log is None
        self._log = log or KafkaLog(self.settings)
        self._now = now
        self._randomness = randomness
        self._writer = self._log.writer()
        self._directory = WorkerDirectory(
            self._log, self.topics, presence_interval_seconds=self.settings.engine.presence_interval_seconds
        )
        self._wants_view = view
        self._view_path = view_path or self.settings.data_directory / "views" / self.settings.namespace / "jobs.sqlite"
        self._view: JobView | None = None
        self._view_lock = asyncio.Lock()
        self._view_read = False
        self._schemas = PublishedSchemas()
        self._local: dict[str, WorkerDefinition] = {}
        self._partitions: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connects. Creates the topics that are missing. What was begun is ended again if it fails."""
        try:
            await self._log.create_topics([self.topics.workers, self.topics.job_state])
            await self._writer.start()
            await self._directory.start()
            await self._directory.wait_ready(_CATCH_UP_SECONDS)
            if self._wants_view:
                await self._open_view()
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
        if self._view is not None:
            await self._view.stop()
            self._view = None
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
        timeout: float = ENQUEUE_SECONDS,
    ) -> Job:
        """Accepts one job: it returns when all in-sync replicas have its record.

        Args:
            worker: the worker, its class, or its name.
            args: a JSON object, or the worker's own model.
            ctx: where the request comes from.
            ordering_key: jobs of one worker with equal keys run one after another; the worker's `order_by` decides when left out.
            timeout: seconds that all of it may take, most of all the wait for the acknowledgement.

        Raises:
            WorkerUnknown: no such worker is defined; nothing was written.
            ArgumentsInvalid: the arguments do not fit the worker's model or, where the worker is given by name, the schema that
                it published; or the ordering key is empty. Nothing was written.
            PayloadTooLarge: arguments and context are over 512 KB; nothing was written.
            EnqueueTimeout: no acknowledgement came in time. What was not on its way by then was taken back; it says whether
                the job may be accepted all the same.
        """
        jobs = await self.enqueue_many(worker, [args], ctx, tenant=tenant, ordering_key=ordering_key, timeout=timeout)
        return jobs[0]

    async def enqueue_many(
        self,
        worker: WorkerReference,
        args: Sequence[Arguments],
        ctx: CallContext | Mapping[str, Any] | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        ordering_key: str | None = None,
        timeout: float = ENQUEUE_SECONDS,
    ) -> list[Job]:
        """Accepts many jobs of one worker, far faster than one after another.

        Raises as `enqueue`. After an `EnqueueTimeout` some of the jobs may have been accepted.
        """
        if ordering_key == "":
            raise ArgumentsInvalid("The ordering key is empty: name one, or leave it out, and the worker's order_by decides.")
        started = _loop_time()
        reference = worker() if isinstance(worker, type) else worker
        made = None if isinstance(reference, str) else reference
        plain = [plain_arguments(each, made) for each in args]
        try:
            # The queue of a worker that had no job yet is made here, which takes what the brokers take.
            async with asyncio.timeout(timeout):
                definition = await self._definition(reference)
                if made is None:
                    await self._schemas.check(definition, plain)
                count = await self._partition_count(definition.name)
        except TimeoutError:
            raise BrokerUnreachable(
                f"{self.settings.bootstrap_servers}: no answer within {timeout:g} s; nothing was accepted."
            ) from None
        topic = self.topics.jobs_name(definition.name)
        context = plain_context(ctx)
        shared = {"tenant": tenant, "ctx": context}
        model = None if made is None else made.arguments_model
        prepared = [
            prepare(
                definition,
                each,
                shared,
                ordering_key or ordering_key_of(definition, each, model),
                (topic, count),
                made=(self._now(), self._randomness(10)),
            )
            for each in plain
        ]
        offsets = await self._append(prepared, timeout, left=max(0.0, timeout - (_loop_time() - started)))
        jobs = [each.accepted(offset) for each, offset in zip(prepared, offsets, strict=True)]
        if self._view is not None:
            try:
                await self._view.add_accepted(*jobs)
            except Exception:  # the jobs are accepted, whatever becomes of a table on this machine
                _logger.warning("accepted jobs are not in the view yet; it will read them from the log", exc_info=True)
        return jobs

    async def list_jobs(
        self,
        *,
        tenant: str = DEFAULT_TENANT,
        status: str | None = None,
        worker_name: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobList:
        """A page of jobs, newest first.

        Raises:
            ArgumentsInvalid: the cursor is none that a page gave.
        """
        if status is not None and status not in set(JobStatus):
            raise ArgumentsInvalid(f"{status!r} is no status; there are: {', '.join(JobStatus)}.")
        view = await self._open_view()
        job_filter = JobFilter(
            tenant=tenant,
            status=JobStatus(status) if status else None,
            worker_name=worker_name,
            user_id=user_id,
            conversation_id=conversation_id,
        )
        return await view.list_jobs(job_filter, limit=limit, cursor=cursor)

    async def get_job(self, job_id: str, *, tenant: str = DEFAULT_TENANT) -> Job | None:
        """A job as it stands, whole; None when the tenant has no such job."""
        view = await self._open_view()
        return await view.get_job(job_id, tenant=tenant)

    def readiness(self) -> Readiness:
        """Whether jobs can be accepted and the view of jobs has caught up, and how far it is."""
        if (failure := self._writer.failure) is not None:
            return Readiness(False, 0, str(failure))
        if self._view is None:
            return Readiness(not self._wants_view, 0, "no view of jobs is open")
        if (trouble := self._view.trouble) is not None:
            return Readiness(False, self._view.behind, f"the view of jobs cannot be read on: {trouble}")
        behind = self._view.behind
        ready = self._view.caught_up
        return Readiness(
            ready, behind, "the view of jobs is up to date" if ready else f"the view of jobs is {behind} records behind"
        )

    # --- workers --------------------------------------------------------------------------------------------------------

    async def worker_definitions(self, *, fresh_within: float | None = None) -> dict[str, WorkerDefinition]:
        """All workers that were ever defined, by name.

        Args:
            fresh_within: waits up to so many seconds to read what stands in the log at the time of the call; otherwise, and
                when that takes longer, the answer is what was read so far.
        """
        if fresh_within is not None:
            with contextlib.suppress(TimeoutError):
                await self._directory.catch_up(fresh_within)
        return {**self._directory.definitions, **self._local}

    async def list_workers(self) -> list[WorkerSummary]:
        """All defined workers, by name, with how many live engines run each."""
        return self._directory.summaries()

    def define(self, definition: WorkerDefinition) -> None:
        """Makes a worker known to this client before any engine has published it."""
        self._local[definition.name] = definition

    # --- inside ---------------------------------------------------------------------------------------------------------

    async def _definition(self, worker: str | AbstractWorker[Any]) -> WorkerDefinition:
        if not isinstance(worker, str):
            definition = worker.definition()
            self._local.setdefault(definition.name, definition)
            return definition
        known = self._local.get(worker) or self._directory.definitions.get(worker)
        if known is None:
            await self._directory.catch_up(_CATCH_UP_SECONDS)
            known = self._directory.definitions.get(worker)
        if known is None:
            names = ", ".join(sorted({*self._directory.definitions, *self._local})) or "none yet"
            raise WorkerUnknown(
                f"No worker named {worker!r} is defined. Defined are: {names}. A worker is defined when an engine with it starts."
            )
        return known

    async def _partition_count(self, worker: str) -> int:
        count = self._partitions.get(worker)
        if count is None:
            topic = self.topics.jobs(worker, self.settings.engine.partitions)
            await self._log.create_topics([topic])
            count = self._partitions[worker] = await self._log.partition_count(topic.name)
        return count

    async def _append(self, prepared: Sequence[Prepared], timeout: float, *, left: float) -> list[int]:
        """Offsets of the records, in their order. Of `timeout` seconds, `left` are left."""
        started = _loop_time()
        outcomes = await self._writer.append_all([(each.target, each.record) for each in prepared], timeout=left)
        # Of many, some may be accepted, whatever became of one of them.
        may_be_accepted = any(isinstance(outcome, Acknowledged) or outcome.may_land for outcome in outcomes)
        for each, outcome in zip(prepared, outcomes, strict=True):
            if not isinstance(outcome, AppendFailed):
                continue
            late = isinstance(outcome.reason, AppendTimeout)
            if not late and not outcome.may_land and len(prepared) == 1:
                # Made anew at the next call: the queue may have been deleted.
                self._partitions.pop(each.job.worker_name, None)
                raise outcome.reason
            waited = timeout if late else timeout - left + _loop_time() - started
            raise EnqueueTimeout(each.job.id, may_be_accepted=may_be_accepted, seconds=waited) from outcome.reason
        return [outcome.offset for outcome in outcomes if isinstance(outcome, Acknowledged)]

    async def _open_view(self) -> JobView:
        async with self._view_lock:
            if self._view is None:
                view = JobView(self._log, self.topics, self._directory, self._view_path)
                await view.start()
                self._view = view
            view = self._view
        if not self._wants_view and not self._view_read:
            # Whoever did not ask for it beforehand has no `readiness` to look at: half of the jobs would pass for all of them.
            try:
                await view.wait_caught_up(_CATCH_UP_SECONDS)
            except TimeoutError:
                raise BrokerUnreachable(
                    f"{self.settings.bootstrap_servers}: the jobs could not be read within {_CATCH_UP_SECONDS:g} s "
                    f"({view.trouble or f'{view.behind} records are left'}); what was read is kept, and the next look goes on."
                ) from None
            self._view_read = True
        return view


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
