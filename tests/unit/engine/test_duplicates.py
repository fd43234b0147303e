"""A job that is asked for again is done once, and of what asks for it again nothing is written (rules E1 and E2)."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from headrace.core.identifiers import fresh_id
from headrace.testing import InMemoryLog
from support.duplicates import ENDED_KEYS, WINDOW, ask, entries, raw_entries, stated
from support.leases import engine
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, Bench, GatedWorker, passing, wall_clock
from support.virtual_time import in_virtual_time


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, idempotency_window_seconds=WINDOW)


@in_virtual_time
async def test_a_duplicate_runs_neither_beside_its_job_nor_after_it(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("same")
    async with bench.engine(worker):
        first = ask(bench, "same")
        await eventually(lambda: worker.running == ["same"], "the start")
        ask(bench, "same")
        await passing(30)
        assert worker.running == ["same"]
        worker.open_gate("same")
        await eventually(lambda: entries(bench) == [("same", first)], "the entry")
        ask(bench, "same")
        await eventually(lambda: bench.committed() == 3, "the commit")
    assert worker.started == [("same", 1)]
    assert stated(bench, "same") == [(first, "running"), (first, "completed")]
    assert entries(bench) == [("same", first)]


@in_virtual_time
async def test_a_job_that_waits_in_the_queue_is_there_already(bench: Bench) -> None:
    worker = GatedWorker(concurrency=1)
    worker.close_gate("before")
    async with bench.engine(worker):
        ask(bench, "before")
        offsets = [ask(bench, "same") for _ in range(3)]
        await passing(5)
        worker.open_gate("before")
        await eventually(lambda: bench.committed() == 4, "the commit")
    assert worker.names_started() == ["before", "same"]
    assert {offset for offset, _ in stated(bench, "same")} == {offsets[0]}


@in_virtual_time
async def test_it_is_done_again_when_the_window_is_over(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        first = ask(bench, "same")
        await eventually(lambda: entries(bench) == [("same", first)], "the entry")
        await passing(WINDOW - 20)
        ask(bench, "same")
        await passing(40)
        assert worker.started == [("same", 1)]
        again = ask(bench, "same")
        await eventually(lambda: entries(bench) == [("same", first), ("same", again)], "the entry of another job")
        ask(bench, "same")
        await eventually(lambda: bench.committed() == 4, "the commit")
    assert worker.started == [("same", 1), ("same", 1)]


@in_virtual_time
async def test_the_time_of_the_record_counts_and_not_that_of_its_reading(bench: Bench) -> None:
    """The queue may be hours long."""
    worker = GatedWorker()
    async with bench.engine(worker):
        first = ask(bench, "same")
        await eventually(lambda: entries(bench) == [("same", first)], "the entry")
        asked_at = wall_clock()
        await passing(2.5 * WINDOW)
        ask(bench, "same", at=asked_at)
        await eventually(lambda: bench.committed() == 2, "the commit")
    assert worker.started == [("same", 1)]


@in_virtual_time
async def test_a_new_owner_knows_what_has_ended(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        first = ask(bench, "same")
        await eventually(lambda: bench.committed() == 1, "the commit")
    async with bench.engine(worker):
        ask(bench, "same")
        await eventually(lambda: bench.committed() == 2, "the commit")
    assert worker.started == [("same", 1)]
    assert entries(bench) == [("same", first)]


@in_virtual_time
async def test_other_arguments_are_kept_as_a_dead_letter(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("same")
    async with bench.engine(worker):
        first = ask(bench, "same")
        await eventually(lambda: worker.running == ["same"], "the start")
        while_it_runs = ask(bench, "same", other="thing")
        worker.open_gate("same")
        await eventually(lambda: entries(bench) == [("same", first)], "the entry")
        after_it = ask(bench, "same", other="thing")
        await eventually(lambda: bench.committed() == 3, "the commit")
    async with bench.engine(worker):
        of_the_next_owner = ask(bench, "same", other="thing")
        await eventually(lambda: bench.committed() == 4, "the commit")
    letters = [dict(record.headers) for record in bench.cluster.topic_records(DEAD_LETTERS)]
    assert [letter["headrace-reason"] for letter in letters] == [b"idempotency_conflict"] * 3
    assert [letter["headrace-job-id"] for letter in letters] == [b"same"] * 3
    assert [int(letter["headrace-offset"]) for letter in letters] == [while_it_runs, after_it, of_the_next_owner]
    assert stated(bench, "same") == [(first, "running"), (first, "completed")]


@in_virtual_time
async def test_a_duplicate_of_what_was_refused_is_not_refused_again(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        wrong = orjson.dumps({"id": "wrong", "args": 7})
        first = bench.put(0, wrong)
        bench.put(0, wrong)
        await eventually(lambda: bench.committed() == 2, "the commit")
    assert stated(bench, "wrong") == [(first, "failed")]
    assert len(bench.cluster.topic_records(DEAD_LETTERS)) == 1
    assert entries(bench) == [("wrong", first)]


@in_virtual_time
async def test_of_fresh_ids_nothing_is_kept(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        job_id = fresh_id(wall_clock(), bytes(10))
        ask(bench, job_id)
        await eventually(lambda: bench.committed() == 1, "the commit")
    assert stated(bench, job_id) == [(0, "running"), (0, "completed")]
    assert entries(bench) == []


@in_virtual_time
async def test_the_watermark_waits_for_the_entry_and_the_key_does_not(bench: Bench) -> None:
    worker = GatedWorker()
    async with engine(bench, worker):
        await eventually(lambda: ENDED_KEYS in bench.cluster.topic_names(), "the topics")
        held = bench.cluster.hold_appends(ENDED_KEYS)
        jobs = [bench.enqueue(name, key="k") for name in ("a", "b")]
        await eventually(lambda: bench.has_completed(*jobs), "both ends")
        await passing(10)
        assert bench.committed() == 0
        held.release()
        await eventually(lambda: bench.committed() == 2, "the commit")


@in_virtual_time
async def test_an_entry_that_may_not_be_there_is_written_again(bench: Bench) -> None:
    worker = GatedWorker()
    async with engine(bench, worker):
        await eventually(lambda: ENDED_KEYS in bench.cluster.topic_names(), "the topics")
        bench.cluster.lose_acknowledgements(ENDED_KEYS, times=1)
        bench.cluster.refuse_appends(ENDED_KEYS, times=1)
        first = ask(bench, "same")
        await eventually(lambda: bench.committed() == 1, "the commit")
    assert len(entries(bench)) >= 1
    assert set(entries(bench)) == {("same", first)}
    assert len({entry["endedAt"] for entry in raw_entries(bench)}) == 1


@in_virtual_time
async def test_an_engine_that_stops_waits_for_the_entries(bench: Bench) -> None:
    worker = GatedWorker()
    async with engine(bench, worker, InMemoryLog(bench.cluster)) as running:
        await eventually(lambda: ENDED_KEYS in bench.cluster.topic_names(), "the topics")
        worker.close_gate("same")
        ask(bench, "same")
        await eventually(lambda: worker.running == ["same"], "the start")
        worker.open_gate("same")
        assert await running.stop(grace_seconds=10)
    assert bench.committed() == 1
