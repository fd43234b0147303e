"""How long a take-over takes, from the assignment of a partition to the moment when its jobs may start."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.bench.past import Tail, write_tail
from headrace.bench.workload import NoOp, Workload, new_workload
from headrace.client import Client
from headrace.core.lease import LeaseTiming
from headrace.engine.engine import WorkerEngine
from headrace.errors import HeadraceError
from headrace.job_context import JobContext
from headrace.kafka.bare import BareClient
from headrace.kafka.group import KafkaGroupConsumer
from headrace.kafka.log import KafkaLog
from headrace.ports import GroupListener, TopicPartition
from headrace.settings import Settings

PARTITIONS: Final = 8
_PATIENCE_SECONDS: Final = 180.0
_LOOK_SECONDS: Final = 0.001


class LongJob(NoOp):
    """Does nothing, but for one job that runs until its engine stops."""

    def __init__(self) -> None:
        self.long_started = asyncio.Event()
        self.waiting_started = asyncio.Event()
        self.started_at = 0.0

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        """Waits if it is the long job; notes the time if it is the one that waits for the next engine."""
        kind = args.get("kind")
        if kind == "long":
            self.long_started.set()
            await asyncio.Event().wait()
        elif kind == "waiting":
            self.started_at = time.perf_counter()
            self.waiting_started.set()


@dataclass(slots=True)
class _Assignments:
    """When the group gave this process its partitions."""

    at: float = 0.0
    partitions: int = 0

    def note(self, partitions: Collection[TopicPartition]) -> None:
        self.at, self.partitions = time.perf_counter(), len(partitions)


@dataclass(frozen=True, slots=True)
class _Times:
    """Milliseconds from the assignment: until each partition was ready, and until the job that waited there started."""

    ready: list[float] = field(default_factory=list)
    started: float = 0.0


class _WatchedLog(KafkaLog):
    """A cluster that notes when a member of a group is given partitions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.assignments = _Assignments()

    def group_consumer(self, topic: str, group: str, listener: GroupListener) -> KafkaGroupConsumer:
        def assigned(partitions: Collection[TopicPartition]) -> None:
            self.assignments.note(partitions)
            listener.assigned(partitions)

        return super().group_consumer(topic, group, GroupListener(assigned, listener.revoked))


async def measure_recovery(
    settings: Settings, *, records: int = 100_000, rounds: int = 5, say: Callable[[str], None]
) -> dict[str, Any]:
    """Takes partitions over: some with nothing to recover, one with a long tail, and one beside whose long job others ended.

    Args:
        records: how many records follow the checkpoint in the second case, and how many jobs end in the third.
        rounds: how often the first case is measured.

    Returns milliseconds from the assignment to the moment when jobs may start: `empty_ms_p50` and `empty_ms_max` of partitions
    with nothing to recover; `tail_ms` with `records` records after the checkpoint, and `bare_ms` of a bare reader of the same
    records in the same run, with the `ratio`; `long_ms` where a job has been running while `records` others ended, and
    `without_ms` where there was none. `..._start_ms` is when a job started that waited behind all of these.
    """
    empty = await _measure_empty(settings, rounds)
    say(f"nothing to recover: p50 {statistics.median(empty):.0f} ms, at most {max(empty):.0f} ms")
    tail, bare = await _measure_tail(settings, records)
    say(f"{records:,} records after the checkpoint: {tail.ready[0]:,.0f} ms; the bare reader: {bare:,.0f} ms")
    without = await _measure_after(settings, records, long=False)
    say(f"{records:,} jobs have ended: {without.ready[0]:.0f} ms; the next job starts after {without.started:.0f} ms")
    beside = await _measure_after(settings, records, long=True)
    say(f"the same beside a job that runs all the while: {beside.ready[0]:.0f} ms; the next job: {beside.started:.0f} ms")
    return {
        "records": records,
        "empty_ms_p50": round(statistics.median(empty), 1),
        "empty_ms_max": round(max(empty), 1),
        "tail_ms": round(tail.ready[0], 1),
        "tail_start_ms": round(tail.started, 1),
        "bare_ms": round(bare, 1),
        "ratio": round(tail.ready[0] / bare, 3),
        "without_ms": round(without.ready[0], 1),
        "without_start_ms": round(without.started, 1),
        "long_ms": round(beside.ready[0], 1),
        "long_start_ms": round(beside.started, 1),
    }


async def _measure_empty(settings: Settings, rounds: int) -> list[float]:
    """The partitions of a new worker, and of one whose jobs have all ended: each engine but the first finds what one left."""
    workload = new_workload(settings)
    try:
        await workload.create(PARTITIONS)
        times: list[float] = []
        for _ in range(rounds):
            times += (await _take_over(workload, PARTITIONS)).ready
        return times
    finally:
        await workload.remove()


async def _measure_tail(settings: Settings, records: int) -> tuple[_Times, float]:
    workload = new_workload(settings)
    try:
        await workload.create(1)
        tail = await write_tail(workload, records)
        bare = await _read_bare(workload, tail)
        return await _take_over(workload, 1, job_waits=True), bare
    finally:
        await workload.remove()


async def _read_bare(workload: Workload, tail: Tail) -> float:
    """Milliseconds."""
    return await BareClient(workload.settings).read(tail.partition, tail.first, tail.end) * 1000


async def _measure_after(settings: Settings, jobs: int, *, long: bool) -> _Times:
    """One engine runs all jobs, and one of them to its own end if it is to; the next engine is measured."""
    workload = new_workload(settings)
    try:
        await workload.create(1)
        async with Client(workload.settings, log=workload.log) as client:
            await _let_end(workload, client, jobs, long=long)
            await client.enqueue(LongJob(), {"kind": "waiting"})
        return await _take_over(workload, 1, job_waits=True)
    finally:
        await workload.remove()


async def _let_end(workload: Workload, client: Client, jobs: int, *, long: bool) -> None:
    worker, engine = LongJob(), WorkerEngine(workload.settings, log=workload.log)
    engine.register_worker(worker)
    await engine.start()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            if long:
                await client.enqueue(worker, {"kind": "long"})
                await worker.long_started.wait()
            await workload.fill(jobs, partitions=1)
            while engine.statistics[worker.name].ended < jobs:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
            # So that a checkpoint knows of them all, as it does of what ended in an hour but for the last seconds.
            options = workload.settings.engine
            await asyncio.sleep(1.5 * (LeaseTiming(options.lease_seconds).renewal + options.commit_interval_seconds))
    finally:
        await engine.stop(grace_seconds=0)


async def _take_over(workload: Workload, partitions: int, *, job_waits: bool = False) -> _Times:
    """An engine of its own takes over all partitions."""
    log = _WatchedLog(workload.settings)
    worker, engine = LongJob(), WorkerEngine(workload.settings, log=log)
    engine.register_worker(worker)
    gc.collect()
    await engine.start()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            ready = await _ready(engine, log.assignments, partitions)
            if job_waits:
                await worker.waiting_started.wait()
        return _Times(ready, (worker.started_at - log.assignments.at) * 1000)
    except TimeoutError:
        raise HeadraceError("The engine did not take over its partitions.") from None
    finally:
        await engine.stop(grace_seconds=0)
        await log.close()


async def _ready(engine: WorkerEngine, assignments: _Assignments, partitions: int) -> list[float]:
    """Milliseconds until each was ready."""
    [group] = engine.groups
    times: list[float] = []
    while len(times) < partitions:
        ready = len(group.ready) if assignments.partitions == partitions else 0
        since = (time.perf_counter() - assignments.at) * 1000
        times += [since] * (ready - len(times))
        await asyncio.sleep(_LOOK_SECONDS)
    return times
