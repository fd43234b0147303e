"""The janitor of real engines over a cluster in memory, in virtual time: rules J1, J2 and J3 of the ownership protocol."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.janitor import Inquiry
from headrace.core.records import checkpoint_key, lease_key, parse_removal, parse_snapshot_headers
from headrace.core.topics import JOB_STATE_PARTITIONS
from headrace.engine import janitor
from headrace.errors import BrokerError
from headrace.ports import NewRecord, Record, TopicPartition
from headrace.testing import InMemoryLog, StoredRecord
from support.duplicates import WINDOW, ask, stated
from support.leases import Instance, engine, lease_bench, seconds_until
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

RETENTION = 600.0
SOON = 150.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Its engines look for what ended long ago every minute, since a virtual day of theirs takes minutes."""
    monkeypatch.setattr(janitor, "TIMES", replace(janitor.TIMES, retention=60.0))
    return lease_bench(tmp_path, janitor=True, job_retention_seconds=RETENTION)


def last_of(bench: Bench, key: str | bytes) -> StoredRecord:
    """The last record of a key."""
    wanted = key.encode() if isinstance(key, str) else key
    return [record for record in bench.cluster.records(bench.state()) if record.key == wanted][-1]


def frozen_and_successor(bench: Bench) -> list[str]:
    """Jobs that a frozen holder has begun. Its successor ended the first; the last words of the frozen one are about all."""
    frozen, successor = Instance(bench, "frozen"), Instance(bench, "successor")
    jobs = [bench.enqueue("ended"), bench.enqueue("begun"), bench.enqueue("new")]
    frozen.claim()
    begun = [frozen.begin(frozen.accepted(job)) for job in jobs[:2]]
    successor.claim()
    successor.complete(successor.begin(begun[0]))
    for each in begun:
        frozen.complete(each)
    frozen.begin(frozen.accepted(jobs[2]))
    return jobs


@in_virtual_time
async def test_what_counts_is_written_again_over_the_last_words_of_a_frozen_holder(bench: Bench) -> None:
    jobs = frozen_and_successor(bench)
    successor = Instance(bench, "other")
    worker = GatedWorker()
    worker.close_gate("begun", "new")
    successor.claim()
    async with successor.renewing(), engine(bench, worker):
        await passing(SOON)
        ended, begun, new = (last_of(bench, job) for job in jobs)
        headers = parse_snapshot_headers(ended.headers)
        assert headers is not None and headers.repeated and headers.status == "completed"
        state = bench.state_of(jobs[0])
        assert state is not None and state["instanceId"] == "successor"
        headers = parse_snapshot_headers(begun.headers)
        assert headers is not None and headers.repeated and headers.status == "running"
        removal = parse_removal(new.headers)
        assert new.value is None and removal is not None and removal.reason == "void"


@in_virtual_time
async def test_an_engine_that_runs_for_moments_mends_what_has_stood_for_long(bench: Bench) -> None:
    jobs = frozen_and_successor(bench)
    await passing(janitor.TIMES.settled)
    # Not long enough to have seen for as long as that what it reads.
    moments = janitor.TIMES.start + 2 * janitor.TIMES.round
    assert moments < janitor.TIMES.settled
    async with engine(bench, GatedWorker(), now=bench.cluster.now):
        await passing(moments)
        headers = parse_snapshot_headers(last_of(bench, jobs[0]).headers)
        assert headers is not None and headers.repeated and headers.status == "completed"


def is_repeated(bench: Bench, job: str) -> bool:
    headers = parse_snapshot_headers(last_of(bench, job).headers)
    return headers is not None and headers.repeated


def is_removed(bench: Bench, instance: str) -> bool:
    return last_of(bench, lease_key("gated", 0, instance)).value is None


@in_virtual_time
async def test_what_was_written_a_moment_ago_is_left_alone(bench: Bench) -> None:
    async with engine(bench, GatedWorker(), now=bench.cluster.now):
        await passing(SOON)
        frozen_and_successor(bench)
        await passing(janitor.TIMES.settled - 1)
        assert not is_removed(bench, "frozen")
        await seconds_until(lambda: is_removed(bench, "frozen"), "the end of its lease", within=2 * janitor.TIMES.round)


@in_virtual_time
async def test_nothing_is_decided_before_all_is_read_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later may have mended what stands here already."""
    monkeypatch.setattr(janitor, "_CHUNK", 10)
    inquiries: list[int] = []

    def inquiry(keys: Collection[bytes]) -> Inquiry[Record]:
        inquiries.append(len(keys))
        return Inquiry(keys)

    # Each is a whole reading.
    monkeypatch.setattr(janitor, "Inquiry", inquiry)
    bench = lease_bench(tmp_path, janitor=True, janitor_records_per_second=10)
    jobs = frozen_and_successor(bench)
    seconds = 100
    bench.cluster.append(bench.state(), *[NewRecord(b"key", None)] * (10 * seconds))
    await passing(janitor.TIMES.settled)
    async with engine(bench, GatedWorker(), now=bench.cluster.now):
        await passing(janitor.TIMES.start + seconds - 1)
        assert not is_repeated(bench, jobs[0])
        assert not is_removed(bench, "frozen")
        assert inquiries == []
        await seconds_until(lambda: is_repeated(bench, jobs[0]) and is_removed(bench, "frozen"), "what is to be done")


@pytest.mark.parametrize("ahead_seconds", [-3_600, 3_600])
@in_virtual_time
async def test_a_clock_that_is_wrong_stops_no_janitor(bench: Bench, ahead_seconds: int) -> None:
    jobs = frozen_and_successor(bench)
    async with engine(bench, GatedWorker(), now=lambda: bench.cluster.now() + ahead_seconds * 1_000):
        await seconds_until(lambda: is_repeated(bench, jobs[0]), "the repeat", within=SOON)


@in_virtual_time
async def test_after_compaction_a_new_owner_knows_what_it_would_have_known_before(bench: Bench) -> None:
    jobs = frozen_and_successor(bench)
    async with engine(bench, GatedWorker()):
        await seconds_until(lambda: bench.committed() == 3, "all ends")
        await passing(SOON)
    await passing(2 * 3600)
    bench.cluster.compact(STATE)
    assert len([record for record in bench.cluster.records(bench.state()) if record.key == jobs[0].encode()]) == 1
    bench.cluster.commit(bench.group, {TopicPartition(QUEUE, 0): 0})
    worker = GatedWorker()
    async with engine(bench, worker):
        await seconds_until(lambda: bench.committed() == 3, "the commit")
        assert worker.started == []


@in_virtual_time
async def test_what_a_void_claim_hides_from_who_reads_a_compacted_log_is_written_again(bench: Bench) -> None:
    holder, loser = Instance(bench, "holder"), Instance(bench, "loser")
    jobs = [bench.enqueue("ended"), bench.enqueue("before")]
    epoch = holder.claim()
    holder.begin(holder.accepted(jobs[1]))
    holder.renew()
    loser.claim(previous=epoch)
    holder.complete(holder.begin(holder.accepted(jobs[0])))
    async with holder.renewing(), engine(bench, GatedWorker()):
        await passing(SOON)
        headers = [parse_snapshot_headers(last_of(bench, job).headers) for job in jobs]
        assert [(each.repeated, each.status) for each in headers if each] == [(True, "completed"), (False, "running")]
        assert last_of(bench, lease_key("gated", 0, "loser")).value is None


@in_virtual_time
async def test_leases_and_checkpoints_of_old_epochs_are_removed_when_the_new_one_has_a_checkpoint(bench: Bench) -> None:
    async with engine(bench, GatedWorker()) as old:
        await seconds_until(lambda: any(_of_checkpoints(bench, old.instance_id)), "its checkpoint")
    async with engine(bench, GatedWorker()) as new:
        await passing(SOON)
        assert last_of(bench, lease_key("gated", 0, old.instance_id)).value is None
        assert last_of(bench, checkpoint_key("gated", 0, old.instance_id)).value is None
        assert last_of(bench, lease_key("gated", 0, new.instance_id)).value is not None
        assert last_of(bench, checkpoint_key("gated", 0, new.instance_id)).value is not None


@in_virtual_time
async def test_an_old_epoch_s_checkpoint_stays_while_the_new_one_has_none(bench: Bench) -> None:
    async with engine(bench, GatedWorker()) as old:
        await seconds_until(lambda: any(_of_checkpoints(bench, old.instance_id)), "its checkpoint")
    silent = Instance(bench, "silent")
    silent.claim()
    async with silent.renewing(), engine(bench, GatedWorker()):
        await passing(SOON)
        assert last_of(bench, lease_key("gated", 0, old.instance_id)).value is None
        assert last_of(bench, checkpoint_key("gated", 0, old.instance_id)).value is not None


def _of_checkpoints(bench: Bench, instance_id: str) -> list[StoredRecord]:
    key = checkpoint_key("gated", 0, instance_id)
    return [record for record in bench.cluster.records(bench.state()) if record.key == key]


@in_virtual_time
async def test_old_ended_jobs_vanish_and_unfinished_ones_stay(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("unfinished")
    async with bench.engine(worker):
        ended, unfinished = [bench.enqueue("a"), bench.enqueue("b")], bench.enqueue("unfinished")
        behind = bench.enqueue("c")
        await seconds_until(lambda: bench.has_completed(*ended, behind), "the ends")
        await passing(RETENTION - 60)
        assert len(bench.cluster.records(TopicPartition(QUEUE, 0))) == 4
        fresh = bench.enqueue("fresh")
        await passing(SOON)
        assert [record.offset for record in bench.cluster.records(TopicPartition(QUEUE, 0))] == [2, 3, 4]
        assert [last_of(bench, job).value for job in ended] == [None, None]
        assert all(last_of(bench, job).value is not None for job in (unfinished, behind, fresh))
        worker.open_gate("unfinished")
        await seconds_until(lambda: bench.has_completed(unfinished), "its end")
        assert worker.started.count(("unfinished", 1)) == 1


@in_virtual_time
async def test_a_later_job_with_the_id_of_one_that_is_gone_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a report that is asked for with the same idempotency key each week."""
    monkeypatch.setattr(janitor, "TIMES", replace(janitor.TIMES, retention=60.0))
    bench = lease_bench(tmp_path, janitor=True, job_retention_seconds=RETENTION, idempotency_window_seconds=WINDOW)
    async with bench.engine(GatedWorker()):
        first = ask(bench, "job-x")
        await passing(RETENTION - SOON)
        second = ask(bench, "job-x")
        await passing(2 * SOON)
        assert bench.cluster.partition(TopicPartition(QUEUE, 0)).start == second > first
        assert [status for _, status in stated(bench, "job-x")][-1] == "completed"
        assert last_of(bench, "job-x").value is not None
        assert not [record for record in bench.cluster.records(bench.state()) if record.key == b"job-x" and record.value is None]
        await passing(RETENTION)
        assert last_of(bench, "job-x").value is None, "it goes in its turn"


@in_virtual_time
async def test_job_records_go_before_their_snapshots(bench: Bench) -> None:
    seen: list[int] = []

    def look(target: TopicPartition, records: object) -> None:
        if target == bench.state():
            seen.extend(
                bench.cluster.partition(TopicPartition(QUEUE, 0)).start
                for record in bench.cluster.records(target)[-1:]
                if record.value is None and parse_removal(record.headers) is not None
            )

    async with bench.engine(GatedWorker()):
        job = bench.enqueue("a")
        await seconds_until(lambda: bench.has_completed(job), "its end")
        bench.cluster.written = look
        await passing(RETENTION + SOON)
        assert seen and set(seen) == {1}


@in_virtual_time
async def test_what_fails_in_it_is_tried_again_and_stops_no_job(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    frozen_and_successor(bench)
    log = InMemoryLog(bench.cluster)
    async with engine(bench, GatedWorker(), log):
        await seconds_until(lambda: bench.committed() == 3, "all ends")
        log.refuse_appends(
            STATE, BrokerError("No."), matching=lambda record: record.value is None or b'"repeat"' in record.value, times=3
        )
        await seconds_until(lambda: "the janitor failed" in caplog.text, "its failure")
        job = bench.enqueue("meanwhile")
        await seconds_until(lambda: bench.has_completed(job), "the end of a job")
        await seconds_until(lambda: last_of(bench, lease_key("gated", 0, "frozen")).value is None, "what it does in the end")


@in_virtual_time
async def test_who_is_late_by_what_it_has_read_says_so_and_who_has_not_begun_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(janitor, "_CHUNK", 10)
    bench = lease_bench(tmp_path, janitor=True, janitor_records_per_second=10)
    other = TopicPartition(STATE, (bench.state().partition + 1) % JOB_STATE_PARTITIONS)
    long_ago = bench.cluster.now() - 3_600_000
    bench.cluster.append(other, *[NewRecord(b"key", None)] * 1_000, timestamp=long_ago)
    bench.cluster.withhold(other)
    async with bench.engine(GatedWorker()):
        await passing(SOON)
        assert "the janitor is late" not in caplog.text
        bench.cluster.give_out(other)
        await seconds_until(lambda: "the janitor is late" in caplog.text, "a warning")
        await passing(SOON)
        caplog.clear()
        await passing(SOON)
        assert "the janitor is late" not in caplog.text, "it has caught up"


@in_virtual_time
async def test_engines_share_the_work_and_take_over_what_another_leaves(bench: Bench) -> None:
    first, second = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with engine(bench, GatedWorker(), second):
        async with engine(bench, GatedWorker(), first):
            await passing(SOON)
            assert sorted(map(len, bench.cluster.members(TOPICS.janitors).values())) == [8, 8]
        frozen_and_successor(bench)
        await passing(2 * SOON)
        assert [len(held) for held in bench.cluster.members(TOPICS.janitors).values()] == [16]
        assert last_of(bench, lease_key("gated", 0, "frozen")).value is None
        positions = bench.cluster.committed_offsets(TOPICS.janitors)
        assert positions[bench.state()] > 0


@in_virtual_time
async def test_an_engine_without_one_leaves_everything_as_it_is(tmp_path: Path) -> None:
    bench = lease_bench(tmp_path, janitor=False)
    frozen_and_successor(bench)
    async with engine(bench, GatedWorker()):
        await passing(SOON)
        assert TOPICS.janitors not in bench.cluster._groups
        assert last_of(bench, lease_key("gated", 0, "frozen")).value is not None
