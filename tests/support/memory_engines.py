"""Real engines over a cluster in memory, in virtual time: a bench to start them on, and what they left in the log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from headrace import AbstractWorker, Job, JobContext, WorkerEngine
from headrace.core.lease import Moment
from headrace.core.ownership import PartitionLedger, Version, supersedes
from headrace.core.partitions import state_partition
from headrace.core.records import parse_lease_key, parse_snapshot_headers
from headrace.core.topics import JOB_STATE_PARTITIONS, Topics
from headrace.leases import take_lease
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import Settings, load_settings
from headrace.testing import InMemoryCluster, InMemoryLog, StoredRecord
from support.log import eventually

TOPICS = Topics("unit")
STATE = TOPICS.job_state.name
DEAD_LETTERS = TOPICS.dead_letters.name
_WALL_CLOCK_START = 1_780_000_000_000


class GatedWorker(AbstractWorker[dict[str, Any]]):
    """Its jobs have names, and end when they are let: at once, for those that are not in `closed`.

    Attributes:
        started: the names of the jobs, and the numbers of their attempts, in the order of their starts.
        interrupted: the names of those that were stopped.
        running: those that run now.
        stubborn: those that go on when they are stopped, until they are let.
    """

    name = "gated"
    description = "Waits."

    def __init__(self, *, concurrency: int = 10) -> None:
        self.concurrency = concurrency
        self.started: list[tuple[str, int]] = []
        self.interrupted: list[str] = []
        self.running: list[str] = []
        self.stubborn: set[str] = set()
        self._gates: dict[str, asyncio.Event] = {}

    def close_gate(self, *names: str) -> None:
        for name in names:
            self._gates[name] = asyncio.Event()

    def open_gate(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()

    def names_started(self) -> list[str]:
        return [name for name, _ in self.started]

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        name = args["name"]
        self.started.append((name, ctx.attempt))
        self.running.append(name)
        try:
            if (gate := self._gates.get(name)) is not None:
                await self._wait(name, gate)
        finally:
            self.running.remove(name)
        return {"name": name}

    async def _wait(self, name: str, gate: asyncio.Event) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.interrupted.append(name)
                if name not in self.stubborn:
                    raise


class Bench:
    """A cluster, the settings of its engines, and what stands in its log of the jobs of `GatedWorker`."""

    def __init__(self, folder: Path, **engine: Any) -> None:
        self.cluster = InMemoryCluster(now=wall_clock)
        self.settings: Settings = load_settings(namespace=TOPICS.namespace, data_directory=folder)
        given = {"janitor": False, "partitions": 1, "grace_seconds": 0.0, "lease_seconds": 7_200.0, **engine}
        self.settings = self.settings.model_copy(update={"engine": self.settings.engine.model_copy(update=given)})
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def engine(
        self, worker: GatedWorker, log: InMemoryLog | None = None, *, clock: Callable[[], Moment] | None = None
    ) -> AsyncIterator[WorkerEngine]:
        """An engine that has taken its partitions over; of a group of several, some of them."""
        clock = clock or loop_clock
        engine = WorkerEngine(self.settings, log=log or InMemoryLog(self.cluster), clock=clock, now=wall_clock)
        engine.register_worker(worker)
        await engine.start()
        try:
            await eventually(lambda: bool(self.claims_of(engine.instance_id)), "a first claim")
            # Claims of other partitions, and the reading up to them, take a few seconds at most.
            await passing(5)
            yield engine
        finally:
            await engine.stop(grace_seconds=0)

    def enqueue(self, name: str, partition: int = 0, *, key: str | None = None, **fields: Any) -> str:
        """Writes the job record, as a client does, with further fields of it; its id."""
        job_id = f"job-{next(self._numbers)}-{name}"
        raw = {
            "schemaVersion": 1,
            "id": job_id,
            "tenant": "default",
            "workerName": GatedWorker.name,
            "createdAt": "2026-03-02T09:30:00.000Z",
            "args": {"name": name},
            "ctx": {},
            **fields,
        }
        self.put(partition, orjson.dumps(raw if key is None else {**raw, "orderingKey": key}))
        return job_id

    def put(self, partition: int, value: bytes) -> int:
        """Writes anything into the queue; its offset."""
        return self.cluster.append(TopicPartition(TOPICS.jobs_name(GatedWorker.name), partition), NewRecord(b"key", value))

    def committed(self, partition: int = 0) -> int:
        """What the group has committed of a partition of the queue; 0 for nothing yet."""
        offsets = self.cluster.committed_offsets(self.group)
        return offsets.get(TopicPartition(TOPICS.jobs_name(GatedWorker.name), partition), 0)

    @property
    def group(self) -> str:
        return TOPICS.group(GatedWorker.name)

    def state(self, partition: int = 0) -> TopicPartition:
        """Where the state of the jobs of a partition of the queue stands."""
        return TopicPartition(STATE, state_partition(GatedWorker.name, partition, JOB_STATE_PARTITIONS))

    def claims(self, partition: int = 0) -> list[StoredRecord]:
        """The claims of a partition of the queue, valid or not, in order."""
        return [record for record in self.cluster.records(self.state(partition)) if _claims(record, partition)]

    def claims_of(self, instance_id: str) -> list[StoredRecord]:
        keys = ((record, parse_lease_key(record.key or b"")) for record in self.cluster.topic_records(STATE))
        return [record for record, key in keys if key is not None and key.instance_id == instance_id]

    def written(self, job_id: str) -> list[dict[str, Any]]:
        """All snapshots of a job, void ones too, in the order of the log."""
        key = job_id.encode()
        return [orjson.loads(record.value or b"") for record in self.cluster.topic_records(STATE) if record.key == key]

    def statuses(self, job_id: str) -> list[str]:
        return [snapshot["status"] for snapshot in self.written(job_id)]

    def state_of(self, job_id: str, partition: int = 0) -> dict[str, Any] | None:
        """The job's state as the rules of the protocol have it, for whoever reads all of the log."""
        ledger = PartitionLedger()
        found: dict[str, Any] | None = None
        version = Version(-1, 0, 0)
        for record in self.cluster.records(self.state(partition)):
            if _is_lease(record, partition):
                take_lease(ledger, record)
            elif record.key == job_id.encode() and (headers := parse_snapshot_headers(record.headers)) is not None:
                void = ledger.is_void(headers.version.epoch)
                if not void and (found is None or supersedes(headers.version, version, found["status"])):
                    found, version = orjson.loads(record.value or b""), headers.version
        return found

    def has_completed(self, *job_ids: str, partition: int = 0) -> bool:
        # The newest first: while it has not, as a rule, the others need not be looked for in the whole log.
        states = (self.state_of(job_id, partition) for job_id in reversed(job_ids))
        return all(state is not None and state["status"] == "completed" for state in states)


def ended(bench: Bench, job_id: str, partition: int = 0) -> Job:
    """The job, which has ended."""
    state = bench.state_of(job_id, partition)
    assert state is not None and state["status"] in ("completed", "failed"), state
    return Job.model_validate(state)


def _is_lease(record: StoredRecord, partition: int) -> bool:
    key = parse_lease_key(record.key or b"")
    return key is not None and key.partition == partition


def _claims(record: StoredRecord, partition: int) -> bool:
    key = parse_lease_key(record.key or b"")
    if key is None or key.partition != partition or record.value is None:
        return False
    return bool(orjson.loads(record.value).get("kind", "claim") == "claim")


async def passing(seconds: float) -> None:
    """Lets time pass in which something must not happen. It is virtual: it takes none."""
    await asyncio.sleep(seconds)


def wall_clock() -> int:
    """Milliseconds since the Unix epoch, as virtual as the loop's time."""
    return _WALL_CLOCK_START + int(asyncio.get_running_loop().time() * 1000)


def loop_clock() -> Moment:
    """The clocks of an engine whose machine is never suspended."""
    now = asyncio.get_running_loop().time()
    return Moment(now, now)
