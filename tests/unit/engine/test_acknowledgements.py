"""Only an acknowledgement moves a job on: the start of its work, the next of its key, the commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing import InMemoryLog
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, STATE, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

LONG = 30.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@in_virtual_time
async def test_the_work_starts_when_running_is_acknowledged_and_not_before(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        held = bench.cluster.hold_acknowledgements(STATE)
        job = bench.enqueue("a")
        await held.caught()
        await passing(LONG)
        assert bench.statuses(job) == ["running"]
        assert worker.started == []
        held.release()
        await eventually(lambda: bench.has_completed(job), "the job's end")
        assert worker.started == [("a", 1)]


@in_virtual_time
async def test_nothing_starts_while_its_record_is_still_on_the_way(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        held = bench.cluster.hold_appends(STATE)
        job = bench.enqueue("a")
        await held.caught()
        await passing(LONG)
        assert bench.statuses(job) == []
        assert worker.started == []
        held.release()
        await eventually(lambda: bench.has_completed(job), "the job's end")


@in_virtual_time
async def test_an_end_is_committed_when_it_is_acknowledged_and_not_before(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("a")
    async with bench.engine(worker):
        job = bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        held = bench.cluster.hold_acknowledgements(STATE)
        worker.open_gate("a")
        await held.caught()
        await passing(LONG)
        assert bench.statuses(job) == ["running", "completed"]
        assert bench.committed() == 0
        held.release()
        await eventually(lambda: bench.committed() == 1, "the commit")


@in_virtual_time
async def test_nothing_is_committed_above_a_job_that_has_not_ended(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("b")
    async with bench.engine(worker):
        first, _, third = (bench.enqueue(name) for name in "abc")
        await eventually(lambda: bench.has_completed(first, third), "the ends of the others")
        await passing(LONG)
        assert bench.committed() == 1
        worker.open_gate("b")
        await eventually(lambda: bench.committed() == 3, "the commit of all")


@in_virtual_time
async def test_a_dead_letter_holds_the_watermark_until_it_is_acknowledged(bench: Bench) -> None:
    async with bench.engine(GatedWorker()):
        held = bench.cluster.hold_acknowledgements(DEAD_LETTERS)
        bench.put(0, b"no job")
        behind = bench.enqueue("a")
        await held.caught()
        await eventually(lambda: bench.has_completed(behind), "the end of the job behind it")
        await passing(LONG)
        assert [record.value for record in bench.cluster.topic_records(DEAD_LETTERS)] == [b"no job"]
        assert bench.committed() == 0
        held.release()
        await eventually(lambda: bench.committed() == 2, "the commit")


@in_virtual_time
async def test_a_dead_letter_with_an_id_holds_the_watermark_until_its_failure_is_acknowledged_too(bench: Bench) -> None:
    async with bench.engine(GatedWorker()):
        letters = bench.cluster.hold_acknowledgements(DEAD_LETTERS)
        failures = bench.cluster.hold_acknowledgements(STATE)
        bench.put(0, b'{"id": "bad", "workerName": "gated"}')
        await letters.caught()
        await passing(LONG)
        assert bench.statuses("bad") == [], "the sender hears of it when the bytes are safe"
        letters.release()
        await failures.caught()
        await passing(LONG)
        assert bench.statuses("bad") == ["failed"]
        assert bench.committed() == 0
        failures.release()
        await eventually(lambda: bench.committed() == 1, "the commit")


@in_virtual_time
async def test_the_next_of_a_key_starts_when_the_end_before_it_is_acknowledged(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("a")
    async with bench.engine(worker):
        bench.enqueue("a", key="k")
        second = bench.enqueue("b", key="k")
        await eventually(lambda: worker.running == ["a"], "the first of the key")
        held = bench.cluster.hold_acknowledgements(STATE)
        worker.open_gate("a")
        await held.caught()
        await passing(LONG)
        assert bench.statuses(second) == []
        held.release()
        await eventually(lambda: bench.has_completed(second), "the second of the key")
        assert worker.names_started() == ["a", "b"]


@in_virtual_time
async def test_a_key_keeps_the_order_of_the_log_and_others_run_beside_it(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("k0")
    async with bench.engine(worker):
        jobs = [bench.enqueue(f"k{number}", key="k") for number in range(20)]
        others = [bench.enqueue(f"o{number}", key=f"o{number}") for number in range(5)]
        alone = [bench.enqueue("alone-1"), bench.enqueue("alone-2")]
        await eventually(lambda: bench.has_completed(*others, *alone), "what waits for nobody")
        await passing(LONG)
        assert worker.running == ["k0"]
        worker.open_gate("k0")
        await eventually(lambda: bench.has_completed(*jobs), "all of the key")
        assert [name for name in worker.names_started() if name.startswith("k")] == [f"k{number}" for number in range(20)]
        ends = [record.key for record in bench.cluster.records(bench.state()) if b'"completed"' in (record.value or b"")]
        assert [key for key in ends if key in {job.encode() for job in jobs}] == [job.encode() for job in jobs]


@in_virtual_time
async def test_jobs_that_wait_for_nobody_run_side_by_side_up_to_the_concurrency(bench: Bench) -> None:
    worker = GatedWorker(concurrency=3)
    names = [f"j{number}" for number in range(7)]
    worker.close_gate(*names)
    async with bench.engine(worker, InMemoryLog(bench.cluster)):
        jobs = [bench.enqueue(name) for name in names]
        await eventually(lambda: len(worker.running) == 3, "as many as may run")
        await passing(LONG)
        assert worker.running == names[:3]
        worker.open_gate(*names)
        await eventually(lambda: bench.has_completed(*jobs), "all ends")
        assert worker.names_started() == names
