"""Leases at their edges: what is started late, what nothing could be said of, and records that are no one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext
from headrace.codec import encode
from headrace.core.checkpoint import Pointer
from headrace.core.ownership import Version
from headrace.core.records import Removal, checkpoint_key, removal_header, source_header
from headrace.core.recovery import PartitionRecovery
from headrace.engine.ended_keys import EndedKeys
from headrace.engine.folding import fold
from headrace.engine.partition import OwnedPartition
from headrace.errors import BrokerUnreachable
from headrace.models import BegunJob, CheckpointRecord
from headrace.ports import NewRecord, TopicPartition
from headrace.testing.consumer import InMemoryGroupConsumer
from support.leases import Clocks, Instance, engine, kinds, lease_bench
from support.log import eventually
from support.memory_engines import Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


class Sleepy(GatedWorker):
    """While the first step of a job that is named "sleeps" is taken, the machine sleeps for longer than a lease."""

    def __init__(self, clocks: Clocks) -> None:
        super().__init__()
        self._clocks = clocks
        self.tokens: list[tuple[str, int]] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        self.tokens.append((args["name"], ctx.fencing_token[0]))
        if args["name"] == "sleeps" and ctx.attempt == 1:
            self._clocks.suspend(30)
        return await super().run(args, ctx)


@in_virtual_time
async def test_no_attempt_starts_when_the_first_step_of_another_took_longer_than_the_lease(bench: Bench) -> None:
    clocks = Clocks()
    worker = Sleepy(clocks)
    bench.enqueue("sleeps")
    behind = [bench.enqueue(f"behind-{number}") for number in range(5)]
    async with engine(bench, worker, clock=clocks):
        await eventually(lambda: bench.has_completed(*behind), "the ends of the others")
    first = worker.tokens[0][1]
    assert worker.tokens[0] == ("sleeps", first)
    assert all(epoch > first for _, epoch in worker.tokens[1:]), "they start under a claim that holds"


@in_virtual_time
async def test_a_commit_that_fails_gives_nothing_back_that_was_just_had(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = InMemoryGroupConsumer.commit
    refused: list[bool] = []

    async def commit(consumer: InMemoryGroupConsumer, *args: Any, **options: Any) -> bool:
        if len(refused) < 3:
            refused.append(True)
            return False
        return await original(consumer, *args, **options)

    monkeypatch.setattr(InMemoryGroupConsumer, "commit", commit)
    worker, other = GatedWorker(), Instance(bench, "other")
    worker.close_gate("long")
    other.claim()
    async with other.renewing(), engine(bench, worker):
        await passing(70)
        other.release()
        job_id = bench.enqueue("long")
        await eventually(lambda: worker.running == ["long"], "the start")
        await eventually(lambda: len(refused) == 3, "the commits that fail")
        await passing(20)
        assert worker.interrupted == [] and kinds(bench).count("claim") == 2
        worker.open_gate("long")
        await eventually(lambda: bench.has_completed(job_id), "its end")


@in_virtual_time
async def test_claims_outlive_a_failure_to_read_what_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two partitions one is another's still: the claim of the first is used when it can be, and not made anew."""
    bench = lease_bench(tmp_path, partitions=2)
    original = EndedKeys.learn
    failures: list[bool] = []

    async def learn(keys: EndedKeys, partitions: Any) -> None:
        if len(bench.claims(0)) == 1 and len(failures) < 3:
            failures.append(True)
            raise BrokerUnreachable("away")
        await original(keys, partitions)

    monkeypatch.setattr(EndedKeys, "learn", learn)
    worker, other = GatedWorker(), Instance(bench, "other", 1)
    other.claim()
    async with other.renewing(), engine(bench, worker):
        job_id = bench.enqueue("a", 0)
        await eventually(lambda: bench.has_completed(job_id), "the end of the job whose partition can be had")
        assert (len(failures), len(bench.claims(0))) == (3, 1)


@in_virtual_time
async def test_a_tombstone_that_names_no_place_is_skipped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    name, source = source_header(GatedWorker.name, 0, 7)
    damaged = NewRecord(b"job-x", None, [(name, source[:-1] + b"?"), removal_header(Removal("void", Version(1, 1, 1)))])
    bench.cluster.append(bench.state(), damaged)
    async with engine(bench, GatedWorker()):
        job_id = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job_id), "its end")
    assert "was skipped: it has no source" in caplog.text


GOOD = {"epoch": 3, "attempt": 1, "sequence": 1, "status": "running", "updatedAt": "2026-03-02T09:31:00.000Z"}


@pytest.mark.parametrize("change", [{"epoch": "x"}, {"attempt": 1.5}, {"sequence": None}, {"status": 7}, {"updatedAt": "later"}])
def test_what_is_damaged_in_a_checkpoint_is_skipped(
    bench: Bench, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    recovery: PartitionRecovery[bytes] = PartitionRecovery("w", 0, 0, Pointer(3, 4))
    partition = OwnedPartition(TopicPartition("jobs", 0), 0, recovery)
    checkpoint = CheckpointRecord(
        worker_name="w",
        partition=0,
        instance_id="i",
        epoch=3,
        covers=4,
        watermark=0,
        ranges=[],
        begun=[BegunJob(id="good", offset=0, state=GOOD), BegunJob(id="bad", offset=1, state={**GOOD, **change})],
    )
    bench.cluster.append(bench.state(), NewRecord(checkpoint_key("w", 0, "i"), encode(checkpoint)), timestamp=0)
    [written] = bench.cluster.records(bench.state())
    fold(written, partition, b"w/0/")
    assert recovery.checkpoint is not None and recovery.checkpoint.begun == {0: ("good", GOOD)}
    assert "of job bad was skipped: it is damaged" in caplog.text
