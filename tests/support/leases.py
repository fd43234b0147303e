"""What tests of leases need: engines whose clocks can be set, instances that exist in the log alone, and the lease records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from headrace import WorkerEngine
from headrace.core import snapshots
from headrace.core.lease import Moment
from headrace.core.ownership import NO_OFFSET
from headrace.core.records import lease_key, parse_lease_key, source_header, status_header, version_header
from headrace.core.snapshots import Snapshot, Writer, version_of
from headrace.ports import NewRecord
from headrace.runtime import wall_clock
from headrace.testing import Hold, InMemoryLog
from support.memory_engines import TOPICS, Bench, GatedWorker

TERM = 25.0
_LONGEST_SECONDS = 300.0
_NOW = "2026-03-02T09:31:00.000Z"


def lease_bench(folder: Path, **engine: Any) -> Bench:
    """A bench with leases of the usual term, and with its topics, so that something can be written before an engine starts."""
    bench = Bench(folder, **{"lease_seconds": TERM, **engine})
    bench.cluster.create_topics([TOPICS.job_state, TOPICS.jobs(GatedWorker.name, bench.settings.engine.partitions)])
    return bench


class LeaseRecord(NamedTuple):
    """A lease record as it stands in the log.

    Attributes:
        at: by the loop's clock, in seconds.
    """

    kind: str
    instance_id: str
    offset: int
    at: float
    fields: dict[str, Any]


def lease_records(bench: Bench, partition: int = 0, *, of: str | None = None) -> list[LeaseRecord]:
    """The lease records of a partition of the queue in the order of the log, without tombstones; of one instance, or of all."""
    shift = bench.cluster.now() / 1000 - _time()
    found = []
    for record in bench.cluster.records(bench.state(partition)):
        key = parse_lease_key(record.key or b"")
        if key is None or key.partition != partition or record.value is None or of not in (None, key.instance_id):
            continue
        fields = orjson.loads(record.value)
        found.append(LeaseRecord(fields["kind"], key.instance_id, record.offset, record.timestamp / 1000 - shift, fields))
    return found


def kinds(bench: Bench, partition: int = 0, *, of: str | None = None) -> list[str]:
    """What was written of the lease, without the renewals: a claim is `claim`, a release is its reason."""
    records = [record for record in lease_records(bench, partition, of=of) if record.kind != "renewal"]
    return [record.fields["reason"] if record.kind == "release" else record.kind for record in records]


def of_kind(kind: str) -> Callable[[NewRecord], bool]:
    """Tells lease records of a kind; for the faults of a log."""
    return lambda record: parse_lease_key(record.key) is not None and b'"kind":"%b"' % kind.encode() in (record.value or b"")


def of_status(status: str) -> Callable[[NewRecord], bool]:
    """Tells snapshots of a status; for the faults of a log."""
    return lambda record: status_header(status) in record.headers


class Clocks:
    """The clocks of one machine: they go with the loop's, until a test moves or stops them."""

    def __init__(self) -> None:
        self._steady = 0.0
        self._wall = 0.0
        self._stopped_at: float | None = None

    def suspend(self, seconds: float) -> None:
        """The machine wakes up after a sleep in which none of its processes ran, and no timer went on."""
        self._steady += seconds
        self._wall += seconds

    def move_steady(self, seconds: float) -> None:
        """As `suspend`, and somebody set the wall clock back by as much."""
        self._steady += seconds

    def move_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall += seconds

    def stop(self) -> None:
        """From now on they stand still, as those of a virtual machine that is paused."""
        self._stopped_at = _time()

    def __call__(self) -> Moment:
        now = _time() if self._stopped_at is None else self._stopped_at
        return Moment(now + self._steady, now + self._wall)


@asynccontextmanager
async def engine(
    bench: Bench,
    worker: GatedWorker,
    log: InMemoryLog | None = None,
    clock: Clocks | None = None,
    now: Callable[[], int] = wall_clock,
) -> AsyncIterator[WorkerEngine]:
    """An engine that has been started; it may have to wait for its partitions.

    Args:
        now: its time of day, in milliseconds.
    """
    made = WorkerEngine(bench.settings, log=log or InMemoryLog(bench.cluster), clock=clock or Clocks(), now=now)
    made.register_worker(worker)
    try:
        await made.start()
        yield made
    finally:
        await made.stop(grace_seconds=0)


async def seconds_until(condition: Callable[[], bool], what: str, *, within: float = _LONGEST_SECONDS) -> float:
    """Waits until something holds that other tasks bring about; how many seconds that took."""
    begun = _time()
    while not condition():
        assert _time() - begun < within, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.01)
    return _time() - begun


async def caught(hold: Hold, count: int = 1) -> None:
    """Waits until a fault has held back so many batches."""
    async with asyncio.timeout(_LONGEST_SECONDS):
        await hold.caught(count)


class Instance:
    """An instance that exists in the log alone: it writes of one partition what the test says, and nothing else."""

    def __init__(self, bench: Bench, name: str, partition: int = 0) -> None:
        self._bench = bench
        self._partition = partition
        self._last_lease = NO_OFFSET
        self.name = name
        self.epoch = NO_OFFSET

    @property
    def writer(self) -> Writer:
        return Writer(self.name, self.epoch)

    def claim(self, previous: int | None = None) -> int:
        """Writes a claim that names the last lease record there is, if no other is given; its offset."""
        if previous is None:
            written = [record.offset for record in lease_records(self._bench, self._partition)]
            previous = written[-1] if written else NO_OFFSET
        self.epoch = self._last_lease = self._write("claim", previous=previous, termSeconds=TERM)
        return self.epoch

    def renew(self) -> None:
        """Writes a renewal."""
        self._last_lease = self._write("renewal", epoch=self.epoch, previous=self._last_lease, termSeconds=TERM)

    def release(self, reason: str = "stopped") -> None:
        """Writes a release."""
        self._write("release", epoch=self.epoch, reason=reason)

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """Renews the lease every 3 s."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(3)
            self.renew()

    def accepted(self, job_id: str) -> Snapshot:
        """A job as it stands before its first attempt, from its record in the queue."""
        topic = TOPICS.jobs_name(GatedWorker.name)
        for record in self._bench.cluster.topic_records(topic):
            raw = orjson.loads(record.value or b"")
            if raw["id"] == job_id:
                return snapshots.queued(raw, {"topic": topic, "partition": record.partition, "offset": record.offset})
        raise LookupError(job_id)

    def begin(self, before: Snapshot) -> Snapshot:
        """Writes that an attempt begins; the job as it stands then."""
        return self.write(snapshots.running(before, self.writer, _NOW))

    def complete(self, before: Snapshot) -> Snapshot:
        """Writes that an attempt returned; the job as it stands then."""
        return self.write(snapshots.completed(before, {"by": self.name}, _NOW))

    def write(self, snapshot: Snapshot) -> Snapshot:
        """Writes any snapshot, as its epoch, attempt and sequence say."""
        source = snapshot["source"]
        headers = (
            source_header(GatedWorker.name, source["partition"], source["offset"]),
            version_header(version_of(snapshot)),
            status_header(snapshot["status"]),
        )
        record = NewRecord(snapshot["id"].encode(), orjson.dumps(snapshot), headers)
        self._bench.cluster.append(self._bench.state(self._partition), record)
        return snapshot

    def _write(self, kind: str, **fields: Any) -> int:
        common = {"schemaVersion": 1, "kind": kind, "workerName": GatedWorker.name, "partition": self._partition}
        value = orjson.dumps({**common, "instanceId": self.name, **fields})
        key = lease_key(GatedWorker.name, self._partition, self.name)
        return self._bench.cluster.append(self._bench.state(self._partition), NewRecord(key, value))


def _time() -> float:
    return asyncio.get_running_loop().time()
