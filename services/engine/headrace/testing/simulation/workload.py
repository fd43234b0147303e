"""The jobs of a run: short and long ones, with and without a key, some that fail, and records that are none."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, Field

from headrace.client import Client
from headrace.core.retry import RetryPolicy
from headrace.core.topics import Topics
from headrace.errors import BrokerError, EnqueueTimeout
from headrace.job_context import JobContext
from headrace.models import WorkerDefinition
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import Settings
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.simulation.chronicle import Chronicle, Step
from headrace.testing.simulation.process import SimulatedProcess
from headrace.testing.simulation.scenario import Scenario
from headrace.worker import AbstractWorker

WORKER = "work"
# Of the term of a lease: how long an attempt takes at most to end when it is told to.
_LONGEST_ENDING = 0.04


# As long as a fault lasts, so that jobs change hands while they wait.
RETRY = RetryPolicy(max_attempts=3, initial=6.0, factor=4.0, maximum=20.0, jitter=0.2)


class WorkArguments(BaseModel):
    """How long an attempt takes, in seconds, and how many of them fail then."""

    seconds: float = Field(ge=0)
    failures: int = 0


class SimulatedWorker(AbstractWorker[WorkArguments]):
    """Notes down what it does, outside of the log.

    Args:
        process: in which it runs.
        ending_seconds: how long it takes at most to end when it is stopped.
    """

    name = WORKER
    description = "Works for a while."
    retry = RETRY
    _definitions: ClassVar[dict[type[SimulatedWorker], WorkerDefinition]] = {}

    def __init__(self, process: SimulatedProcess, chronicle: Chronicle, concurrency: int, ending_seconds: float) -> None:
        self.concurrency = concurrency
        self._host = process
        self._chronicle = chronicle
        self._ending_seconds = ending_seconds

    def definition(self) -> WorkerDefinition:
        """The same for all of its kind, and dear to make: a client asks for it with each job."""
        known = SimulatedWorker._definitions.get(type(self))
        if known is None:
            known = SimulatedWorker._definitions[type(self)] = super().definition()
        return known

    async def run(self, args: WorkArguments, ctx: JobContext) -> Any:
        """Works."""
        job_id, token = ctx.job.id, ctx.fencing_token
        self._note(Step.STARTED, job_id, token)
        left = args.seconds
        tick = max(0.05, min(1.0, left / 8))
        try:
            while left > 0:
                await asyncio.sleep(min(tick, left))
                left -= tick
                self._note(Step.WORKED, job_id, token)
            if args.failures and sum(each.status == "failed" for each in ctx.job.attempts) < args.failures:
                raise RuntimeError("This attempt fails.")
            return {"attempt": ctx.attempt} if args.seconds > 1 else None
        except asyncio.CancelledError:
            self._note(Step.STOPPED, job_id, token)
            await asyncio.sleep(self._host.random.uniform(0, self._ending_seconds))
            raise
        finally:
            self._note(Step.ENDED, job_id, token)

    def _note(self, step: Step, job_id: str, token: tuple[int, int]) -> None:
        self._chronicle.step(step, self._host.name, job_id, token)


def simulated_worker(process: SimulatedProcess, chronicle: Chronicle, scenario: Scenario) -> SimulatedWorker:
    """The worker of one engine."""
    return SimulatedWorker(process, chronicle, scenario.concurrency, scenario.lease * _LONGEST_ENDING)


class Workload:
    """Enqueues jobs for as long as a scenario has it, by a client as any program would."""

    def __init__(self, scenario: Scenario, settings: Settings, process: SimulatedProcess, chronicle: Chronicle) -> None:
        self._scenario = scenario
        self._chronicle = chronicle
        self._random = Random(f"jobs {scenario.seed}")
        self._cluster: InMemoryCluster = process.log.cluster
        self._queue = Topics(settings.namespace).jobs_name(WORKER)
        self._client = Client(settings, log=process.log, now=process.now, randomness=process.randomness)
        self._worker = SimulatedWorker(process, chronicle, 1, 0.0)

    async def run(self) -> None:
        """Enqueues all jobs, and waits until each was answered."""
        await self._client.start()
        waiting: set[asyncio.Task[None]] = set()
        pace = self._scenario.seconds / self._scenario.jobs
        ends_at = asyncio.get_running_loop().time() + self._scenario.seconds
        for _ in range(self._scenario.jobs):
            if asyncio.get_running_loop().time() > ends_at:
                break
            # They come in bursts: most at once with the one before, and then nothing for a while.
            await asyncio.sleep(self._random.expovariate(1 / (4 * pace)) if self._random.random() < 0.25 else 0)
            if self._random.random() < 0.03:
                self._put_what_is_no_job()
            else:
                task = asyncio.create_task(self._enqueue(*self._draw()))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
        while waiting:
            await asyncio.wait(set(waiting))

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

    def _draw(self) -> tuple[WorkArguments, str | None]:
        random = self._random
        drawn = random.random()
        if drawn < self._scenario.long_jobs:
            seconds = random.uniform(10, 80)
        elif drawn < 0.35:
            seconds = random.uniform(0.2, 10)
        else:
            seconds = random.choice((0.0, 0.01, 0.1))
        key = f"key-{random.randrange(self._scenario.keys)}" if random.random() < 0.35 else None
        failures = random.choice((1, 1, 2, 9)) if random.random() < 0.12 else 0
        return WorkArguments(seconds=round(seconds, 3), failures=failures), key

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
