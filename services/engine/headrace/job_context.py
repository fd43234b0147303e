"""What a running job knows of itself, and all that it may reach of headrace: the `ctx` that a worker's `run` gets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, Final, Protocol, TypedDict, TypeVar, Unpack

from pydantic import BaseModel

from headrace.core.retry import RetryPolicy
from headrace.core.timestamps import from_milliseconds, parse_timestamp
from headrace.errors import JobCancelled, JobRefused, MemoryStoreError
from headrace.idempotency import ChildIds
from headrace.models import CallContext, Job
from headrace.ports import ConversationMemory, Recorder
from headrace.recordings import RecordedCalls, check_function

ResultT = TypeVar("ResultT")

UNSET: Final[Any] = object()
"""What stands where nothing was said, and None would say something."""

_JOB_LOGGER = logging.getLogger("headrace.job")
_making_calls = Lock()


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class JobSource(Protocol):
    """Who has a job in hand, and makes a `Job` of it for those who look at it."""

    def as_job(self) -> Job: ...


class ChildOptions(TypedDict, total=False):
    """How a running job may have another one done: see `JobContext.enqueue`."""

    ordering_key: str | None
    retry: RetryPolicy | None
    attempt_timeout: float | None
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRequest:
    """A job that a running job enqueues.

    Attributes:
        ids: makes its id, and counts those that are equal.
        attempt: the number of the attempt that asks.
        worker, args, ctx, ordering_key, retry, attempt_timeout, timeout: as `Client.enqueue` takes them; the context is the
            parent's where none is given.
    """

    parent: Job
    ids: ChildIds
    attempt: int
    worker: Any
    args: Mapping[str, Any] | BaseModel
    ctx: CallContext | Mapping[str, Any] | None = None
    ordering_key: str | None = None
    retry: RetryPolicy | None = None
    attempt_timeout: float | None = None
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class JobServices:
    """What an engine, or a replay, puts behind a `JobContext`.

    Attributes:
        now: milliseconds since the Unix epoch.
        memory: makes the memory that a job may reach; None where there is none.
        executor: runs plain functions; None for the event loop's own.
        report: takes what an attempt says of its progress: who has the job in hand, the attempt's number, the share that is done,
            and a text. It is called from any thread. None where nobody writes it down.
        cancelled: whether the attempt of who has the job in hand is to end. It is called from any thread. None where nobody can
            cancel it.
        enqueue: accepts a job that a running job enqueues, in the event loop; None where nobody can.
        loop: that event loop.
        steady: seconds by a clock that is never set, which tells how much time has passed.
        recordings: makes what an attempt of that number records with; None where nothing is recorded.
        replaying: whether this is a replay.
    """

    now: Callable[[], int] = _wall_clock
    memory: Callable[[Job], ConversationMemory] | None = None
    executor: Executor | None = None
    report: Callable[[Any, int, float, str | None], None] | None = None
    cancelled: Callable[[Any], bool] | None = None
    enqueue: Callable[[ChildRequest], Coroutine[Any, Any, Job]] | None = None
    loop: asyncio.AbstractEventLoop | None = None
    steady: Callable[[], float] = time.monotonic
    recordings: Callable[[Job, int], Recorder] | None = None
    replaying: bool = False


class JobContext:
    """What a running job knows of itself, and all that it may reach of headrace.

    Attributes:
        attempt: number of this execution, from 1.
        fencing_token: rises with every attempt of every owner of the job's partition. A worker whose effects must not come
            from a process that was frozen and thawed hands it on, and lets the other side refuse a lower one.
    """

    __slots__ = (
        *("_arguments", "_children", "_clock", "_job", "_memory", "_recorded", "_services", "_source", "_started_at"),
        *("attempt", "fencing_token"),
    )

    def __init__(
        self,
        job: Job | JobSource,
        *,
        attempt: int = 1,
        services: JobServices | None = None,
        fencing_token: tuple[int, int] = (0, 1),
        started_at: str | None = None,
        arguments: Any = UNSET,
    ) -> None:
        """
        Args:
            started_at: when the attempt began, as its record says; None where nothing was written of it.
            arguments: the job's, as its worker's `parse_arguments` gives them; left out, the worker parses them when it runs.
        """
        self.attempt = attempt
        self.fencing_token = fencing_token
        self._source = job
        self._job: Job | None = None
        self._services = services or JobServices()
        self._memory: ConversationMemory | None = None
        self._arguments = arguments
        self._children: ChildIds | None = None
        self._started_at = started_at
        self._clock: tuple[int, float] | None = None
        self._recorded: RecordedCalls | None = None

    @property
    def job(self) -> Job:
        """The job as it was accepted."""
        if self._job is None:
            self._job = self._source if isinstance(self._source, Job) else self._source.as_job()
        return self._job

    def now(self) -> datetime:
        """The time, in UTC. A worker that asks here, and not the system, can be replayed.

        The first call of an attempt answers when the attempt began, as its record in the log has it (`startedAt`), so that a
        replay gets the same answer. Each further call adds the time that has passed since the first, by a clock that is never
        set. Where no record tells of an attempt, as in a test, the first call answers the time of day.
        """
        services = self._services
        if self._clock is None:
            began = services.now() if self._started_at is None else parse_timestamp(self._started_at)
            self._clock = began, services.steady()
            return from_milliseconds(began)
        began, since = self._clock
        return from_milliseconds(began + round((services.steady() - since) * 1000))

    @property
    def replaying(self) -> bool:
        """Whether a job is run again from the log, to see what comes of it: effects of the worker's own are to be left out then.

        What it does through its context does not happen in a replay, and need not be left out.
        """
        return self._services.replaying

    def progress(self, fraction: float, text: str | None = None) -> None:
        """Says how far the job is, for all who look at it. It waits for nothing, and may be called from any thread, at any rate.

        At most one record a second is written for it, of what was said last. What was said last of all stands in the record of
        the attempt's end; when the job is completed, with a share of 1.

        Args:
            fraction: the share of the work that is done, from 0 to 1.
            text: what is being done; 1,000 bytes of it are kept.

        Raises:
            ValueError: the share is not from 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress({fraction!r}): give the share of the work that is done, from 0 to 1.")
        if self._services.report is not None:
            self._services.report(self._source, self.attempt, fraction, text)

    def enqueue(
        self,
        worker: Any,
        args: Mapping[str, Any] | BaseModel,
        ctx: CallContext | Mapping[str, Any] | None = None,
        *,
        ordering_key: str | None = None,
        retry: RetryPolicy | None = None,
        attempt_timeout: float | None = None,
        timeout: float = 10.0,
    ) -> Coroutine[Any, Any, Job]:
        """Enqueues another job, for the same tenant; `parent_id` of it names this one.

        However many attempts this job takes, it exists once: its id follows from this job, the worker, the ordering key, the
        arguments, and how many equal ones the attempt has enqueued before. Arguments that differ from attempt to attempt, as by
        a time in them, are other jobs.

        Args:
            worker: the worker, its class, or its name.
            ctx: where the request comes from; this job's context when left out.
            ordering_key, retry, attempt_timeout, timeout: as `Client.enqueue` takes them.

        Raises:
            JobRefused: the job runs where nobody can enqueue.
            RuntimeError: it is called in a plain function, where nobody could await it.
            Others as `Client.enqueue`. After an EnqueueTimeout the call can be repeated, by this attempt or the next.
        """
        _check_awaited("enqueue")
        return self._enqueue(
            ChildRequest(
                parent=self.job,
                ids=self._child_ids(),
                attempt=self.attempt,
                worker=worker,
                args=args,
                ctx=ctx,
                ordering_key=ordering_key,
                retry=retry,
                attempt_timeout=attempt_timeout,
                timeout=timeout,
            )
        )

    async def _enqueue(self, request: ChildRequest) -> Job:
        return await _enqueue_of(self._services)(request)

    def enqueue_from_thread(
        self,
        worker: Any,
        args: Mapping[str, Any] | BaseModel,
        ctx: CallContext | Mapping[str, Any] | None = None,
        **options: Unpack[ChildOptions],
    ) -> Job:
        """What `enqueue` does, for plain functions: it blocks its thread until the job is accepted.

        Raises as `enqueue`, and RuntimeError in the thread of the event loop, which it would block for ever.
        """
        _enqueue_of(self._services)
        loop = self._services.loop
        if loop is None or _runs_here(loop):
            raise RuntimeError("enqueue_from_thread() is for plain functions, in threads: await enqueue() in a coroutine.")

        async def enqueue() -> Job:
            return await self.enqueue(worker, args, ctx, **options)

        return _done_in(loop, enqueue())

    def recorded(self, name: str, fn: Callable[[], Any], *, key: Any = None, reuse: bool = False) -> Coroutine[Any, Any, Any]:
        """What `fn` gives, which comes from outside: a model's answer, an HTTP response. It is recorded for replays of the job.

        The record is acknowledged before this returns. A replay of the attempt gets what was recorded, and does not call `fn`.
        What is returned is as JSON has it, in both: a model is an object, a tuple a list. It is awaited, by whichever task.

        Args:
            name: tells it from what else the job gets from outside; up to 200 characters. Of several with one name, each has its
                number, in the order of the calls; of those within `fn` of another one, in their order there.
            fn: without arguments; a coroutine function, or a plain function that does not block. What it raises is recorded and
                raised here, and raised again in a replay; the next call of that name takes its place.
            key: JSON that tells what is asked for, for calls of one name whose order hangs on answers that came before: a part
                of the name, of which a digest is recorded. None where their order is that of the program.
            reuse: whether this attempt may take what an earlier one of the job recorded under the same name, key and number, so
                that what was paid for is not paid for again when an attempt is repeated. What was raised is never taken: it is
                asked for once more. So is that which has no key and may have been another call's.

        Raises:
            RecordingRefused: it is no JSON, or more than 512 KB.
            RecordedError: this is a replay; `fn` raised an exception then whose class no module has that is loaded now. One that
                is loaded is raised as what it was.
            BrokerError: it was not acknowledged in time. It counts as an interruption of the attempt, and no failure.
            NotRecorded: this is a replay, and the attempt recorded no such thing.
            ValueError: the name is empty, or too long; or the key is no JSON.
            TypeError: `fn` is no function, but what one has given, as a coroutine.
            RuntimeError: it is called in a plain function, where nobody could await it.
        """
        check_function(name, fn)
        _check_awaited("recorded")
        return self._recorded_calls().recorded(name, fn, key=key, reuse=reuse)

    def recorded_from_thread(self, name: str, fn: Callable[[], Any], *, key: Any = None, reuse: bool = False) -> Any:
        """What `recorded` does, for plain functions: `fn` may block, and is called in this thread.

        Raises as `recorded`, TypeError where `fn` is a coroutine function, or gives a coroutine, and RuntimeError in the thread
        of the event loop, which it would block for ever.
        """
        check_function(name, fn)
        loop = self._services.loop
        if _runs_here(loop):
            raise RuntimeError("recorded_from_thread() is for plain functions, in threads: await recorded() in a coroutine.")

        def wait_for(work: Coroutine[Any, Any, ResultT]) -> ResultT:
            # In a process of its own a plain function runs outside of any event loop.
            return asyncio.run(work) if loop is None else _done_in(loop, work)

        return self._recorded_calls().recorded_from_thread(name, fn, wait_for, key=key, reuse=reuse)

    def _recorded_calls(self) -> RecordedCalls:
        if self._recorded is None:
            # Whoever comes second, from another thread, takes those of the first: numbers are counted once.
            with _making_calls:
                if self._recorded is None:
                    self._recorded = RecordedCalls(self._recorder())
        return self._recorded

    def _recorder(self) -> Recorder | None:
        make = self._services.recordings
        return None if make is None else make(self.job, self.attempt)

    def _child_ids(self) -> ChildIds:
        if self._children is None:
            self._children = ChildIds(self.job.id)
        return self._children

    @property
    def cancelled(self) -> bool:
        """Whether this attempt is to end: its job was cancelled, it takes longer than it may, or its engine has lost the lease.

        `async def` need not ask, it is cancelled. A plain function cannot be stopped: one that takes long asks now and then, and
        returns or raises. Whatever it does, its job is `cancelled`, the attempt has failed by its timeout, or it is made again.
        """
        return self._services.cancelled is not None and self._services.cancelled(self._source)

    def raise_if_cancelled(self) -> None:
        """Ends an attempt that is to end.

        Raises:
            JobCancelled: `cancelled` is true.
        """
        if self.cancelled:
            raise JobCancelled

    @property
    def memory(self) -> ConversationMemory:
        """The memory of conversations, for the job's tenant.

        Raises:
            MemoryStoreError: the job runs where there is none.
        """
        if self._memory is None:
            if self._services.memory is None:
                raise MemoryStoreError("This job runs without an engine, so it has no memory: give process_job a context.")
            self._memory = self._services.memory(self.job)
        return self._memory

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the job's id, worker and attempt."""
        extra = {"job_id": self.job.id, "worker": self.job.worker_name, "attempt": self.attempt}
        return logging.LoggerAdapter(_JOB_LOGGER, extra)


def _enqueue_of(services: JobServices) -> Callable[[ChildRequest], Coroutine[Any, Any, Job]]:
    if services.enqueue is None:
        raise JobRefused("This job runs without an engine, so it can enqueue nothing: give process_job a context.")
    return services.enqueue


def _check_awaited(name: str) -> None:
    """Raises RuntimeError in a thread without an event loop: what is never awaited would be left undone without a word."""
    if not _runs_here(None):
        raise RuntimeError(f"{name}() is for coroutines, which await it: call {name}_from_thread() in a plain function.")


def _done_in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Has another thread's event loop do something, and waits for it. Raises RuntimeError where that loop is closed."""
    try:
        future = asyncio.run_coroutine_threadsafe(work, loop)
    except BaseException:
        work.close()  # or Python would complain, beside the error, that nobody awaited it
        raise
    return future.result()


def _runs_here(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether this thread runs the loop; with None, whether it runs any."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return False
    return loop is None or running is loop
