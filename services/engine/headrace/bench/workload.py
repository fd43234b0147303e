"""What the measurements work on: a namespace of their own, a worker that does nothing, and a queue that is full already."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from headrace.abstract_worker import AbstractWorker
from headrace.core.identifiers import fresh_id
from headrace.core.timestamps import format_timestamp
from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.job_context import JobContext
from headrace.kafka.log import KafkaLog
from headrace.models import SCHEMA_VERSION
from headrace.ports import AppendFailed, LogWriter, NewRecord, Outcome, TopicPartition
from headrace.settings import Settings

PARTITIONS = 8
ARGUMENT_BYTES = 200
_SUBMITTED_AT_ONCE = 500
_PATIENCE_SECONDS = 120.0


class NoOp(AbstractWorker[dict[str, Any]]):
    """Does nothing, in the event loop."""

    name = "bench_no_op"
    description = "Does nothing."
    category = "benchmark"
    concurrency = 512

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A namespace that one measurement uses, on the broker of the settings."""

    settings: Settings
    log: KafkaLog

    @property
    def topics(self) -> Topics:
        return Topics(self.settings.namespace)

    @property
    def queue(self) -> str:
        """Name of the no-op worker's topic."""
        return self.topics.jobs_name(NoOp.name)

    async def create(self, partitions: int = PARTITIONS) -> None:
        """Makes the topics that an engine with the no-op worker needs; `partitions` is of the worker's."""
        topics = self.topics
        await self.log.create_topics([topics.workers, topics.control, topics.job_state, topics.dead_letters, topics.memory])
        await self.log.create_topics([topics.jobs(NoOp.name, partitions)])

    async def fill(self, jobs: int, *, partitions: int = PARTITIONS) -> None:
        """Writes `jobs` job records, spread evenly over the first partitions, and waits until all are acknowledged.

        Raises:
            BrokerError: a record was not written.
            TimeoutError: the brokers did not acknowledge all of them within two minutes.
        """
        writer = self.log.writer()
        await writer.start()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._fill(writer, jobs, partitions)
        finally:
            await writer.stop(timeout=10)

    async def _fill(self, writer: LogWriter, jobs: int, partitions: int) -> None:
        missing = jobs
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def note(count: int, outcome: Outcome) -> None:
            nonlocal missing
            if settled.done():
                return
            if isinstance(outcome, AppendFailed):
                settled.set_exception(BrokerError(f"The queue to be measured could not be filled: {outcome.reason}"))
                return
            missing -= count
            if not missing:
                settled.set_result(None)

        for first in range(0, jobs, _SUBMITTED_AT_ONCE):
            count = min(_SUBMITTED_AT_ONCE, jobs - first)
            records = [job_record() for _ in range(count)]
            target = TopicPartition(self.queue, first // _SUBMITTED_AT_ONCE % partitions)
            writer.submit(target, records, partial(note, count))
            await asyncio.sleep(0)
            if settled.done():
                break
        if jobs:
            await settled

    async def remove(self) -> None:
        """Deletes the namespace's topics, and closes the connection."""
        prefix = f"{self.settings.namespace}."
        await self.log.delete_topics([name for name in await self.log.topic_names() if name.startswith(prefix)])
        await self.log.close()


def new_workload(settings: Settings) -> Workload:
    """A workload in a namespace that nobody else uses."""
    own = settings.model_copy(update={"namespace": f"bench-{uuid.uuid4().hex[:8]}"})
    return Workload(own, KafkaLog(own))


def job_record(**arguments: str) -> NewRecord:
    """A job of the no-op worker, as a client would write it; its arguments are some padding where none are given."""
    now = time.time_ns() // 1_000_000
    job_id = fresh_id(now, os.urandom(10))
    raw = {
        "schemaVersion": SCHEMA_VERSION,
        "id": job_id,
        "workerName": NoOp.name,
        "createdAt": format_timestamp(now),
        "args": arguments or {"payload": "x" * (ARGUMENT_BYTES - len('{"payload":""}'))},
        "tenant": "default",
        "ctx": {"userId": "bench"},
    }
    return NewRecord(job_id.encode(), orjson.dumps(raw))
