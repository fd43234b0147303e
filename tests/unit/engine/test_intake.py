"""Back-pressure: an engine takes in what it has room for, and its group never misses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.core.topics import Topics
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog, StoredRecord
from support.log import eventually
from support.memory_engines import Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

POLL_INTERVAL = 60.0
BUFFER = 4
JOBS = 40


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, partitions=2, buffer_per_partition=BUFFER)


class Reading:
    """Counts the job records that were given out."""

    def __init__(self, bench: Bench) -> None:
        self.count = 0
        bench.cluster.fetched = self._note

    def _note(self, partition: TopicPartition, records: Sequence[StoredRecord]) -> None:
        if partition.topic == Topics("unit").jobs_name(GatedWorker.name):
            self.count += len(records)


@in_virtual_time
async def test_a_full_engine_stays_in_its_group_and_goes_on_when_there_is_room(bench: Bench) -> None:
    worker = GatedWorker(concurrency=2)
    names = [f"j{number}" for number in range(JOBS)]
    worker.close_gate(*names)
    async with bench.engine(worker, InMemoryLog(bench.cluster, poll_interval=POLL_INTERVAL)):
        generation = bench.cluster.generation(bench.group)
        jobs = [(bench.enqueue(name, number % 2), number % 2) for number, name in enumerate(names)]
        await eventually(lambda: len(worker.running) == 2, "as many as may run")
        await passing(10 * POLL_INTERVAL)
        assert len(bench.cluster.members(bench.group)) == 1, "a busy engine left its group"
        assert bench.cluster.generation(bench.group) == generation
        assert worker.interrupted == []
        worker.open_gate(*names)
        await eventually(lambda: all(bench.has_completed(job, partition=number) for job, number in jobs), "all ends")
        assert sorted(worker.started) == sorted((name, 1) for name in names)


@in_virtual_time
async def test_what_there_is_no_room_for_stays_in_the_log(bench: Bench) -> None:
    worker = GatedWorker(concurrency=2)
    names = [f"j{number}" for number in range(JOBS)]
    worker.close_gate(*names)
    async with bench.engine(worker) as engine:
        # One by one, so that no single answer has them all.
        for number, name in enumerate(names):
            bench.enqueue(name, number % 2)
            await passing(1)
        statistics = engine.statistics[worker.name]
        assert 2 * BUFFER <= statistics.fetched <= 2 * (BUFFER + 1)
        worker.open_gate(*names)
        await eventually(lambda: statistics.ended == JOBS, "all ends")


@in_virtual_time
async def test_a_full_partition_does_not_hold_up_another(bench: Bench) -> None:
    worker = GatedWorker(concurrency=4)
    full = [f"full-{number}" for number in range(JOBS)]
    worker.close_gate(*full)
    async with bench.engine(worker):
        for name in full:
            bench.enqueue(name, 0, key="one")
            await passing(0.2)
        jobs = [bench.enqueue(f"free-{number}", 1) for number in range(JOBS)]
        await eventually(lambda: bench.has_completed(*jobs, partition=1), "all ends of the other partition")
        assert worker.running == ["full-0"]
        worker.open_gate(*full)
        await eventually(lambda: worker.names_started().count(full[-1]) == 1, "the last of the full one")


@in_virtual_time
async def test_a_partition_that_stays_full_is_paused_and_read_again_when_half_of_it_is_done(bench: Bench) -> None:
    """Paused, nothing of it is given out; and what is given out after it is no record twice."""
    worker = GatedWorker(concurrency=1)
    names = [f"j{number}" for number in range(JOBS)]
    worker.close_gate(*names)
    async with bench.engine(worker):
        reading = Reading(bench)
        for name in names[:BUFFER]:
            bench.enqueue(name)
        await passing(10)
        assert reading.count == BUFFER
        for name in names[BUFFER:]:
            bench.enqueue(name)
        await passing(10)
        assert reading.count == BUFFER
        worker.open_gate(*names[: BUFFER // 2])
        await eventually(lambda: reading.count > BUFFER, "more records")
        worker.open_gate(*names)
        await eventually(lambda: bench.committed() == JOBS, "all ends")
        assert reading.count == JOBS
        assert worker.started == [(name, 1) for name in names]


@in_virtual_time
async def test_a_full_partition_that_is_claimed_anew_loses_nothing(tmp_path: Path) -> None:
    bench, worker = Bench(tmp_path, buffer_per_partition=BUFFER, lease_seconds=25.0), GatedWorker(concurrency=1)
    names = [f"j{number}" for number in range(3 * BUFFER)]
    worker.close_gate(*names)
    async with bench.engine(worker):
        jobs = [bench.enqueue(name) for name in names[:BUFFER]]
        await eventually(lambda: worker.running == ["j0"], "the first start")
        await passing(5)  # full for so long that it is paused
        bench.cluster.refuse_appends(bench.state().topic)
        await eventually(lambda: len(bench.claims()) == 2 and worker.running == ["j0"], "a start under a new claim")
        jobs += [bench.enqueue(name) for name in names[BUFFER:]]
        await passing(5)
        worker.open_gate(*names)
        await eventually(lambda: bench.has_completed(*jobs), "all ends")
        assert list(dict.fromkeys(worker.names_started())) == names


@in_virtual_time
async def test_what_ended_beside_a_long_job_is_not_read_again(tmp_path: Path) -> None:
    bench, first, second = Bench(tmp_path, lease_seconds=25.0), GatedWorker(), GatedWorker()
    first.close_gate("long")
    many = 5_000
    async with bench.engine(first) as engine:
        jobs = [bench.enqueue("long"), *(bench.enqueue(f"short-{number}") for number in range(many))]
        await eventually(lambda: engine.statistics[first.name].ended == many, "the end of the others")
        await passing(10)  # a checkpoint knows of them
    jobs.append(bench.enqueue("next"))
    reading = Reading(bench)
    async with bench.engine(second):
        await eventually(lambda: bench.committed() == many + 2, "all ends")
    assert second.started == [("long", 2), ("next", 1)]
    assert reading.count < many / 2


@in_virtual_time
async def test_equal_keys_of_two_tenants_do_not_wait_for_each_other(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("long")
    async with bench.engine(worker):
        for name, tenant in (("long", "rival"), ("behind", "rival"), ("other", "acme")):
            bench.enqueue(name, key="k", tenant=tenant)
        await eventually(lambda: worker.names_started() == ["long", "other"], "the other tenant's job")
        worker.open_gate("long")
        await eventually(lambda: bench.committed() == 3, "the commit")
    assert worker.names_started() == ["long", "other", "behind"]
