"""The jobs of a run: short and long ones, with and without a key, some that fail or are cancelled, and records that are none."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, Field

from headrace.abstract_worker import AbstractWorker
from headrace.client import Client
from headrace.core.rate import RateLimit
from headrace.core.retry import RetryPolicy
from headrace.core.topics import Topics
from headrace.engine.partition import Work
from headrace.errors import BrokerError, EnqueueTimeout, WorkerProcessDied
from headrace.idempotency import Accepted
from headrace.job_context import JobContext
from headrace.models import Job, WorkerDefinition
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import Settings
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.simulation.chronicle import Chronicle, Step
from headrace.testing.simulation.process import SimulatedProcess
from headrace.testing.simulation.scenario import Scenario
from headrace.testing.simulation.supervision import ChildProcesses

WORKER = "work"
# Of the term of a lease: how long an attempt takes at most to end when it is told to.
_LONGEST_ENDING = 0.06


# Times at the usual pace: as long as a fault lasts, so that jobs change hands while they wait.
RETRY = RetryPolicy(max_attempts=3, initial=6.0, factor=4.0, maximum=20.0, jitter=0.2)
_LONGEST_SECONDS = 80.0


class WorkArguments(BaseModel):
    """How long an attempt takes, in seconds, how many of them fail then, whether each takes its process with it instead, and
    how many jobs it enqueues before, all alike."""

    seconds: float = Field(ge=0)
    failures: int = 0
    kills: bool = False
    children: int = 0


class SimulatedWorker(AbstractWorker[WorkArguments]):
    """Notes down what it does, outside of the log.

    Args:
        process: in which it runs.
        ending_seconds: how long it takes at most to end when it is stopped.
        pace: of the scenario.
        children: of the process, where it has any: they run some of the attempts.
    """

    name = WORKER
    description = "Works for a while."
    _definitions: ClassVar[dict[type[SimulatedWorker], WorkerDefinition]] = {}

    def __init__(
        self,
        process: SimulatedProcess,
        chronicle: Chronicle,
        concurrency: int,
        ending_seconds: float,
        pace: float,
        children: ChildProcesses | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self.concurrency = concurrency
        self.rate_limit = rate_limit
        self.retry = dataclasses.replace(RETRY, initial=RETRY.initial * pace, maximum=RETRY.maximum * pace)
        self._host = process
        self._chronicle = chronicle
        self._ending_seconds = ending_seconds
        self._children = children

    def definition(self) -> WorkerDefinition:
        """The same for all of its kind, and dear to make: a client asks for it with each job."""
        known = SimulatedWorker._definitions.get(type(self))
        if known is None:
            known = SimulatedWorker._definitions[type(self)] = super().definition()
        return known

    async def run(self, args: WorkArguments, ctx: JobContext) -> Any:
        """Works."""
        return await self.work(args, ctx, apart=False)

    async def work(self, args: WorkArguments, ctx: JobContext, *, apart: bool) -> Any:
        """Works, in the process of the engine or in one of its own."""
        job_id, token = ctx.job.id, ctx.fencing_token
        self._chronicle.step(Step.STARTED, self._host.name, job_id, token, apart=apart)
        if self._children is not None and not apart:
            self._children.begin((job_id, token))
        left = args.seconds
        tick = max(0.05, min(1.0, left / 8))
        try:
            for _ in range(args.children):
                await self._enqueue_child(ctx)
            while left > 0:
                await asyncio.sleep(min(tick, left))
                left -= tick
                self._note(Step.WORKED, job_id, token)
            if args.kills:
                await self._die(apart=apart)
            if args.failures and sum(each.status == "failed" for each in ctx.job.attempts) < args.failures:
                raise RuntimeError("This attempt fails.")
            return {"attempt": ctx.attempt} if args.seconds > 1 else None
        except asyncio.CancelledError:
            self._note(Step.STOPPED, job_id, token)
            await asyncio.sleep(self._host.random.uniform(0, self._ending_seconds))
            raise
        finally:
            self._note(Step.ENDED, job_id, token)
            if self._children is not None:
                self._children.end((job_id, token))

    async def _enqueue_child(self, ctx: JobContext) -> None:
        """Brokers that are away end the attempt, and not the job."""
        child = await ctx.enqueue(self, WorkArguments(seconds=0.1))
        self._chronicle.accepted(child.id)

    async def _die(self, *, apart: bool) -> None:
        if apart:
            raise _Died
        self._host.fall()
        await asyncio.Event().wait()  # which nobody sees

    def _note(self, step: Step, job_id: str, token: tuple[int, int]) -> None:
        self._chronicle.step(step, self._host.name, job_id, token)


class _Died(BaseException):
    """The process of its own died in which an attempt ran."""


class SimulatedProcesses:
    """Processes apart from an engine's, as far as an engine can tell."""

    def __init__(self, worker: AbstractWorker[Any]) -> None:
        assert isinstance(worker, SimulatedWorker)
        self._worker = worker

    def can_run(self) -> bool:
        """They all can."""
        return True

    async def run(self, work: Work, ctx: JobContext, *, alone: bool, begun: Callable[[], None]) -> Any:  # noqa: ARG002
        """Runs an attempt; one that takes its process with it takes no other."""
        begun()
        try:
            return await self._worker.work(work.arguments, ctx, apart=True)
        except _Died:
            raise WorkerProcessDied(-9, "was killed by signal 9 (SIGKILL)") from None

    async def close(self) -> None:
        """There is nothing to end."""


def simulated_worker(
    process: SimulatedProcess, chronicle: Chronicle, scenario: Scenario, children: ChildProcesses | None
) -> SimulatedWorker:
    """The worker of one engine."""
    ending_seconds = scenario.lease * _LONGEST_ENDING
    return SimulatedWorker(process, chronicle, scenario.concurrency, ending_seconds, scenario.pace, children, scenario.rate_limit)


class Workload:
    """Enqueues jobs for as long as a scenario has it, by a client as any program would."""

    def __init__(self, scenario: Scenario, settings: Settings, process: SimulatedProcess, chronicle: Chronicle) -> None:
        self._scenario = scenario
        self._chronicle = chronicle
        self._random = Random(f"jobs {scenario.seed}")
        self._second_thoughts = Random(f"cancellations {scenario.seed}")
        self._poison = Random(f"poison {scenario.seed}")
        self._cluster: InMemoryCluster = process.log.cluster
        self._queue = Topics(settings.namespace).jobs_name(WORKER)
        self._make_client = partial(Client, settings, log=process.log, now=process.now, randomness=process.randomness)
        self._client = self._make_client()
        self._started = asyncio.Event()
        self._worker = SimulatedWorker(process, chronicle, 1, 0.0, scenario.pace)

    async def run(self) -> None:
        """Enqueues all jobs, and waits until each was answered."""
        await self._start()
        self._started.set()
        waiting: set[asyncio.Task[None]] = set()
        pace = self._scenario.seconds / self._scenario.jobs
        ends_at = asyncio.get_running_loop().time() + self._scenario.seconds
        for _ in range(self._scenario.jobs):
            if asyncio.get_running_loop().time() > ends_at:
                break
            # They come in bursts: most at once with the one before, and then nothing for a while.
            await asyncio.sleep(self._random.expovariate(1 / (4 * pace)) if self._random.random() < 0.25 else 0)
            if self._random.random() < self._scenario.strangers:
                self._put_what_is_no_job()
                continue
            args, key = self._draw()
            if self._random.random() < 0.2:
                work = self._enqueue_again(args, key, f"request-{self._random.getrandbits(64):016x}")
            else:
                work = self._enqueue(args, key)
            task = asyncio.create_task(work)
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        while waiting:
            await asyncio.wait(set(waiting))

    async def pause_now_and_then(self) -> None:
        """Pauses the worker and resumes it, until it is cancelled; see `pause_once`."""
        random = Random(f"pauses {self._scenario.seed}")
        await self._started.wait()
        while True:
            await asyncio.sleep(random.expovariate(0.25) * self._scenario.lease)
            await self.pause_once(random.uniform(0.1, 2.0) * self._scenario.lease)

    async def pause_once(self, seconds: float) -> None:
        """Pauses the worker for so long."""
        await self._started.wait()
        await self._until_acknowledged(self._client._control.pause)
        await asyncio.sleep(seconds)
        await self._until_acknowledged(self._client._control.resume)

    async def _until_acknowledged(self, ask: Callable[..., Awaitable[None]]) -> None:
        while True:
            try:
                return await ask(WORKER, timeout=10 * self._scenario.pace)
            except BrokerError:
                await asyncio.sleep(self._scenario.pace)

    async def _start(self) -> None:
        """As any program: one that cannot reach the brokers is started once more."""
        while True:
            try:
                return await self._client.start()
            except BrokerError:
                await asyncio.sleep(1)
                self._client = self._make_client()

    async def stop(self) -> None:
        """Ends the client."""
        await self._client.stop()

    async def _enqueue(self, args: WorkArguments, key: str | None) -> None:
        try:
            job = await self._client.enqueue(self._worker, args, ordering_key=key)
        except EnqueueTimeout as error:
            if not error.may_be_accepted:
                self._chronicle.not_accepted(error.job_id)
            return  # if it is in the log, it has to end
        except BrokerError:
            return
        self._chronicle.accepted(job.id)
        # Most of those that end at once have ended before anybody can cancel them.
        share = self._scenario.cancelled_jobs * (1 if args.seconds < 1 else 3)
        if self._second_thoughts.random() < share:
            await self._cancel(job)

    async def _cancel(self, job: Job) -> None:
        """At once, or after a while, in which it may have ended."""
        random = self._second_thoughts
        await asyncio.sleep(random.choice((0.0, 0.01, random.uniform(0, 60) * self._scenario.pace)))
        with suppress(BrokerError):  # the request may be in the log, or come into it
            await self._client._control.cancel(job, timeout=10)

    async def _enqueue_again(self, args: WorkArguments, key: str | None, request: str) -> None:
        """Enqueues a job with an idempotency key, and later asks for it again: at once, while it runs, and long after its end."""
        for _ in range(self._random.randint(2, 4)):
            # As a client that knows of no call before: only the holder of the partition can tell.
            self._client._accepted = Accepted(0.0)
            with suppress(EnqueueTimeout, BrokerError):
                job = await self._client.enqueue(self._worker, args, ordering_key=key, idempotency_key=request)
                self._chronicle.accepted(job.id)
            await asyncio.sleep(self._random.choice((0.0, 1.0, 30.0, 200.0)) * self._random.random() * self._scenario.pace)
            if self._random.random() < 0.05:
                args = args.model_copy(update={"seconds": args.seconds + 1})

    def _draw(self) -> tuple[WorkArguments, str | None]:
        random = self._random
        drawn = random.random()
        if drawn < self._scenario.long_jobs:
            seconds = random.uniform(10, _LONGEST_SECONDS) * self._scenario.pace
        elif drawn < self._scenario.long_jobs + 0.25:
            seconds = random.uniform(0.2, 10) * self._scenario.pace
        else:
            seconds = random.choice((0.0, 0.01, 0.1))
        key = f"key-{random.randrange(self._scenario.keys)}" if random.random() < self._scenario.keyed_jobs else None
        kills = self._poison.random() < self._scenario.poison
        children = random.choice((1, 3)) if random.random() < 0.05 else 0
        failures = random.choice((1, 1, 2, 9)) if random.random() < self._scenario.failing_jobs else 0
        return WorkArguments(seconds=round(seconds, 3), failures=failures, kills=kills, children=children), key

    def _put_what_is_no_job(self) -> None:
        """As another program might: bytes that are nothing, or a job whose arguments are wrong."""
        target = TopicPartition(self._queue, self._random.randrange(self._scenario.partitions))
        name = f"stranger-{self._random.getrandbits(64):016x}"
        wrong = {
            "schemaVersion": 1,
            "id": name,
            "tenant": "default",
            "workerName": WORKER,
            "createdAt": "2026-03-02T09:30:00.000Z",
            "args": {"seconds": -1},
            "ctx": {},
        }
        value = name.encode() if self._random.random() < 0.5 else orjson.dumps(wrong)
        self._cluster.append(target, NewRecord(name.encode(), value))
