"""What one principal can do: every transport and every tool goes through here, and through nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from datetime import UTC, datetime
from typing import Any

from headrace import (
    Appended,
    ArgumentsInvalid,
    CallContext,
    EnqueueTimeout,
    HeadraceError,
    Job,
    JobList,
    JobsChanged,
    JobStatus,
    JobUnknown,
    MemorySnapshot,
    NewEntry,
    WatchInterrupted,
    WorkerDefinition,
    WorkerSummary,
    WorkerUnknown,
)
from headrace_gateway.access import Principal, Scope
from headrace_gateway.operations.catalogue import OPERATIONS, Effect, operation
from headrace_gateway.operations.jobs import Conversations, Jobs
from headrace_gateway.operations.unattended import Unattended

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 20

Told = Callable[[Job], Awaitable[None]]
"""Who is told how a job stands while it is waited for. Whatever they raise, the waiting ends with."""
Left = Callable[[], Awaitable[None]]
"""Returns when the caller has left. It is asked while a job is waited for, and cancelled when that is over."""


class Operations:
    """Everything that a principal can do, in its own tenant alone.

    There is no argument for a tenant anywhere: it is the principal's. Without the scope `jobs:act-as` the principal's own user is
    the only one there is; what belongs to others is as unknown as what does not exist.

    Args:
        jobs: of all tenants.
        unattended: told of each job that was accepted; nobody is when left out.
        timeout: seconds to wait for the acknowledgement of what is written.
        called: told the name of each operation before it is done, or refused.
        told: told of each change of a job that is waited for; nobody is when left out.
        left: returns when the caller has left, for whom nothing is waited for then; what is being accepted is ended.
        stopping: once it is set nobody waits for a job's end any more: whoever did is answered with the job as it stands.
        until_invalid: returns when the principal may be told nothing more, so that waiting is of no use.
        resuming: what has to be held while it is read in the log what a watcher has missed; nothing has to when left out.

    Attributes:
        accepted: whether something that was asked for may be accepted already, so that no error may say that nothing was.

    Every method raises `AccessDenied` when the principal lacks its scope or may not act for a user, and a `BrokerError` when the
    brokers cannot be reached.
    """

    def __init__(
        self,
        jobs: Jobs,
        principal: Principal,
        *,
        unattended: Unattended | None = None,
        timeout: float = 10.0,
        called: Callable[[str], None] | None = None,
        told: Told | None = None,
        left: Left | None = None,
        stopping: asyncio.Event | None = None,
        until_invalid: Callable[[], Awaitable[None]] | None = None,
        resuming: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self.principal = principal
        self.accepted = False
        self._jobs = jobs
        self._unattended = unattended
        self._timeout = timeout
        self._called = called
        self._told = told
        self._stopping = stopping or asyncio.Event()
        self._ends = [end for end in (until_invalid, left) if end is not None]
        self._resuming = resuming

    @operation(Scope.JOBS_WRITE, Effect.WRITE)
    async def enqueue(
        self,
        worker: str,
        args: dict[str, Any],
        ctx: CallContext | None = None,
        *,
        ordering_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Accepts one job; see `headrace.Client.enqueue`. A user in the context must be one for whom the principal may act.

        An idempotency key tells requests of that user apart: who guesses the key of another one meets nothing of theirs.
        """
        self._require("enqueue")
        context = ctx or CallContext()
        user_id = self.principal.check_user(context.user_id)
        if user_id != context.user_id:
            context = context.model_copy(update={"user_id": user_id})
        accepting = self._jobs.enqueue(
            worker,
            args,
            context,
            tenant=self.principal.tenant,
            ordering_key=ordering_key,
            idempotency_key=idempotency_key,
            idempotency_scope=context.user_id,
            timeout=self._timeout,
        )
        return await self._noted(accepting)

    @operation(Scope.WORKERS_READ, Effect.READ)
    async def list_workers(self) -> list[WorkerSummary]:
        """The workers there are, and how they are doing; what is counted are the jobs that the principal may see."""
        self._require("list_workers")
        summaries = await self._jobs.list_workers()
        counts = await self._jobs.count_jobs(
            [each.name for each in summaries], tenant=self.principal.tenant, user_id=self.principal.only_user
        )
        return [each.model_copy(update=counts[each.name]._asdict()) for each in summaries]

    @operation(Scope.JOBS_READ, Effect.READ)
    async def list_jobs(
        self,
        *,
        status: str | None = None,
        worker_name: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> JobList:
        """A page of jobs, newest first; see `headrace.Client.list_jobs`."""
        self._require("list_jobs")
        return await self._jobs.list_jobs(
            tenant=self.principal.tenant,
            status=status,
            worker_name=worker_name,
            user_id=self.principal.check_user(user_id),
            conversation_id=conversation_id,
            limit=limit,
            cursor=cursor,
        )

    @operation(Scope.JOBS_READ, Effect.READ)
    async def get_job(self, job_id: str, *, fresh: bool = False) -> Job:
        """A job, whole.

        Args:
            fresh: one that is not known here is looked for in the log as it stands now, too: another gateway may have accepted it
                a moment ago.

        Raises:
            JobUnknown: there is none of that id for this principal.
        """
        self._require("get_job")
        return await self._find(job_id, fresh=fresh)

    @operation(Scope.JOBS_READ, Effect.READ)
    async def wait_for_job(self, job_id: str, *, wait: float) -> Job:
        """A job, whole, as it stands at its end, or after `wait` seconds. Whoever stops waiting changes nothing.

        Raises:
            JobUnknown: there is none of that id for this principal.
        """
        self._require("wait_for_job")
        await self._check_mine(job_id)
        job = await self._wait(job_id, wait)
        if job is None:
            raise _unknown(job_id)
        return job

    @operation(Scope.JOBS_WRITE, Effect.WRITE)
    async def retry_job(self, job_id: str) -> Job:
        """Does a failed job anew, and returns the new one; see `headrace.Client.retry_job`."""
        self._require("retry_job")
        await self._check_mine(job_id)
        again = self._jobs.retry_job(job_id, tenant=self.principal.tenant, timeout=self._timeout)
        return self._shown(await self._noted(again))

    @operation(Scope.JOBS_CANCEL, Effect.CANCEL)
    async def cancel_job(self, job_id: str, *, wait: float = 0.0) -> Job:
        """Cancels a job, and returns it as it stands after at most `wait` seconds; see `headrace.Client.cancel_job`."""
        self._require("cancel_job")
        await self._check_mine(job_id)
        # What is not acknowledged in time may be accepted all the same.
        self.accepted = True
        job = await self._jobs.cancel_job(job_id, tenant=self.principal.tenant, timeout=self._timeout)
        if wait > 0 and job.status is not JobStatus.CANCELLED:
            try:
                job = await self._wait(job_id, wait) or job
            except HeadraceError as error:
                logger.warning("Job %s is to be cancelled, and its end could not be waited for: %s", job_id, error)
        return self._shown(job)

    @operation(Scope.JOBS_READ, Effect.SUBSCRIBE)
    async def watch_job(self, job_id: str) -> AsyncGenerator[Job]:
        """A job as it stands, and again whenever that changes, up to its end; see `headrace.Client.watch_job`.

        Raises:
            JobUnknown: there is none of that id for this principal.
        """
        self._require("watch_job")
        # Another gateway may have accepted it a moment ago.
        await self._find(job_id, fresh=True)
        return self._jobs.watch_job(job_id, tenant=self.principal.tenant)

    @operation(Scope.JOBS_READ, Effect.SUBSCRIBE)
    async def watch_jobs(
        self,
        *,
        status: str | None = None,
        worker_name: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[JobsChanged]:
        """The jobs that change from now on, or since `after`; see `headrace.Client.watch_jobs`."""
        self._require("watch_jobs")
        changes = self._jobs.watch_jobs(
            tenant=self.principal.tenant,
            status=status,
            worker_name=worker_name,
            user_id=self.principal.check_user(user_id),
            conversation_id=conversation_id,
            after=after,
        )
        return changes if after is None else self._resumed(changes)

    @operation(Scope.WORKERS_READ, Effect.SUBSCRIBE)
    async def watch_worker(self, name: str) -> AsyncGenerator[WorkerSummary]:
        """A worker as `list_workers` has it, and again whenever that changes; see `headrace.Client.watch_worker`.

        Raises:
            WorkerUnknown: there is none of that name.
        """
        self._require("watch_worker")
        if name not in await self._jobs.worker_definitions():
            raise WorkerUnknown(f"There is no worker {name!r}: list_workers has those that there are.")
        return self._jobs.watch_worker(name, tenant=self.principal.tenant, user_id=self.principal.only_user)

    @operation(Scope.MEMORY_WRITE, Effect.WRITE)
    async def append_entries(self, conversation_id: str, entries: Sequence[NewEntry], *, user_id: str | None = None) -> Appended:
        """Adds to a conversation; see `headrace.Memory.append`."""
        self._require("append_entries")
        whose = self._whose(user_id)
        # What fails on the way may be there all the same.
        self.accepted = True
        return await self._conversations().append(whose, conversation_id, entries)

    @operation(Scope.MEMORY_READ, Effect.READ)
    async def list_entries(self, conversation_id: str, *, user_id: str | None = None) -> MemorySnapshot:
        """What a conversation's memory is now; one never heard of is empty."""
        self._require("list_entries")
        return await self._conversations().read(self._whose(user_id), conversation_id)

    async def worker_definitions(self, *, fresh: bool = False) -> dict[str, WorkerDefinition]:
        """All workers that were ever defined, by name: what a request is checked against before it is refused or accepted. It is
        part of other operations, and tells its caller of none.

        Args:
            fresh: reads what stands in the log now, rather than what was read so far.
        """
        return await self._jobs.worker_definitions(fresh_within=self._timeout if fresh else None)

    async def live_workers(self) -> set[str]:
        """The names of workers that some engine runs; part of other operations, as `worker_definitions`."""
        return {summary.name for summary in await self._jobs.list_workers() if summary.live_instances > 0}

    def check_scope(self, operation: str) -> None:
        """Refuses whoever may not do an operation, before it is looked at what they ask for: that takes longer.

        Raises:
            AccessDenied: the principal lacks the scope.
        """
        if OPERATIONS[operation].scope not in self.principal.scopes:
            self._require(operation)

    # --- inside ---------------------------------------------------------------------------------------------------------

    def _require(self, name: str) -> None:
        if self._called is not None:
            self._called(name)
        self.principal.require(OPERATIONS[name].scope)

    async def _noted(self, accepting: Awaitable[Job]) -> Job:
        """The job that is accepted, or that was there before."""
        began = _now()
        try:
            job = await accepting
        except EnqueueTimeout as error:
            self.accepted = self.accepted or error.may_be_accepted
            raise
        self.accepted = True
        if self._unattended is not None and job.created_at >= began:
            await self._unattended.accepted(job.worker_name)
        return job

    def _shown(self, job: Job) -> Job:
        """A job that was changed: whole for who may see jobs, and to others no more than that it is there, and how it stands."""
        if Scope.JOBS_READ in self.principal.scopes:
            return job
        seen = ("id", "tenant", "worker_name", "status", "created_at", "updated_at", "retry_of")
        return Job.model_validate({name: getattr(job, name) for name in seen}, by_name=True)

    def _conversations(self) -> Conversations:
        return self._jobs.memory(tenant=self.principal.tenant)

    def _whose(self, user_id: str | None) -> str:
        found = self.principal.check_user(user_id)
        if found is None:
            raise ArgumentsInvalid("userId is missing: it says whose conversation is meant.")
        return found

    async def _check_mine(self, job_id: str) -> None:
        if self.principal.only_user is not None:
            # Another gateway may have accepted it a moment ago.
            await self._find(job_id, fresh=True)

    async def _resumed(self, changes: AsyncGenerator[JobsChanged]) -> AsyncGenerator[JobsChanged]:
        """The changes, of which nobody has more than one stream at a time begin: a few at a time may read what they have missed,
        whoever they are, and how much that is says whoever asks."""
        async with aclosing(changes):
            async with self._resuming():
                if self._stopping.is_set():
                    raise WatchInterrupted("The gateway stops: go on from the last id that was read.")
                # By then it is known which jobs are to be told of.
                first = await anext(changes, None)
            if first is not None:
                yield first
            async for each in changes:
                yield each

    async def _wait(self, job_id: str, wait: float) -> Job | None:
        """The job at its end, after `wait` seconds, or when nobody is to wait any more; None when the tenant has no such job."""
        waiting = asyncio.ensure_future(self._wait_for_end(job_id, wait))
        ends: set[asyncio.Future[Any]] = {waiting, asyncio.ensure_future(self._stopping.wait())}
        ends.update(asyncio.ensure_future(end()) for end in self._ends)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        return await self._jobs.get_job(job_id, tenant=self.principal.tenant)

    async def _wait_for_end(self, job_id: str, wait: float) -> Job | None:
        """The same, but for the gateway's end. Who listens is told how the job stands."""
        told = self._told
        if told is None:
            return await self._jobs.wait_for_job(job_id, tenant=self.principal.tenant, wait=wait)
        deadline = asyncio.get_running_loop().time() + wait
        try:
            async with (
                asyncio.timeout_at(deadline),
                aclosing(self._jobs.watch_job(job_id, tenant=self.principal.tenant)) as states,
            ):
                async for job in states:
                    await told(job)
                return job
        except (TimeoutError, WatchInterrupted):
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            return await self._jobs.wait_for_job(job_id, tenant=self.principal.tenant, wait=left)

    async def _find(self, job_id: str, *, fresh: bool = False) -> Job:
        job = await self._jobs.get_job(job_id, tenant=self.principal.tenant)
        if job is None and fresh:
            job = await self._jobs.get_job(job_id, tenant=self.principal.tenant, fresh=True)
        only = self.principal.only_user
        if job is None or (only is not None and job.ctx.user_id != only):
            raise _unknown(job_id)
        return job


def _now() -> datetime:
    """The moment, as exact as the wire has it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)


def _unknown(job_id: str) -> JobUnknown:
    return JobUnknown(f"There is no job {job_id!r}, or it is not known here yet: list_jobs has those that are.")
