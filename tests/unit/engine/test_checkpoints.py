"""A take-over reads from the newest checkpoint on, however much stands before it, and forgets nothing by that."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from headrace import RetryPolicy
from headrace.core.checkpoint import parse_pointer
from headrace.core.records import CHECKPOINT_PREFIX
from headrace.core.recovery import Begun, PartitionRecovery
from headrace.engine.checkpoints import begun_jobs, make_checkpoint
from headrace.engine.partition import OwnedPartition
from headrace.errors import RecordUndecodable
from headrace.models import CheckpointRecord
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog, StoredRecord
from support.flaky import FlakyWorker
from support.leases import engine
from support.log import eventually
from support.memory_engines import TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

TERM = 25.0
# A lease lapses, and whoever waits for it has looked.
PATIENCE = 45.0
MANY = 200
MOST = 3_000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, lease_seconds=TERM)


class Fetched:
    """What is given out of `job-state` from now on."""

    def __init__(self, bench: Bench) -> None:
        self.offsets: list[int] = []
        self._state = bench.state()
        bench.cluster.fetched = self._note

    def _note(self, target: TopicPartition, records: Sequence[StoredRecord]) -> None:
        if target == self._state:
            self.offsets.extend(record.offset for record in records)


def pointer_offset(bench: Bench) -> int:
    entry = bench.cluster.group(bench.group).committed[TopicPartition(TOPICS.jobs_name(GatedWorker.name), 0)]
    pointer = parse_pointer(entry.metadata)
    assert pointer is not None
    return pointer.covers


@in_virtual_time
async def test_a_successor_reads_the_tail_alone_and_knows_everything(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("long")
    log = InMemoryLog(bench.cluster, session_timeout=6.0)
    async with bench.engine(first, log):
        long = bench.enqueue("long")
        shorts = [bench.enqueue(f"short-{number}") for number in range(MANY)]
        await eventually(lambda: bench.has_completed(*shorts), "the ends of the short jobs")
        await passing(3 * TERM)
        log.cut_off()
        end = bench.cluster.partition(bench.state()).end
        covers = pointer_offset(bench)
        assert covers > 2 * MANY, "the checkpoint goes along, though the oldest job has not ended"
        fetched = Fetched(bench)
        async with bench.engine(second, InMemoryLog(bench.cluster)):
            await passing(PATIENCE)
            await eventually(lambda: bench.has_completed(long), "the end of the long job")
            assert min(fetched.offsets) >= covers
            assert end - covers < 20
            assert second.started == [("long", 2)], "what has ended never runs again"
            state = bench.state_of(long)
            assert state is not None
            assert [(each["attempt"], each["status"]) for each in state["attempts"]] == [(1, "interrupted"), (2, "completed")]
            assert bench.committed() == MANY + 1
        first.open_gate("long")


@in_virtual_time
async def test_what_one_owner_only_passes_on_reaches_the_next(bench: Bench) -> None:
    """The second owner has no room to take the jobs in again that the first had begun; the third learns of them all the same."""
    names = ["a", "b", "c"]
    bench.settings = bench.settings.model_copy(
        update={"engine": bench.settings.engine.model_copy(update={"buffer_per_partition": 2})}
    )
    workers = [GatedWorker(concurrency=3), GatedWorker(concurrency=1)]
    logs = [InMemoryLog(bench.cluster, session_timeout=6.0) for _ in range(2)]
    for worker in workers:
        worker.close_gate(*names)
    async with bench.engine(workers[0], logs[0]):
        jobs = [bench.enqueue(name) for name in names]
        await eventually(lambda: len(workers[0].running) == 3, "the starts")
        await passing(TERM)
        logs[0].cut_off()
        async with bench.engine(workers[1], logs[1]):
            await passing(PATIENCE)
            await eventually(lambda: workers[1].running == ["a"], "the start of the second")
            await passing(TERM)
            logs[1].cut_off()
            third = GatedWorker()
            async with bench.engine(third, InMemoryLog(bench.cluster)):
                await passing(PATIENCE)
                await eventually(lambda: bench.has_completed(*jobs), "all ends")
                assert sorted(third.started) == [("a", 3), ("b", 2), ("c", 2)]
        for worker in workers:
            worker.open_gate(*names)


def test_a_checkpoint_counts_the_death_in_which_a_job_that_was_not_taken_in_yet_ended() -> None:
    """Who reads from it on does not meet the release that says so."""
    recovery: PartitionRecovery[bytes] = PartitionRecovery(GatedWorker.name, 0, 0)
    owned = OwnedPartition(TopicPartition(TOPICS.jobs_name(GatedWorker.name), 0), 0, recovery)
    fields = {"status": "running", "epoch": 3, "attempt": 2, "sequence": 1, "attempts": [], "crashes": 1}
    owned.begun = {5: Begun(b"died", None, fields, died=True), 6: Begun(b"lapsed", orjson.dumps(fields), None)}
    for _ in range(2):
        written = make_checkpoint(owned, 7)
        assert written is not None and written.value is not None
        begun = orjson.loads(written.value)["begun"]
        assert {job["id"]: job["state"]["crashes"] for job in begun} == {"died": 2, "lapsed": 1}, "and however often it is made"


@in_virtual_time
async def test_without_its_checkpoint_the_whole_state_is_read(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        jobs = [bench.enqueue(f"job-{number}") for number in range(20)]
        await passing(TERM)
        assert bench.has_completed(*jobs)
    state = bench.state()
    checkpoints = [record.offset for record in bench.cluster.records(state) if (record.key or b"").startswith(CHECKPOINT_PREFIX)]
    assert checkpoints
    bench.cluster.remove_records(state, checkpoints)
    fetched = Fetched(bench)
    again = GatedWorker()
    async with bench.engine(again):
        late = bench.enqueue("late")
        await eventually(lambda: bench.has_completed(late), "the end of a new job")
        assert min(fetched.offsets) == 0
        assert again.names_started() == ["late"]


@in_virtual_time
async def test_a_queue_that_was_made_anew_has_new_jobs(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        jobs = [bench.enqueue(f"old-{number}") for number in range(20)]
        await passing(TERM)
        assert bench.has_completed(*jobs)
    bench.cluster.delete_topics([TOPICS.jobs_name(GatedWorker.name)])
    async with bench.engine(worker):
        fresh = [bench.enqueue(f"new-{number}") for number in range(5)]
        await eventually(lambda: bench.has_completed(*fresh), "the ends of the jobs of the new queue")


@in_virtual_time
async def test_a_commit_above_the_end_is_of_another_queue(bench: Bench) -> None:
    bench.cluster.create_topics([TOPICS.jobs(GatedWorker.name, 1)])
    bench.cluster.commit(bench.group, {TopicPartition(TOPICS.jobs_name(GatedWorker.name), 0): 1_000})
    worker = GatedWorker()
    async with bench.engine(worker):
        job = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job), "its end")


@in_virtual_time
async def test_what_waits_while_its_partition_is_handed_over_keeps_its_number(tmp_path: Path) -> None:
    """A checkpoint that is written until the last attempt has ended tells of the others, too, that were begun before."""
    bench = Bench(tmp_path, lease_seconds=TERM)
    workers = [GatedWorker(concurrency=2), GatedWorker(concurrency=1), GatedWorker()]
    logs = [InMemoryLog(bench.cluster, session_timeout=6.0) for _ in workers]
    for worker in workers[:2]:
        worker.close_gate("a", "b")
    workers[1].stubborn.add("a")
    async with bench.engine(workers[0], logs[0]):
        jobs = [bench.enqueue(name) for name in ("a", "b")]
        await eventually(lambda: len(workers[0].running) == 2, "the first attempts")
        logs[0].cut_off()
        async with bench.engine(workers[1], logs[1]):
            await passing(PATIENCE)
            await eventually(lambda: workers[1].running == ["a"], "the second attempt of one")
            async with engine(bench, workers[2], logs[2]):
                logs[1].evict(bench.group)
                logs[1].tell_evicted(bench.group)
                await eventually(lambda: workers[1].interrupted == ["a"], "the hand-over")
                await passing(TERM)
                workers[1].open_gate("a")
                await eventually(lambda: bench.has_completed(*jobs), "all ends")
                assert workers[2].started == [("b", 2)]
        workers[0].open_gate("a", "b")


@in_virtual_time
async def test_each_commit_names_the_newest_checkpoint_also_beside_a_job_that_runs_on(bench: Bench) -> None:
    """The watermark does not rise then, and nothing else would commit until the group is probed."""
    worker = GatedWorker()
    worker.close_gate("long")
    async with bench.engine(worker):
        bench.enqueue("long")
        await eventually(lambda: worker.running == ["long"], "the start")
        await passing(TERM)
        for _ in range(30):
            await passing(1.0)
            newest = [record for record in bench.cluster.records(bench.state()) if _is_checkpoint(record)][-2]
            assert pointer_offset(bench) >= _covers(newest), "two renewals old"
        assert bench.committed() == 0
        worker.open_gate("long")


def _is_checkpoint(record: StoredRecord) -> bool:
    return (record.key or b"").startswith(CHECKPOINT_PREFIX)


def _covers(checkpoint: StoredRecord) -> int:
    return int(orjson.loads(checkpoint.value or b"")["covers"])


def newest_checkpoint(bench: Bench) -> StoredRecord:
    return [each for each in bench.cluster.records(bench.state()) if (each.key or b"").startswith(CHECKPOINT_PREFIX)][-1]


@in_virtual_time
async def test_thousands_of_jobs_that_wait_for_their_retries_fit_in_a_checkpoint(bench: Bench) -> None:
    """As when a model is away for an hour. Whoever takes over knows all of them, and reads the tail alone."""
    first, second = (FlakyWorker(RetryPolicy(max_attempts=10, initial=600, jitter=0), concurrency=500) for _ in range(2))
    names = [f"job-{number}" for number in range(MOST)]
    log = InMemoryLog(bench.cluster, session_timeout=6.0)
    async with bench.engine(first, log):
        for name in names:
            first.fail(name, RuntimeError("The model is away."))
            bench.enqueue(name)
        await eventually(lambda: len(first.started) == MOST, "all first attempts")
        await passing(2 * TERM)
        newest = newest_checkpoint(bench)
        assert bench.cluster.now() - newest.timestamp < 30_000
        assert len(newest.value or b"") < 1024 * 1024
        assert newest.offset > bench.cluster.ends()[bench.state()] - 30
        log.cut_off()
        fetched = Fetched(bench)
        async with bench.engine(second):
            await passing(900)
            assert min(fetched.offsets) > newest.offset - 100
            assert sorted(second.started) == sorted((name, 2) for name in names)
        log.reconnect()


def test_what_is_packed_and_damaged_is_told() -> None:
    made = {"workerName": "w", "partition": 0, "instanceId": "i", "epoch": 1, "covers": 2, "watermark": 0}
    for packed in ("no base64!", "bm90IHBhY2tlZA==", b64encode(zlib.compress(b"[1]")).decode()):
        with pytest.raises(RecordUndecodable, match="cannot be unpacked"):
            begun_jobs(CheckpointRecord.model_validate({**made, "ranges": [], "begun": [], "packed": packed}))
