"""What is lost for a while comes back: slots, records, partitions; and where nothing can, the engine ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import BrokerError
from headrace.ports import Committed, GroupListener, TopicPartition
from headrace.testing import InMemoryLog
from headrace.testing.consumer import InMemoryGroupConsumer
from support.leases import caught, engine, kinds, lease_bench, lease_records, of_kind, seconds_until
from support.log import Member, eventually, members
from support.memory_engines import DEAD_LETTERS, STATE, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

LONG = 60.0
HOUR = 3600.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path, partitions=2)


class Uncommitting(InMemoryLog):
    """While `failing`, its commits fail, and nothing else does: the group takes the process for alive."""

    failing = True

    def group_consumer(self, topic: str, group: str, listener: GroupListener) -> InMemoryGroupConsumer:
        consumer = super().group_consumer(topic, group, listener)
        taken = consumer.commit

        async def commit(offsets: Mapping[TopicPartition, Committed], *, timeout: float = 10.0) -> bool:
            return not self.failing and await taken(offsets, timeout=timeout)

        consumer.commit = commit  # type: ignore[method-assign]
        return consumer


def share_of(bench: Bench, log: InMemoryLog) -> list[int]:
    """The numbers of the partitions that the group has given to a process."""
    dealt = bench.cluster.members(bench.group)
    return sorted(source.partition for name, held in dealt.items() if name.startswith(f"{log.name}-") for source in held)


def of_job(record: Any) -> bool:
    return not record.key.startswith((b"lease/", b"checkpoint/"))


# --- slots and records --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_slot_that_a_hand_over_frees_is_used_at_once(bench: Bench) -> None:
    """The start of a job is acknowledged when its partition has gone: nothing ran, and nobody says that it ended."""
    worker, log, other = GatedWorker(concurrency=1), InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with bench.engine(worker, log):
        hold = log.hold_acknowledgements(STATE, partition=bench.state(1).partition, matching=of_job)
        bench.enqueue("goes", 1)
        await caught(hold)
        stays = bench.enqueue("stays", 0)
        async with bench.engine(GatedWorker(), other):
            assert (share_of(bench, log), share_of(bench, other)) == ([0], [1])
            assert worker.started == []
            hold.release()
            assert await seconds_until(lambda: bench.has_completed(stays), "the job that stayed") < 1
            assert worker.started == [("stays", 1)]


@in_virtual_time
async def test_no_record_is_lost_when_a_full_partition_loses_its_claim(tmp_path: Path) -> None:
    """It was paused for being full; that must not be taken for a pause of the other, which is full then."""
    bench, worker = lease_bench(tmp_path, partitions=2, buffer_per_partition=2), GatedWorker(concurrency=2)
    worker.close_gate("s0", "s1", "b0")
    worker.stubborn.add("s0")
    async with bench.engine(worker):
        for name in ("s0", "s1", "s2"):
            bench.enqueue(name, 0)
        await passing(3)  # full for longer than a second
        bench.cluster.refuse_appends(STATE, partition=bench.state(0).partition)
        worker.open_gate("s1")
        await passing(0.2)
        jobs = [bench.enqueue(f"b{number}", 1) for number in range(2)]
        await passing(0.3)
        jobs += [bench.enqueue(f"b{number}", 1) for number in range(2, 6)]
        await passing(3)
        jobs.append(bench.enqueue("b6", 1))
        worker.open_gate("b0")
        await passing(5)
        worker.open_gate("s0")
        await seconds_until(lambda: bench.has_completed(*jobs, partition=1), "all of the other partition")
        await seconds_until(lambda: bench.committed(1) == len(jobs), "the commit")
        names = [name for name in worker.names_started() if name.startswith("b")]
        assert sorted(names) == [f"b{number}" for number in range(7)]


# --- partitions ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_given_back_because_commits_failed_is_taken_back_when_they_succeed(bench: Bench) -> None:
    worker, log = GatedWorker(), Uncommitting(bench.cluster)
    async with bench.engine(worker, log):
        await seconds_until(lambda: [kinds(bench, number)[-1] for number in (0, 1)] == ["handed-over"] * 2, "the releases")
        await passing(HOUR)
        assert [kinds(bench, number) for number in (0, 1)] == [["claim", "handed-over"]] * 2
        jobs = [bench.enqueue(f"p{number}", number) for number in (0, 1)]
        await passing(LONG)
        assert worker.started == []
        log.failing = False
        for number, job in enumerate(jobs):
            assert await seconds_until(lambda: bench.has_completed(job, partition=number), "the job") < LONG  # noqa: B023
            assert kinds(bench, number) == ["claim", "handed-over", "claim"]


@in_virtual_time
async def test_what_is_given_back_is_not_fed_any_more(tmp_path: Path) -> None:
    bench, worker = lease_bench(tmp_path, buffer_per_partition=4), GatedWorker(concurrency=2)
    bench.cluster.latency = lambda: 0.005
    worker.close_gate("j0", "j1")
    log = Uncommitting(bench.cluster)
    async with bench.engine(worker, log):
        jobs = [bench.enqueue(f"j{number}") for number in range(200)]
        await seconds_until(lambda: kinds(bench)[-1] == "handed-over", "the release")
        await passing(LONG)
        assert sorted(worker.interrupted) == ["j0", "j1"]
        assert [job for job in jobs if bench.written(job)] == jobs[:2], "of others nothing was written"
        log.failing = False
        worker.open_gate("j0", "j1")
        await seconds_until(lambda: bench.has_completed(*jobs), "all jobs")
        assert worker.started == [("j0", 1), ("j1", 1), ("j0", 2), ("j1", 2), *((f"j{number}", 1) for number in range(2, 200))]


@in_virtual_time
async def test_what_is_held_is_given_back_when_a_rebalance_does_not_end(bench: Bench) -> None:
    """Nothing can be committed while the group deals: whom it does not take back would renew its leases for ever."""
    worker, go_on = GatedWorker(), asyncio.Event()
    worker.close_gate("a")
    idle, newcomer = (Member(InMemoryLog(bench.cluster, session_timeout=HOUR), QUEUE, bench.group) for _ in range(2))
    async with bench.engine(worker) as running:
        async with members(idle):
            await idle.joined(1)
            [mine] = {0, 1} - {source.partition for source in idle.held}
            job = bench.enqueue("a", mine)
            await eventually(lambda: worker.running == ["a"], "the start")
            idle.when_revoked(lambda _: go_on.wait())
            async with members(newcomer):
                seconds = await seconds_until(lambda: kinds(bench, mine, of=running.instance_id)[-1] == "handed-over", "release")
                assert 30 < seconds < 50
                assert worker.interrupted == ["a"]
                await passing(LONG)
                assert kinds(bench, mine)[-1] == "handed-over"
                go_on.set()
        worker.open_gate("a")
        await seconds_until(lambda: bench.has_completed(job, partition=mine), "the end")
        assert worker.started == [("a", 1), ("a", 2)]


@in_virtual_time
async def test_a_hand_over_does_not_wait_for_a_dead_letter(bench: Bench) -> None:
    """The next owner writes it again."""
    log, other, second = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster), GatedWorker()
    async with bench.engine(GatedWorker(), log):
        hold = log.hold_appends(DEAD_LETTERS)
        bench.put(1, b"no job")
        await caught(hold)
        async with engine(bench, second, other):
            good = bench.enqueue("good", 1)
            assert await seconds_until(lambda: bench.has_completed(good, partition=1), "the job behind it") < LONG
            assert (share_of(bench, other), second.names_started()) == ([1], ["good"])
            await seconds_until(lambda: bench.committed(1) == 2, "the commit")
            assert [letter.value for letter in bench.cluster.topic_records(DEAD_LETTERS)] == [b"no job"]
        log.end_faults()


# --- the end ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_engine_whose_writer_has_failed_ends(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    async with bench.engine(GatedWorker(), log) as running:
        log.break_writers(BrokerError("an error that nobody expected"))
        async with asyncio.timeout(10):
            assert "an error that nobody expected" in str(await running.ended())


@in_virtual_time
async def test_an_engine_ends_when_the_group_gives_it_up_and_a_job_cannot_be_stopped(bench: Bench) -> None:
    """Its lease is renewed as long as it lives: nobody else could ever run the jobs (H4)."""
    worker, log = GatedWorker(), Uncommitting(bench.cluster)
    worker.close_gate("a")
    worker.stubborn.add("a")
    async with bench.engine(worker, log) as running:
        bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        async with asyncio.timeout(LONG):
            assert "cannot be stopped" in str(await running.ended())
        assert worker.interrupted == ["a"]
        worker.open_gate("a")


@in_virtual_time
async def test_an_engine_whose_lease_is_over_waits_for_no_grace(tmp_path: Path) -> None:
    """Another may run its jobs already."""
    grace = 300.0
    bench, worker = lease_bench(tmp_path, grace_seconds=grace), GatedWorker()
    worker.close_gate("a")
    worker.stubborn.add("a")
    log = InMemoryLog(bench.cluster)
    async with bench.engine(worker, log) as running:
        bench.enqueue("a")
        await eventually(lambda: worker.running == ["a"], "the start")
        log.cut_off()
        await running.ended()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert not await running.stop()
        assert loop.time() - begun < 20 < grace
        log.reconnect()
        worker.open_gate("a")
        await eventually(lambda: worker.running == [], "its end")


@in_virtual_time
async def test_nothing_is_claimed_after_the_stop_when_a_rebalance_came_between(bench: Bench) -> None:
    """The take-over that the rebalance began waits for the one before it: both end."""
    log = InMemoryLog(bench.cluster)
    hold = log.hold_appends(STATE, matching=of_kind("claim"))
    idle = Member(InMemoryLog(bench.cluster), QUEUE, bench.group)
    async with engine(bench, GatedWorker(), log) as running:
        await caught(hold)
        async with members(idle):
            await idle.joined(1)
            await running.stop(grace_seconds=0)
            left = {task.get_name() for task in asyncio.all_tasks()}
            assert not [name for name in left if name.startswith(("takeover", "hand-over", "leases"))]
            hold.release()
            await passing(LONG)
            assert [record.kind for number in (0, 1) for record in lease_records(bench, number)].count("renewal") == 0
