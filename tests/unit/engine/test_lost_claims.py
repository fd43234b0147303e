"""A send to `job-state` that fails, or whose fate is unknown, ends the claim (rule H6): what was in hand is claimed anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext
from headrace.testing import Hold, InMemoryCluster
from support import leases
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, STATE, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

LONG = 30.0


def refused(cluster: InMemoryCluster, topic: str) -> Hold | None:
    cluster.refuse_appends(topic)
    return None


def unanswered(cluster: InMemoryCluster, topic: str) -> Hold | None:
    cluster.lose_acknowledgements(topic)
    return None


def late(cluster: InMemoryCluster, topic: str) -> Hold | None:
    return cluster.land_late(topic)


Failing = Callable[[InMemoryCluster, str], Hold | None]
failures = pytest.mark.parametrize("failing", [refused, unanswered, late])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@failures
@in_virtual_time
async def test_a_start_that_is_not_acknowledged_ends_the_claim(bench: Bench, failing: Failing) -> None:
    worker = GatedWorker()
    async with bench.engine(worker) as engine:
        [first] = bench.claims()
        hold = failing(bench.cluster, STATE)
        job = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job), "the job's end")
        if hold is not None:
            hold.release()
        await passing(LONG)
        [_, second] = bench.claims()
        state = bench.state_of(job)
        assert state is not None
        assert (state["status"], state["epoch"], state["instanceId"]) == ("completed", second.offset, engine.instance_id)
        # What landed under the first claim began no work.
        assert worker.started == [("a", 2 if failing is unanswered else 1)]
        assert [each["epoch"] for each in bench.written(job)].count(first.offset) == (0 if failing is refused else 1)
        await eventually(lambda: bench.committed() == 1, "the commit")


@failures
@in_virtual_time
async def test_an_end_that_is_not_acknowledged_ends_the_claim(bench: Bench, failing: Failing) -> None:
    worker = GatedWorker()
    worker.close_gate("a")
    async with bench.engine(worker):
        job = bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        hold = failing(bench.cluster, STATE)
        worker.open_gate("a")
        await eventually(lambda: bench.committed() == 1, "the commit")
        if hold is not None:
            hold.release()
        await passing(LONG)
        assert len(bench.claims()) == 2
        assert bench.has_completed(job)
        # It ran again where its end is not in the log, or landed there too late to count; else its end was read.
        assert worker.started == ([("a", 1)] if failing is unanswered else [("a", 1), ("a", 2)])


@failures
@in_virtual_time
async def test_what_runs_beside_a_failed_send_is_stopped_and_runs_again(bench: Bench, failing: Failing) -> None:
    worker = GatedWorker()
    worker.close_gate("long")
    async with bench.engine(worker):
        other = bench.enqueue("long")
        await eventually(lambda: worker.running == ["long"], "the start of the long one")
        hold = failing(bench.cluster, STATE)
        job = bench.enqueue("a")
        await eventually(lambda: worker.started.count(("long", 2)) == 1, "its second attempt")
        if hold is not None:
            hold.release()
        assert worker.interrupted == ["long"]
        worker.open_gate("long")
        await eventually(lambda: bench.has_completed(other, job), "the ends of both")
        assert len(bench.claims()) == 2


@failures
@in_virtual_time
async def test_the_order_by_key_outlives_a_claim(bench: Bench, failing: Failing) -> None:
    worker = GatedWorker()
    worker.close_gate("k0")
    async with bench.engine(worker):
        jobs = [bench.enqueue(f"k{number}", key="k") for number in range(10)]
        await eventually(lambda: worker.running == ["k0"], "the first of the key")
        hold = failing(bench.cluster, STATE)
        worker.open_gate("k0")
        await eventually(lambda: bench.has_completed(*jobs), "all ends")
        if hold is not None:
            hold.release()
        names = list(dict.fromkeys(worker.names_started()))
        assert names == [f"k{number}" for number in range(10)]
        assert sorted(worker.names_started()) == worker.names_started()


@failures
@in_virtual_time
async def test_a_dead_letter_that_is_not_acknowledged_is_written_again(bench: Bench, failing: Failing) -> None:
    async with bench.engine(GatedWorker()):
        hold = failing(bench.cluster, DEAD_LETTERS)
        bench.put(0, b"no job")
        await eventually(lambda: bench.committed() == 1, "the commit")
        if hold is not None:
            hold.release()
        await passing(LONG)
        letters = [record.value for record in bench.cluster.topic_records(DEAD_LETTERS)]
        # At least once, and never not at all.
        assert letters == [b"no job"] * (1 if failing is refused else 2)


@in_virtual_time
async def test_a_claim_of_another_partition_goes_on(tmp_path: Path) -> None:
    bench, worker = Bench(tmp_path, partitions=2), GatedWorker()
    worker.close_gate("here")
    async with bench.engine(worker):
        here = bench.enqueue("here", 0)
        await eventually(lambda: worker.running == ["here"], "the start here")
        bench.cluster.refuse_appends(STATE, partition=bench.state(1).partition)
        there = bench.enqueue("there", 1)
        await eventually(lambda: bench.has_completed(there, partition=1), "the end there")
        assert (len(bench.claims(0)), len(bench.claims(1))) == (1, 2)
        assert worker.interrupted == []
        worker.open_gate("here")
        await eventually(lambda: bench.has_completed(here), "the end here")
        assert worker.started.count(("here", 1)) == len([name for name in worker.names_started() if name == "here"])


@in_virtual_time
async def test_a_claim_that_cannot_be_written_is_tried_again(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        bench.cluster.refuse_appends(STATE, times=4)
        job = bench.enqueue("a")
        await eventually(lambda: bench.has_completed(job), "the job's end")
        assert worker.started == [("a", 1)]


class InThreads(GatedWorker):
    """A plain function, which looks whether it is to end; the first attempt of `long` does nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = threading.Event()

    def run(self, args: dict[str, Any], ctx: JobContext) -> None:  # type: ignore[override]
        self.started.append((args["name"], ctx.attempt))
        if self.started[-1] == ("long", 1):
            self.runs.set()
            deadline = time.monotonic() + 30
            while not ctx.cancelled:
                assert time.monotonic() < deadline, "nobody told it"
                time.sleep(0.01)


async def test_a_function_in_a_thread_is_told_and_need_not_end_its_engine(bench: Bench) -> None:
    worker = InThreads()
    async with leases.engine(bench, worker) as engine:
        await eventually(lambda: bool(bench.claims()), "the claim")
        long = bench.enqueue("long")
        await eventually(worker.runs.is_set, "the start of the long one")
        bench.cluster.refuse_appends(STATE)
        short = bench.enqueue("short")
        await eventually(lambda: bench.has_completed(long, short), "the ends of both")
        assert worker.started.count(("long", 2)) == 1
        assert len(bench.claims()) == 2
        assert engine.groups, "it goes on"
