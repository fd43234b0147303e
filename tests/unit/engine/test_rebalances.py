"""Partitions that come and go: what stays goes on, what is lost is void, and what was begun is begun again by its next owner."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog
from support.leases import engine, kinds, lease_bench, seconds_until
from support.log import Member, eventually, members
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

LONG = 30.0
PARTITIONS = 4
NAMES = [f"j{number}" for number in range(PARTITIONS)]
QUEUE = TOPICS.jobs_name(GatedWorker.name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, partitions=PARTITIONS)


def gated() -> GatedWorker:
    """A worker whose jobs, one for each partition, wait."""
    worker = GatedWorker()
    worker.close_gate(*NAMES)
    return worker


async def begun(bench: Bench, worker: GatedWorker) -> list[str]:
    """A job in each partition, of which all run; their ids."""
    jobs = [bench.enqueue(name, number) for number, name in enumerate(NAMES)]
    await eventually(lambda: sorted(worker.running) == NAMES, "all starts")
    return jobs


def held_by(bench: Bench, log: InMemoryLog) -> list[int]:
    """The numbers of the partitions that the group has given to a process."""
    members = bench.cluster.members(bench.group)
    return sorted(partition.partition for name, held in members.items() if name.startswith(f"{log.name}-") for partition in held)


async def completed(bench: Bench, jobs: list[str], numbers: Iterable[int] = range(PARTITIONS)) -> None:
    """Waits until the jobs of these partitions have completed."""
    await eventually(lambda: all(bench.has_completed(jobs[number], partition=number) for number in numbers), "the ends")


def names_of(numbers: list[int]) -> list[str]:
    return [NAMES[number] for number in numbers]


@in_virtual_time
async def test_what_runs_in_a_partition_that_stays_goes_on_and_what_is_lost_begins_again_elsewhere(bench: Bench) -> None:
    first, second = gated(), gated()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(first, log):
        jobs = await begun(bench, first)
        async with bench.engine(second, other):
            kept, lost = held_by(bench, log), held_by(bench, other)
            assert (len(kept), len(lost)) == (2, 2)
            await eventually(lambda: sorted(second.running) == names_of(lost), "the starts of the new owner")
            await passing(LONG)
            assert sorted(first.running) == names_of(kept)
            assert sorted(first.interrupted) == names_of(lost)
            first.open_gate(*NAMES)
            second.open_gate(*NAMES)
            await completed(bench, jobs)
            assert sorted(first.started) == [(name, 1) for name in NAMES]
            assert sorted(second.started) == [(name, 2) for name in names_of(lost)]
            assert [len(bench.claims(number)) for number in kept] == [1, 1]
            assert [len(bench.claims(number)) for number in lost] == [2, 2]


@in_virtual_time
async def test_a_partition_that_goes_and_comes_back_with_the_next_change_is_claimed_anew(bench: Bench) -> None:
    first, second = gated(), gated()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(first, log):
        jobs = await begun(bench, first)
        async with bench.engine(second, other):
            lost = held_by(bench, other)
            await eventually(lambda: sorted(second.running) == names_of(lost), "the starts of the new owner")
        await eventually(lambda: sorted(first.running) == NAMES, "the starts after its return")
        kept = [number for number in range(PARTITIONS) if number not in lost]
        assert [attempt for name, attempt in first.started if name in names_of(kept)] == [1, 1]
        assert sorted(attempt for name, attempt in first.started if name in names_of(lost)) == [1, 1, 3, 3]
        first.open_gate(*NAMES)
        await completed(bench, jobs)


@in_virtual_time
async def test_an_end_that_is_acknowledged_after_the_partition_went_counts_in_the_log_alone(bench: Bench) -> None:
    """The end of a job is on its way while its partition goes: the successor reads it, and does not run the job again."""
    first, second = gated(), gated()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(first, log):
        jobs = await begun(bench, first)
        held = log.hold_acknowledgements(STATE)
        first.open_gate(*NAMES)
        await held.caught(PARTITIONS)
        async with bench.engine(second, other):
            lost = held_by(bench, other)
            await passing(LONG)
            assert second.started == []
            held.release()
            await eventually(lambda: all(bench.committed(number) == 1 for number in range(PARTITIONS)), "all commits")
            assert sorted(first.started) == [(name, 1) for name in NAMES]
            assert all(bench.statuses(jobs[number]) == ["running", "completed"] for number in lost)


@in_virtual_time
async def test_an_attempt_that_does_not_stop_ends_under_the_lease_that_it_began_under(bench: Bench) -> None:
    """It was told to stop, and returns a result all the same: until then nobody else has its partition, and it counts."""
    first, second = gated(), gated()
    first.stubborn.update(NAMES)
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(first, log) as holder:
        jobs = await begun(bench, first)
        async with engine(bench, second, other):
            await eventually(lambda: len(held_by(bench, other)) == 2, "a share for each")
            kept, lost = held_by(bench, log), held_by(bench, other)
            await eventually(lambda: sorted(first.interrupted) == names_of(lost), "the order to stop")
            await passing(LONG)
            assert sorted(first.running) == NAMES
            assert [kinds(bench, number) for number in lost] == [["claim"]] * 2
            first.open_gate(*NAMES)
            await completed(bench, jobs)
            await passing(LONG)
            for number in range(PARTITIONS):
                writers = [(each["status"], each["instanceId"], each["attempt"]) for each in bench.written(jobs[number])]
                assert writers == [("running", holder.instance_id, 1), ("completed", holder.instance_id, 1)]
            assert second.started == []
            assert [kinds(bench, number) for number in lost] == [["claim", "handed-over", "claim"]] * 2
            assert [kinds(bench, number) for number in kept] == [["claim"]] * 2


@in_virtual_time
async def test_a_start_that_is_acknowledged_after_the_partition_went_begins_no_work(bench: Bench) -> None:
    """The partition is given back when the start is known, and taken back; only then it begins elsewhere."""
    first, second = gated(), gated()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(first, log):
        held = log.hold_acknowledgements(STATE)
        jobs = [bench.enqueue(name, number) for number, name in enumerate(NAMES)]
        await held.caught(PARTITIONS)
        async with engine(bench, second, other):
            await eventually(lambda: len(held_by(bench, other)) == 2, "a share for each")
            kept, lost = held_by(bench, log), held_by(bench, other)
            await passing(LONG)
            assert (first.started, second.started) == ([], [])
            assert [kinds(bench, number) for number in lost] == [["claim"]] * 2
            held.release()
            await eventually(lambda: sorted(second.running) == names_of(lost), "the starts of the new owner")
            await eventually(lambda: sorted(first.running) == names_of(kept), "the starts of what stayed")
            await passing(LONG)
            assert sorted(first.started) == [(name, 1) for name in names_of(kept)]
            assert sorted(second.started) == [(name, 2) for name in names_of(lost)]
            assert [bench.statuses(jobs[number]) for number in lost] == [["running", "queued", "running"]] * 2


@in_virtual_time
async def test_nothing_starts_while_the_group_deals_out_its_partitions(bench: Bench) -> None:
    worker = gated()
    worker.close_gate("behind")
    idle, newcomer = (Member(InMemoryLog(bench.cluster), QUEUE, bench.group) for _ in range(2))
    revoking, go_on = asyncio.Event(), asyncio.Event()

    async def hold_up(_: Collection[TopicPartition]) -> None:
        revoking.set()
        await go_on.wait()

    log = InMemoryLog(bench.cluster)
    async with bench.engine(worker, log), members(idle):
        await idle.joined(2)
        mine = held_by(bench, log)[0]
        first = bench.enqueue(NAMES[0], mine, key="k")
        behind = bench.enqueue("behind", mine, key="k")
        await eventually(lambda: worker.running == [NAMES[0]], "the first of the key")
        idle.when_revoked(hold_up)
        async with members(newcomer):
            await revoking.wait()
            worker.open_gate(NAMES[0])
            await eventually(lambda: bench.statuses(first) == ["running", "completed"], "its end")
            await passing(LONG / 3)
            assert bench.statuses(behind) == []
            go_on.set()
            await newcomer.joined(1)
        await idle.stop()
        worker.open_gate("behind")
        await eventually(lambda: bench.has_completed(first, behind, partition=mine), "the end of the second")
        assert worker.started == [(NAMES[0], 1), ("behind", 1)]


@in_virtual_time
async def test_what_stays_goes_on_while_a_claim_of_what_came_waits(bench: Bench) -> None:
    worker = GatedWorker()
    log = InMemoryLog(bench.cluster)
    leaving = Member(InMemoryLog(bench.cluster), QUEUE, bench.group)
    async with bench.engine(worker, log):
        async with members(leaving):
            await leaving.joined(2)
            kept = held_by(bench, log)
            come = [number for number in range(PARTITIONS) if number not in kept]
            holds = [log.hold_appends(STATE, partition=bench.state(number).partition) for number in come]
        await holds[0].caught()
        job = bench.enqueue("a", kept[0])
        await eventually(lambda: bench.has_completed(job, partition=kept[0]), "the end of a job of what stayed")
        late = bench.enqueue("b", come[0])
        await passing(LONG / 3)
        assert worker.names_started() == ["a"]
        for hold in holds:
            hold.release()
        await eventually(lambda: bench.has_completed(late, partition=come[0]), "the end of a job of what came")


@in_virtual_time
async def test_an_engine_that_was_evicted_keeps_its_leases_until_it_hears_of_it_and_what_comes_back_goes_on(bench: Bench) -> None:
    """It was taken for dead and not told: it works on under its leases, until a commit of its own is refused."""
    first, second = gated(), gated()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(first, log):
        jobs = await begun(bench, first)
        log.evict(bench.group)
        async with engine(bench, second, other):
            await eventually(lambda: len(held_by(bench, other)) == PARTITIONS, "all partitions for the successor")
            assert (second.started, first.interrupted) == ([], [])
            # Its commit is refused, it joins again, and what it is given it still has.
            await eventually(lambda: len(held_by(bench, log)) == 2, "a share for each")
            kept, lost = held_by(bench, log), held_by(bench, other)
            await eventually(lambda: sorted(second.running) == names_of(lost), "the starts of the successor")
            assert sorted(first.interrupted) == names_of(lost)
            first.open_gate(*NAMES)
            second.open_gate(*NAMES)
            await completed(bench, jobs)
            assert sorted(first.started) == [(name, 1) for name in NAMES]
            assert sorted(second.started) == [(name, 2) for name in names_of(lost)]
            assert [kinds(bench, number) for number in lost] == [["claim", "handed-over", "claim"]] * 2
            assert [kinds(bench, number) for number in kept] == [["claim"]] * 2


@in_virtual_time
async def test_an_engine_that_was_cut_off_loses_its_partitions_and_comes_back(tmp_path: Path) -> None:
    bench = lease_bench(tmp_path, partitions=PARTITIONS)
    first, second = gated(), gated()
    log, other = (InMemoryLog(bench.cluster, session_timeout=6.0) for _ in range(2))
    async with bench.engine(first, log):
        jobs = await begun(bench, first)
        log.cut_off()
        async with engine(bench, second, other):
            await seconds_until(lambda: first.running == [], "the end of all that ran here")
            assert (sorted(first.interrupted), second.started) == (NAMES, [])
            await seconds_until(lambda: sorted(second.running) == NAMES, "the starts of the successor")
            second.open_gate(*NAMES)
            await completed(bench, jobs)
            first.open_gate(*NAMES)
            await passing(LONG)
            log.reconnect()
            await eventually(lambda: len(held_by(bench, log)) == 2, "a share for each")
            await passing(LONG)
            for number, job in enumerate(jobs):
                state = bench.state_of(job, number)
                assert state is not None
                assert (state["status"], state["attempt"]) == ("completed", 2)
            assert sorted(first.started) == [(name, 1) for name in NAMES]
            late = bench.enqueue("late", held_by(bench, log)[0])
            await eventually(lambda: bench.has_completed(late, partition=held_by(bench, log)[0]), "a job after the return")
            assert first.names_started().count("late") == 1


@in_virtual_time
async def test_many_changes_in_a_row_lose_nothing_and_repeat_no_end(bench: Bench) -> None:
    first = GatedWorker()
    log = InMemoryLog(bench.cluster)
    jobs: list[tuple[str, int]] = []
    async with bench.engine(first, log):
        for round_number in range(6):
            second = GatedWorker()
            async with bench.engine(second, InMemoryLog(bench.cluster)):
                for number in range(20):
                    partition = number % PARTITIONS
                    jobs.append((bench.enqueue(f"r{round_number}-{number}", partition, key=f"k{partition}"), partition))
                await passing(0.1)
        await eventually(lambda: all(bench.has_completed(job, partition=number) for job, number in jobs), "all ends")
        for job, _ in jobs:
            assert bench.statuses(job).count("completed") == 1
        await eventually(lambda: sum(bench.cluster.committed_offsets(bench.group).values()) == len(jobs), "all commits")
        assert set(bench.cluster.committed_offsets(bench.group)) == {
            TopicPartition(QUEUE, number) for number in range(PARTITIONS)
        }
