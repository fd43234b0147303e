"""Claims and releases that fail, or are overtaken by a stop or a rebalance: none is left behind of which nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from headrace import WorkerEngine
from headrace.errors import BrokerError
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog
from support.leases import caught, engine, kinds, lease_bench, of_kind, seconds_until
from support.log import Member, members
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, loop_clock, passing
from support.virtual_time import in_virtual_time

LONG = 60.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path, partitions=2)


def held_by(bench: Bench, log: InMemoryLog) -> list[TopicPartition]:
    """The partitions that the group has given to a process."""
    given = bench.cluster.members(bench.group)
    return [partition for name, held in given.items() if name.startswith(f"{log.name}-") for partition in held]


def made(bench: Bench, log: InMemoryLog) -> WorkerEngine:
    engine = WorkerEngine(bench.settings, log=log, clock=loop_clock)
    engine.register_worker(GatedWorker())
    return engine


@in_virtual_time
async def test_a_claim_that_fails_takes_no_other_with_it(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    held = log.hold_acknowledgements(STATE, partition=bench.state(0).partition, matching=of_kind("claim"))
    log.refuse_appends(STATE, partition=bench.state(1).partition, matching=of_kind("claim"))
    async with engine(bench, GatedWorker(), log):
        await caught(held)
        there = bench.enqueue("there", 1)
        await seconds_until(lambda: bench.has_completed(there, partition=1), "the end there")
        held.release()
        here = bench.enqueue("here", 0)
        await seconds_until(lambda: bench.has_completed(here), "the end here")
        assert (kinds(bench, 0), kinds(bench, 1)) == (["claim"], ["claim"])


@in_virtual_time
async def test_a_claim_that_landed_unheard_is_claimed_anew_by_its_writer(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    log.lose_acknowledgements(STATE, partition=bench.state(0).partition, matching=of_kind("claim"))
    async with engine(bench, GatedWorker(), log):
        job = bench.enqueue("a", 0)
        assert await seconds_until(lambda: bench.has_completed(job), "the job's end") < 5
        assert kinds(bench, 0) == ["claim", "claim"]


@in_virtual_time
async def test_a_claim_that_landed_unheard_is_released_by_who_stops(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    log.lose_acknowledgements(STATE, partition=bench.state(0).partition, matching=of_kind("claim"))
    leaving = made(bench, log)
    await leaving.start()
    await seconds_until(lambda: kinds(bench, 0) == ["claim"], "the claim")
    await leaving.stop(grace_seconds=0)
    assert kinds(bench, 0) in (["claim", "stopped"], ["claim", "handed-over"])


@in_virtual_time
async def test_a_claim_is_read_back_however_often_the_reading_fails(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    held = log.hold_acknowledgements(STATE, partition=bench.state(0).partition, matching=of_kind("claim"))
    leaving = made(bench, log)
    await leaving.start()
    await caught(held)
    log.refuse_requests(BrokerError("The brokers are busy."))
    held.release()
    await passing(3)
    stopping = asyncio.create_task(leaving.stop(grace_seconds=0))
    await passing(1)
    log.accept_requests()
    await stopping
    assert kinds(bench, 0) in (["claim", "stopped"], ["claim", "handed-over"])


@in_virtual_time
async def test_a_stop_takes_no_release_back_that_is_on_its_way(bench: Bench) -> None:
    """Behind a renewal that is not answered yet."""
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    giving = made(bench, log)
    await giving.start()
    await seconds_until(lambda: [kinds(bench, 0), kinds(bench, 1)] == [["claim"], ["claim"]], "both claims")
    held = [log.hold_appends(STATE, partition=bench.state(n).partition, matching=of_kind("renewal")) for n in (0, 1)]
    for each in held:
        await caught(each)
    async with members(Member(other, QUEUE, bench.group)) as _:
        await passing(3)
        stopping = asyncio.create_task(giving.stop(grace_seconds=0))
        await passing(1)
        for each in held:
            each.release()
        await stopping
    assert sorted(kinds(bench, 0) + kinds(bench, 1)) == ["claim", "claim", "handed-over", "stopped"]


@in_virtual_time
async def test_nothing_is_claimed_while_the_group_is_dealing_out_its_partitions(bench: Bench) -> None:
    """A rebalance begins while it is asked what is committed, and takes long: every answer takes three seconds."""
    bench.cluster.latency = lambda: 1.5
    slow, third = (Member(InMemoryLog(bench.cluster), QUEUE, bench.group) for _ in range(2))
    may_go_on = asyncio.Event()

    async def stay(_: Collection[TopicPartition]) -> None:
        await may_go_on.wait()

    log = InMemoryLog(bench.cluster)
    async with members(slow):
        await slow.joined(2)
        async with engine(bench, GatedWorker(), log) as joining:
            await seconds_until(lambda: len(held_by(bench, log)) == 1, "its share")
            slow.when_revoked(stay)
            async with members(third):
                await passing(30)
                assert kinds(bench, of=joining.instance_id) + kinds(bench, 1, of=joining.instance_id) == []
                may_go_on.set()
