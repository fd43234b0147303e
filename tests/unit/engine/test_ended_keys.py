"""Between the end of a job that may be asked for again and its entry in `ended-keys`, any owner may die (rules E1, H2 and K3)."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from headrace import WorkerEngine
from headrace.core.records import CHECKPOINT_PREFIX, SOURCE_HEADER
from headrace.ports import NewRecord
from headrace.testing import InMemoryLog, StoredRecord
from support.duplicates import ENDED_KEYS, WINDOW, ask, entries, raw_entries, stated
from support.leases import Clocks, caught, engine, lease_bench, of_status
from support.log import eventually
from support.memory_engines import STATE, Bench, GatedWorker, loop_clock, passing, wall_clock
from support.requests import cancel, standing
from support.virtual_time import in_virtual_time

TERM = 25.0
# A lease lapses, and whoever waits for it has looked.
PATIENCE = 45.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, lease_seconds=TERM)


def entry_of(entry: StoredRecord, source: bytes | None, value: bytes) -> NewRecord:
    """A record beside an entry, about another job."""
    return NewRecord(entry.key or b"", value, () if source is None else [(SOURCE_HEADER, source)])


def checkpointed(bench: Bench) -> dict[str, str]:
    """The jobs that the last checkpoint has by themselves, and how they stand there."""
    written = [record for record in bench.cluster.records(bench.state()) if (record.key or b"").startswith(CHECKPOINT_PREFIX)]
    return {job["id"]: job["state"]["status"] for job in orjson.loads(written[-1].value or b"")["begun"]}


def a_log(bench: Bench) -> InMemoryLog:
    return InMemoryLog(bench.cluster, session_timeout=6.0)


@pytest.mark.parametrize("seconds", [0.0, 3 * TERM], ids=["at once", "after checkpoints"])
@in_virtual_time
async def test_an_owner_dies_after_the_end_and_before_the_entry(bench: Bench, seconds: float) -> None:
    """The next one writes the entry, with the time of the end, and passes the job when it is there."""
    first, second = GatedWorker(), GatedWorker()
    log = a_log(bench)
    async with bench.engine(first, log):
        # The oldest job holds the watermark back, so that checkpoints must tell of the others.
        first.close_gate("long")
        second.close_gate("long")
        ask(bench, "long")
        held = bench.cluster.hold_appends(ENDED_KEYS)
        offset = ask(bench, "same")
        await eventually(lambda: stated(bench, "same")[-1:] == [(offset, "completed")], "the end")
        ended = bench.written("same")[-1]["updatedAt"]
        await passing(seconds)
        log.cut_off()
        assert entries(bench) == []
        assert seconds == 0 or checkpointed(bench) == {"long": "running", "same": "completed"}
        async with bench.engine(second, a_log(bench)):
            await passing(PATIENCE)
            await caught(held, 2)
            await passing(2 * TERM)
            ask(bench, "same")
            await passing(5)
            held.release()
            await eventually(lambda: ("same", offset) in entries(bench), "the entry")
            second.open_gate("long")
            await eventually(lambda: bench.committed() == 3, "the commit")
        first.open_gate("long")
    assert [name for worker in (first, second) for name, _ in worker.started if name == "same"] == ["same"]
    assert stated(bench, "same") == [(offset, "running"), (offset, "completed")]
    assert {entry["endedAt"] for entry in raw_entries(bench) if entry["id"] == "same"} == {ended}


@in_virtual_time
async def test_one_owner_after_another_dies_before_the_entry(bench: Bench) -> None:
    """What one owner has only from a checkpoint of its predecessor reaches the third."""
    workers = [GatedWorker() for _ in range(3)]
    for worker in workers:
        worker.close_gate("long")
    logs = [a_log(bench) for _ in workers]
    async with bench.engine(workers[0], logs[0]):
        held = bench.cluster.hold_appends(ENDED_KEYS)
        ask(bench, "long")
        offset = ask(bench, "same")
        await eventually(lambda: stated(bench, "same")[-1:] == [(offset, "completed")], "the end")
        await passing(2 * TERM)
        logs[0].cut_off()
        async with bench.engine(workers[1], logs[1]):
            await passing(PATIENCE + 2 * TERM)
            assert checkpointed(bench) == {"long": "running", "same": "completed"}
            assert workers[1].names_started() == ["long"]
            logs[1].cut_off()
            async with bench.engine(workers[2], logs[2]):
                await passing(PATIENCE)
                held.release()
                again = ask(bench, "same")
                workers[2].open_gate("long")
                await eventually(lambda: bench.committed() == again + 1, "the commit")
                assert workers[2].names_started() == ["long"]
        for worker in workers[:2]:
            worker.open_gate("long")
    assert ("same", offset) in entries(bench)
    assert stated(bench, "same") == [(offset, "running"), (offset, "completed")]


@in_virtual_time
async def test_an_owner_dies_after_the_entry_and_before_the_commit(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    log = a_log(bench)
    bench.settings = bench.settings.model_copy(
        update={"engine": bench.settings.engine.model_copy(update={"commit_interval_seconds": 3600.0})}
    )
    async with bench.engine(first, log):
        offset = ask(bench, "same")
        await eventually(lambda: entries(bench) == [("same", offset)], "the entry")
        await passing(TERM)
        log.cut_off()
        assert bench.committed() == 0
        async with bench.engine(second, a_log(bench)):
            await passing(PATIENCE)
            ask(bench, "same")
            await passing(5)
    assert bench.committed() == 2
    assert first.started == [("same", 1)]
    assert second.started == []
    assert entries(bench) == [("same", offset)]


@in_virtual_time
async def test_what_compaction_leaves_is_enough(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    log = a_log(bench)
    async with bench.engine(first, log):
        held = bench.cluster.hold_appends(ENDED_KEYS)
        offset = ask(bench, "same")
        await eventually(lambda: stated(bench, "same")[-1:] == [(offset, "completed")], "the end")
        await passing(TERM)
        log.cut_off()
        state = bench.cluster.topic(STATE)
        state.configuration = {**state.configuration, "min.compaction.lag.ms": "0"}
        bench.cluster.compact(STATE)
        state.configuration = {**state.configuration, "min.compaction.lag.ms": "3600000"}
        assert stated(bench, "same") == [(offset, "completed")]
        async with bench.engine(second, a_log(bench)):
            await passing(PATIENCE)
            held.release()
            ask(bench, "same")
            await eventually(lambda: bench.committed() == 2, "the commit")
    assert second.started == []


@in_virtual_time
async def test_no_entry_is_sent_when_the_lease_is_over(bench: Bench) -> None:
    """Rule H2: the terminal record may be void by then, and an entry for it would keep a job from running later."""
    clocks = Clocks()
    worker = GatedWorker()
    async with engine(bench, worker, a_log(bench), clocks):
        await eventually(lambda: ENDED_KEYS in bench.cluster.topic_names(), "the topics")
        held = bench.cluster.hold_acknowledgements(STATE, matching=of_status("completed"))
        offset = ask(bench, "same")
        await caught(held)
        clocks.suspend(TERM)
        held.release()
        await passing(0.1)
        assert entries(bench) == []
        await eventually(lambda: bench.committed() == 1, "the commit under a new claim")
    assert entries(bench) == [("same", offset)]
    assert worker.started == [("same", 1)]


@in_virtual_time
async def test_a_partition_is_given_back_though_entries_cannot_be_written(bench: Bench) -> None:
    workers = [GatedWorker(), GatedWorker()]
    logs = [a_log(bench) for _ in workers]
    async with bench.engine(workers[0], logs[0]):
        held = bench.cluster.hold_appends(ENDED_KEYS)
        offset = ask(bench, "same")
        await eventually(lambda: stated(bench, "same")[-1:] == [(offset, "completed")], "the end")
        async with engine(bench, workers[1], logs[1]):
            logs[0].evict(bench.group)
            logs[0].tell_evicted(bench.group)
            await passing(20)
            held.release()
            ask(bench, "same")
            await eventually(lambda: bench.committed() == 2, "the commit")
    assert [worker.started for worker in workers] == [[("same", 1)], []]
    assert ("same", offset) in entries(bench)


@in_virtual_time
async def test_entries_of_others_are_passed_over(bench: Bench) -> None:
    """`ended-keys` is shared by all workers, and what is no entry costs nothing but itself."""
    worker = GatedWorker()
    async with bench.engine(worker):
        ask(bench, "same")
        await eventually(lambda: bench.committed() == 1, "the commit")
    place, [entry] = bench.state()._replace(topic=ENDED_KEYS), list(bench.cluster.topic_records(ENDED_KEYS))
    bench.cluster.append(place, entry_of(entry, b"other/0/7", b'{"id": "same", "workerName": "other"}'))
    bench.cluster.append(place, entry_of(entry, b"gated/0/7", b"no entry"))
    bench.cluster.append(place, entry_of(entry, None, b"no entry"))
    async with bench.engine(worker):
        ask(bench, "same")
        other = ask(bench, "other")
        await eventually(lambda: bench.committed() == other + 1, "the commit")
    assert worker.names_started() == ["same", "other"]


@in_virtual_time
async def test_a_request_to_cancel_that_comes_when_the_job_has_ended_does_not_meet_the_next_of_its_id(tmp_path: Path) -> None:
    """It comes while the end is acknowledged, and the entry in `ended-keys` is not."""
    bench = lease_bench(tmp_path, idempotency_window_seconds=WINDOW)
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    engine = WorkerEngine(bench.settings, log=log, clock=loop_clock, now=wall_clock)
    engine.register_worker(worker)
    async with engine:
        await passing(10)
        hold = log.hold_appends(ENDED_KEYS)
        ask(bench, "job-x")
        await passing(3)
        cancel(bench, "job-x")
        await passing(1)
        hold.release()
        await passing(2)
        assert standing(bench) == []
        await passing(3 * WINDOW)
        ask(bench, "job-x")
        await passing(5)
        assert [bench.statuses("job-x")[number] for number in (1, -1)] == ["completed", "completed"]
        assert len(worker.started) == 2
