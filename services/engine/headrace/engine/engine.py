"""The engine: a process's face to its workers, their groups, and the log."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from headrace.abstract_worker import AbstractWorker
from headrace.broker.discovery import given_settings, settings_of_this_folder
from headrace.client import Client
from headrace.core.identifiers import fresh_id
from headrace.core.lease import Moment
from headrace.core.retry import RetryPolicy
from headrace.core.snapshots import MostDeaths
from headrace.engine.children import enqueue_child
from headrace.engine.control import EngineControl
from headrace.engine.ended_keys import EndedKeys
from headrace.engine.group import Environment, WorkerGroup
from headrace.engine.guardian import Guardian, NoGuardian
from headrace.engine.guarding import Guard
from headrace.engine.health import WorkerHealth
from headrace.engine.janitor import Janitor
from headrace.engine.means import AttemptProcesses, Means, slots_of
from headrace.engine.oversight import Oversight
from headrace.engine.partition import Statistics
from headrace.engine.presence import Presence
from headrace.engine.processes import process_pools, reference_of
from headrace.engine.worker_ends import close_worker
from headrace.errors import ConfigurationError, EngineStuck, HeadraceError, LeaseLost
from headrace.job_context import JobServices
from headrace.kafka.leaving import client_id_of
from headrace.kafka.log import KafkaLog
from headrace.memory import BoundMemory, StoreOptions, TopicMemoryStore
from headrace.models import CallContext, Job
from headrace.ports import Log
from headrace.recordings import LiveRecordings
from headrace.runtime import StopRequested, StopSignals, system_clock, wall_clock
from headrace.sandbox_refusal import create_live_topics
from headrace.settings import Settings, load_settings
from headrace.submission import Arguments

_logger = logging.getLogger(__name__)

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

_WRITER_STOP_SECONDS = 5.0


def _by_client(
    method: Callable[Concatenate[Client, ParametersT], Awaitable[ResultT]],
) -> Callable[Concatenate[WorkerEngine, ParametersT], Coroutine[Any, Any, ResultT]]:
    """The same method of an engine, which asks its own client. Raises ConfigurationError before the engine's start, too."""

    @functools.wraps(method)
    async def ask(engine: WorkerEngine, /, *args: ParametersT.args, **options: ParametersT.kwargs) -> ResultT:
        engine._check_started()
        return await method(engine._client, *args, **options)

    return ask


class WorkerEngine:
    """Runs the jobs of its workers, together with all other engines that have them. An async context manager.

        engine = WorkerEngine()
        engine.register_worker(SendDigest())
        await engine.run()                      # until SIGTERM or SIGINT

    Args:
        settings: from the environment when left out, with the broker that runs for this folder if it names none.
        log: a cluster that is in use already; it stays open when the engine stops.
        clock: the clocks by which it holds leases.
        now: the time that it writes down, in milliseconds since the Unix epoch.
        randomness: makes so many random bytes, for ids and for what a retry policy leaves to chance.
        processes: makes the processes in which a worker's attempts run that are not to run in this one.
        guardian: hears of its claims, and may end the process when a lease is over.
        in_sandbox: it is the one of the replay whose sandbox its namespace is.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        log: Log | None = None,
        clock: Callable[[], Moment] = system_clock,
        now: Callable[[], int] = wall_clock,
        randomness: Callable[[int], bytes] = os.urandom,
        processes: Callable[[AbstractWorker[Any]], AttemptProcesses] | None = None,
        guardian: Guardian | None = None,
        in_sandbox: bool = False,
    ) -> None:
        self.settings = given_settings(settings) or (load_settings() if log else settings_of_this_folder())
        self._clock = clock
        self._now = now
        self._randomness = randomness
        self._guardian = guardian or NoGuardian()
        self._in_sandbox = in_sandbox
        self.instance_id = fresh_id(now(), randomness(10))
        self._owns_log = log is None
        self._log = log or KafkaLog(self.settings, client_id=client_id_of(self.instance_id))
        self._client = Client(self.settings, log=self._log, now=now, randomness=randomness)
        self.topics = self._client.topics
        self._writer = self._log.writer()
        self._control = EngineControl(self._client._directory, self._writer, self.topics.control.name)
        view_path = self.settings.data_directory / "views" / self.settings.namespace / "memory.sqlite"
        # It connects when a job first uses it.
        self._memory = TopicMemoryStore(self._log, self.topics, StoreOptions(view_path=view_path))
        self._recordings = LiveRecordings(self._log, self.topics)
        window = self.settings.engine.idempotency_window_seconds
        self._ended_keys = EndedKeys(self._log, self.topics.ended_keys(window).name, now, window)
        self._workers: dict[str, AbstractWorker[Any]] = {}
        self._groups: list[WorkerGroup] = []
        self._executors: list[ThreadPoolExecutor] = []
        self._make_processes = processes or process_pools()
        self._processes: list[AttemptProcesses] = []
        # A cluster in memory has a clock of its own, by which threads of the machine's clock would see nothing but blocks.
        self._oversight = Oversight(self.settings.engine, self._health) if self._owns_log else None
        self._presence: Presence | None = None
        self._presence_task: asyncio.Task[None] | None = None
        self._janitor = Janitor(self._log, self.topics, self.settings.engine, now)
        self._started = False
        self._workers_closed = False
        self._hurried = asyncio.Event()
        self._broken = asyncio.Event()
        self._crash: BaseException | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop(grace_seconds=0)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops the engine.

        Raises:
            HeadraceError: a part of it ended by an error that nobody expected, and the body ended without an error of its own.
        """
        await self.stop()
        if error is None:
            await self._raise_crash()

    @property
    def workers(self) -> Mapping[str, AbstractWorker[Any]]:
        """The registered workers, by name."""
        return self._workers

    @property
    def statistics(self) -> dict[str, Statistics]:
        """What each worker has done in this engine since its start, by name."""
        return {group.worker.name: group.dispatcher.statistics for group in self._groups}

    @property
    def groups(self) -> Sequence[WorkerGroup]:
        """What runs each worker, while the engine runs."""
        return self._groups

    def register_worker(self, worker: AbstractWorker[Any] | type[AbstractWorker[Any]]) -> None:
        """Adds a worker, which this engine runs from its start on.

        Raises:
            ConfigurationError: the engine runs already, the name is taken, the worker has no usable name, or it runs in processes
                and cannot be imported there.
        """
        if self._started:
            raise ConfigurationError("Register workers before the engine starts.")
        made = worker() if isinstance(worker, type) else worker
        definition = made.definition()
        if definition.name in self._workers:
            raise ConfigurationError(f"Two workers are named {definition.name!r}: give one another name.")
        if made.executor == "process":
            reference_of(made)
        self._workers[definition.name] = made
        self._client.define(definition)

    async def start(self) -> None:
        """Creates the topics that are missing, says which workers there are, and begins to run jobs.

        Raises:
            TopicMisconfigured: a topic exists with settings under which data could be lost; the message has the remedy.
            NamespaceIsSandbox: the namespace is the sandbox of a replay; nothing was changed.
            ConfigurationError: the engine has no worker, or the cluster does not take a topic.
            BrokerError: the brokers cannot be used.
        """
        if not self._workers:
            raise ConfigurationError("The engine has no worker: register one before it starts.")
        self._started = True
        settings = self.settings.engine
        topics = self.topics.of_engine(self._workers, settings.partitions, settings.idempotency_window_seconds)
        if self._in_sandbox:
            await self._log.create_topics(topics)
        else:
            await create_live_topics(self._log, self.topics, topics)
        await self._recordings.check()
        await self._writer.start()
        await self._ended_keys.start()
        await self._client.start()
        definitions = [worker.definition() for worker in self._workers.values()]
        self._presence = Presence(
            self._writer, self._client._directory, self.instance_id, definitions, self._now, settings.presence_interval_seconds
        )
        await self._presence.publish()
        if self._oversight is not None:
            # Its port may be taken: who had joined by then would have the others deal out their partitions for nothing.
            self._oversight.start()
        self._groups = [WorkerGroup(worker, self._environment(worker)) for worker in self._workers.values()]
        await asyncio.gather(*(group.start() for group in self._groups))
        self._presence_task = asyncio.create_task(self._presence.keep_up(), name="presence")
        Guard(self._crashed).watch(self._presence_task)
        if settings.janitor:
            self._janitor.start()

    def _health(self) -> dict[str, WorkerHealth]:
        return {group.worker.name: group.health() for group in self._groups}

    def _environment(self, worker: AbstractWorker[Any]) -> Environment:
        slots = slots_of(worker, self.settings.engine)
        executor = ThreadPoolExecutor(slots, thread_name_prefix=f"headrace-{worker.name}")
        self._executors.append(executor)
        processes = self._make_processes(worker)
        self._processes.append(processes)
        settings = self.settings.engine
        most_deaths = MostDeaths(settings.max_crashes, settings.max_engine_deaths)
        means = Means(processes, settings.stuck_seconds, self._crashed, most_deaths, Guard(self._crashed))
        services = JobServices(
            now=self._now,
            memory=self._memory_for,
            executor=executor,
            enqueue=functools.partial(enqueue_child, self._client),
            loop=asyncio.get_running_loop(),
            steady=lambda: self._clock().steady,
            recordings=self._recordings.of,
        )
        return Environment(
            log=self._log,
            topics=self.topics,
            settings=self.settings.engine,
            instance_id=self.instance_id,
            writer=self._writer,
            services=services,
            clock=self._clock,
            chance=self._chance,
            crashed=self._crashed,
            control=self._control,
            means=means,
            guardian=self._guardian,
            ended_keys=self._ended_keys,
        )

    def _chance(self) -> float:
        return int.from_bytes(self._randomness(6), "big") / 2**48

    def _memory_for(self, job: Job) -> BoundMemory:
        return BoundMemory(self._memory, job.tenant, job.id)

    async def stop(self, *, grace_seconds: float | None = None) -> bool:
        """Starts nothing more, leaves the groups at once, and gives running attempts `grace_seconds`.

        What did not end in time waits for its next attempt, in another engine or after a restart; it has not failed. While the
        brokers are away, the attempts get the grace without the last eight seconds, so that all has ended when it is over.
        Returns False when an attempt runs on all the same, in a thread: then only the end of the process ends it.
        """
        grace = self.settings.engine.grace_seconds if grace_seconds is None else grace_seconds
        if isinstance(self._crash, LeaseLost):
            grace = 0.0  # another engine may run its jobs already
        drained, _ = await asyncio.gather(self._drain(grace), self._janitor.stop())
        await asyncio.gather(*(group.stop() for group in self._groups))
        in_vain = any(group.closing.in_vain for group in self._groups)
        self._groups = []
        # Side by side: either may take some seconds, which no grace has.
        await asyncio.gather(self._close_workers(), *(processes.close() for processes in self._processes))
        if self._oversight is not None:
            self._oversight.stop()
        if self._presence_task is not None:
            self._presence_task.cancel()
            await asyncio.gather(self._presence_task, return_exceptions=True)
        if self._presence is not None and not in_vain:
            await self._presence.withdraw()
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(self._memory.stop(), self._ended_keys.stop(), self._client.stop())
        left = 0.0 if in_vain else _WRITER_STOP_SECONDS
        await self._writer.stop(timeout=left)
        await self._recordings.stop(timeout=left)
        if self._owns_log:
            await self._log.close()
        return all(drained)

    async def _close_workers(self) -> None:
        if not self._workers_closed:
            self._workers_closed = True
            await asyncio.gather(*(close_worker(worker) for worker in self._workers.values()))

    def hurry(self) -> None:
        """Takes the grace away from a stop, be it under way or to come: running attempts are interrupted at once."""
        self._hurried.set()

    async def _drain(self, grace: float) -> list[bool]:
        draining = asyncio.gather(*(group.drain(grace) for group in self._groups))
        hurried = asyncio.create_task(self._hurried.wait())
        try:
            waited_for: set[asyncio.Future[Any]] = {draining, hurried}
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                draining.cancel()  # the waiting alone; the attempts are stopped by what follows
                await asyncio.gather(draining, return_exceptions=True)
                return await asyncio.gather(*(group.drain(0) for group in self._groups))
            return draining.result()
        finally:
            draining.cancel()
            hurried.cancel()

    async def run(self) -> bool:
        """Runs until SIGTERM or SIGINT, then stops with the grace of the settings; a second signal ends the grace.

        Returns what `stop` returns.

        Raises:
            HeadraceError: the engine could not start, or a part of it ended by an error that nobody expected.
        """
        with StopSignals() as signals:
            signals.on_first.append(self._say_grace)
            signals.on_further.append(self.hurry)
            self._guardian.introduce(self.settings, self.instance_id, signals.request)
            try:
                with contextlib.suppress(StopRequested):
                    await signals.unless_requested(self.start())
                    self._guardian.started()
                    _logger.info("engine %s runs %s", self.instance_id, ", ".join(self._workers))
                    await signals.unless_requested(self.ended())
            finally:
                drained = await self.stop()
                self._guardian.ended()
        await self._raise_crash()
        return drained

    def _say_grace(self) -> None:
        grace = self.settings.engine.grace_seconds
        _logger.info("engine %s stops: running jobs get %g s; a second Ctrl-C ends them at once", self.instance_id, grace)

    async def ended(self) -> HeadraceError:
        """Returns when a part of the engine has ended by an error that nobody expected; it must then be stopped.

        What it returns says so, for whoever wants to raise it.
        """
        await self._broken.wait()
        return HeadraceError(f"The engine ended by an error of its own: {self._crash!r}.")

    async def _raise_crash(self) -> None:
        if isinstance(self._crash, EngineStuck):
            raise self._crash
        if self._crash is not None:
            raise await self.ended() from self._crash

    def _crashed(self, error: BaseException) -> None:
        self._crash = self._crash or error
        self._broken.set()

    # --- jobs -----------------------------------------------------------------------------------------------------------

    async def enqueue(
        self,
        worker_name: str,
        args: Arguments,
        ctx: CallContext | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        retry: RetryPolicy | None = None,
        attempt_timeout: float | None = None,
    ) -> Job:
        """Accepts a job for a worker, also for one that other engines run, from the start of the engine on.

        The arguments are those of `Client.enqueue`. Raises as `Client.enqueue`, and ConfigurationError before the start.
        """
        self._check_started()
        worker = self._workers.get(worker_name, worker_name)
        return await self._client.enqueue(
            worker, args, ctx, idempotency_key=idempotency_key, retry=retry, attempt_timeout=attempt_timeout
        )

    def _check_started(self) -> None:
        if not self._started:
            raise ConfigurationError("The engine has not started: start it, or use a Client, which needs no engine.")
        if self._client.closed:
            raise ConfigurationError("The engine has ended: ask one that runs, or use a Client, which needs no engine.")

    list_workers = _by_client(Client.list_workers)
    list_jobs = _by_client(Client.list_jobs)
    cancel_job = _by_client(Client.cancel_job)
