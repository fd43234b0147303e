"""What very many jobs leave in the log, written there for a view to be filled with."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from headrace.core import snapshots
from headrace.core.identifiers import fresh_id
from headrace.core.ownership import NO_OFFSET, Version
from headrace.core.partitions import state_partition
from headrace.core.records import definition_key, lease_key, source_header, status_header, version_header
from headrace.core.timestamps import format_timestamp
from headrace.core.topics import Topics
from headrace.errors import BrokerError
from headrace.ports import Acknowledged, Log, LogWriter, NewRecord, Outcome, TopicPartition

WORKERS: Final = ("memory_compaction_worker", "send_digest", "index_documents", "transcribe_call")
PARTITIONS: Final = 8
_IN_FLIGHT: Final = 50_000
_SUBMITTED_AT_ONCE: Final = 500
_INSTANCE: Final = "0192f0c8-3b1e-7cc3-98c4-dc0c0c07398f"

# Of 1,000 jobs: 20 are queued, 10 run, 20 have failed, the rest is completed. A fifth of those that have ended has its `running`
# snapshot still in the log, as compaction leaves it.
_QUEUED: Final = 0.02
_RUNNING: Final = 0.03
_FAILED: Final = 0.05
_UNCOMPACTED: Final = 0.2

Written = tuple[TopicPartition, NewRecord]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the jobs stand.

    Attributes:
        epochs: of each partition of each worker.
    """

    log: Log
    topics: Topics
    state_partitions: int
    epochs: dict[tuple[str, int], int]


async def prepare(log: Log, topics: Topics) -> Stage:
    """Makes the topics, defines the workers, and has one instance claim every partition."""
    await log.create_topics([topics.workers, topics.job_state, *(topics.jobs(worker, PARTITIONS) for worker in WORKERS)])
    count = await log.partition_count(topics.job_state.name)
    writer = log.writer()
    await writer.start()
    epochs: dict[tuple[str, int], int] = {}
    try:
        for worker in WORKERS:
            definition = {"schemaVersion": 1, "name": worker, "description": "Is measured.", "category": "benchmark"}
            record = NewRecord(definition_key(worker), orjson.dumps(definition))
            await writer.append(TopicPartition(topics.workers.name, 0), record, timeout=30)
            for partition in range(PARTITIONS):
                claim = {
                    "schemaVersion": 1,
                    "kind": "claim",
                    "workerName": worker,
                    "partition": partition,
                    "instanceId": _INSTANCE,
                    "previous": NO_OFFSET,
                }
                target = TopicPartition(topics.job_state.name, state_partition(worker, partition, count))
                record = NewRecord(lease_key(worker, partition, _INSTANCE), orjson.dumps(claim))
                epochs[worker, partition] = (await writer.append(target, record, timeout=30)).offset
    finally:
        await writer.stop(timeout=10)
    return Stage(log, topics, count, epochs)


def _history(stage: Stage, jobs: int) -> Iterator[Written]:
    """What the jobs have left in the log. The same jobs every time, but for their ids."""
    chance = random.Random(20)
    first = time.time_ns() // 1_000_000 - 3 * jobs
    for number in range(jobs):
        now = first + 3 * number
        worker, partition = WORKERS[min(3, int(chance.expovariate(1)))], number % PARTITIONS
        # Some users have very many jobs, and most have a few.
        user = f"user-{int(chance.paretovariate(0.5)) % 20_000}"
        context = {"userId": user, "conversationId": f"conversation-{number // 4}", "source": "agent"}
        job_id = fresh_id(now, chance.randbytes(10))
        raw: dict[str, Any] = {
            "schemaVersion": 1,
            "id": job_id,
            "tenant": "default",
            "workerName": worker,
            "createdAt": format_timestamp(now),
            "args": {**context, "note": "x" * 60},
            "ctx": context,
        }
        luck = chance.random()
        if luck < _QUEUED:
            yield TopicPartition(stage.topics.jobs_name(worker), partition), NewRecord(job_id.encode(), orjson.dumps(raw))
            continue
        source = {"topic": stage.topics.jobs_name(worker), "partition": partition, "offset": number}
        writer = snapshots.Writer(_INSTANCE, stage.epochs[worker, partition])
        running = snapshots.running(snapshots.queued(raw, source), writer, format_timestamp(now + 40))
        if luck < _RUNNING or luck > 1 - _UNCOMPACTED:
            yield _snapshot(stage, worker, running)
        if luck >= _FAILED:
            yield _snapshot(
                stage, worker, snapshots.completed(running, {"ok": True, "number": number}, format_timestamp(now + 90))
            )
        elif luck >= _RUNNING:
            error = {"type": "ValueError", "message": "no", "traceback": "Traceback (most recent call last):\n" * 20}
            yield _snapshot(stage, worker, snapshots.failed(running, error, format_timestamp(now + 90)))


def _snapshot(stage: Stage, worker: str, snapshot: dict[str, Any]) -> Written:
    source = snapshot["source"]
    headers = (
        source_header(worker, source["partition"], source["offset"]),
        version_header(Version(snapshot["epoch"], snapshot["attempt"], snapshot["sequence"])),
        status_header(snapshot["status"]),
    )
    target = TopicPartition(stage.topics.job_state.name, state_partition(worker, source["partition"], stage.state_partitions))
    return target, NewRecord(snapshot["id"].encode(), orjson.dumps(snapshot), headers)


class _Filler:
    """Hands records to a writer in pieces, and knows how many are not acknowledged yet."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._gathered: dict[TopicPartition, list[NewRecord]] = {}
        self._open = 0
        self._failure: Exception | None = None
        self._settled = asyncio.Event()

    async def add(self, target: TopicPartition, record: NewRecord) -> None:
        gathered = self._gathered.setdefault(target, [])
        gathered.append(record)
        if len(gathered) >= _SUBMITTED_AT_ONCE:
            self._submit(target)
            await self._wait(_IN_FLIGHT)

    async def finish(self) -> None:
        for target in list(self._gathered):
            self._submit(target)
        await self._wait(0)

    def _submit(self, target: TopicPartition) -> None:
        records = self._gathered.pop(target)
        self._open += len(records)
        self._writer.submit(target, records, lambda outcome: self._done(len(records), outcome))

    def _done(self, count: int, outcome: Outcome) -> None:
        self._open -= count
        if not isinstance(outcome, Acknowledged):
            self._failure = outcome.reason
        self._settled.set()

    async def _wait(self, most: int) -> None:
        await asyncio.sleep(0)
        while self._open > most and self._failure is None:
            self._settled.clear()
            async with asyncio.timeout(60):
                await self._settled.wait()
        if self._failure is not None:
            raise BrokerError(f"The records to be measured could not be written: {self._failure}") from self._failure


async def fill(stage: Stage, jobs: int) -> int:
    """Writes the history of the jobs; returns how many records that was."""
    writer = stage.log.writer()
    await writer.start()
    try:
        filler = _Filler(writer)
        records = 0
        for target, record in _history(stage, jobs):
            await filler.add(target, record)
            records += 1
        await filler.finish()
    finally:
        await writer.stop(timeout=10)
    return records
