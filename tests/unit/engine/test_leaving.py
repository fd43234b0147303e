"""An engine that stops gives others at once what it does not need, and keeps the rest until that has ended: H3, H4 and R1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace import WorkerEngine
from headrace.testing import InMemoryLog
from support.leases import caught, engine, kinds, lease_bench, lease_records, of_kind, of_status, seconds_until
from support.log import Member, members
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, ended, passing
from support.virtual_time import in_virtual_time

AT_ONCE = 2.0
GRACE = 60.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)
PARTITIONS = 4


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path, partitions=PARTITIONS)


@asynccontextmanager
async def stopping(leaving: WorkerEngine, grace: float = GRACE) -> AsyncIterator[asyncio.Task[bool]]:
    """The engine stops meanwhile."""
    stop = asyncio.create_task(leaving.stop(grace_seconds=grace))
    try:
        await asyncio.sleep(0)
        yield stop
    finally:
        leaving.hurry()
        await stop


async def all_held(bench: Bench, *engines: WorkerEngine) -> dict[str, list[int]]:
    """Waits until the engines have all partitions among them, in equal parts; which, by instance."""

    def look() -> dict[str, list[int]]:
        return {each.instance_id: sorted(place.partition for group in each.groups for place in group.ready) for each in engines}

    share = PARTITIONS // len(engines)
    await seconds_until(lambda: all(len(held) == share for held in look().values()), "a share for each")
    return look()


@in_virtual_time
async def test_what_nothing_runs_of_goes_to_others_at_once_and_the_rest_when_it_has_ended(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("long")
    async with engine(bench, first) as leaving, engine(bench, second, InMemoryLog(bench.cluster)) as staying:
        busy, idle = (await all_held(bench, leaving, staying))[leaving.instance_id]
        long = bench.enqueue("long", busy)
        await seconds_until(lambda: first.running == ["long"], "the start")
        async with stopping(leaving) as stop:
            free, behind = bench.enqueue("free", idle), bench.enqueue("behind", busy)
            assert await seconds_until(lambda: bench.has_completed(free, partition=idle), "what waited in the other") < AT_ONCE
            assert kinds(bench, idle, of=leaving.instance_id)[-1] == "stopped"
            await passing(40)
            assert (first.running, first.interrupted) == (["long"], []), "the grace is not over, and nor is a lease"
            *_, last = lease_records(bench, busy)
            assert (last.kind, last.instance_id) == ("renewal", leaving.instance_id)
            assert asyncio.get_running_loop().time() - last.at < 5
            assert bench.written(behind) == [], "it waits by C1, whoever the group has given its partition to"
            first.open_gate("long")
            assert await seconds_until(lambda: bench.has_completed(behind, partition=busy), "what waited behind it") < AT_ONCE
            assert await stop
        done = ended(bench, long, busy)
        assert (done.status, done.attempt) == ("completed", 1)
        assert sorted(second.started) == [("behind", 1), ("free", 1)], "no commit names the end of the long one: a checkpoint"
        await seconds_until(lambda: bench.committed(busy) == 2, "the commit of the next owner")


@in_virtual_time
async def test_what_outlasts_the_grace_is_interrupted_then_and_runs_elsewhere_at_once(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("long")
    async with engine(bench, first) as leaving, engine(bench, second, InMemoryLog(bench.cluster)) as staying:
        busy, _ = (await all_held(bench, leaving, staying))[leaving.instance_id]
        job = bench.enqueue("long", busy)
        await seconds_until(lambda: first.running == ["long"], "the start")
        async with stopping(leaving) as stop:
            took = await seconds_until(lambda: first.interrupted == ["long"], "the end of the grace")
            assert GRACE - 1 < took < GRACE + 1
            assert await seconds_until(lambda: bench.has_completed(job, partition=busy), "the next attempt") < AT_ONCE
            assert await stop
        history = [(each.attempt, each.status) for each in ended(bench, job, busy).attempts]
        assert history == [(1, "interrupted"), (2, "completed")]
        assert second.started == [("long", 2)]


@in_virtual_time
async def test_what_ends_in_the_first_moment_is_committed_still(bench: Bench) -> None:
    worker = GatedWorker()
    worker.close_gate("short", "long")
    async with engine(bench, worker) as leaving:
        await all_held(bench, leaving)
        bench.enqueue("short", 0)
        bench.enqueue("long", 1)
        await seconds_until(lambda: sorted(worker.running) == ["long", "short"], "the starts")
        async with stopping(leaving):
            worker.open_gate("short")
            await seconds_until(lambda: bench.committed(0) == 1, "the commit")
            assert worker.running == ["long"]


@in_virtual_time
async def test_nothing_waits_for_a_claim_that_was_under_way_when_the_stop_began(bench: Bench) -> None:
    """It is given back as soon as it is read, while another partition's attempt runs on."""
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("long")
    log = InMemoryLog(bench.cluster)
    guest = Member(InMemoryLog(bench.cluster), QUEUE, bench.group)
    async with engine(bench, first, log) as leaving:
        await all_held(bench, leaving)
        async with members(guest):
            await guest.joined(PARTITIONS // 2)
            taken = sorted(place.partition for place in guest.held)
            kept = next(number for number in range(PARTITIONS) if number not in taken)
            bench.enqueue("long", kept)
            await seconds_until(lambda: first.running == ["long"], "the start")
            await seconds_until(lambda: all(kinds(bench, number)[-1] == "handed-over" for number in taken), "the releases")
            held_back = log.hold_acknowledgements(STATE, matching=of_kind("claim"))
        await caught(held_back)
        waiting = [bench.enqueue(f"waits-{number}", number) for number in taken]
        async with engine(bench, second, InMemoryLog(bench.cluster)), stopping(leaving):
            await passing(5)
            assert second.started == [], "those claims are valid"
            held_back.release()
            await seconds_until(
                lambda: all(bench.has_completed(job, partition=number) for job, number in zip(waiting, taken, strict=True)),
                "what waited in them",
            )
            assert first.running == ["long"]
            assert {name for name, _ in second.started} == {f"waits-{number}" for number in taken}


@in_virtual_time
async def test_a_rebalance_that_begins_with_the_stop_gives_the_leaving_engine_nothing(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("long")
    async with engine(bench, first) as leaving:
        await all_held(bench, leaving)
        bench.enqueue("long", 0)
        await seconds_until(lambda: first.running == ["long"], "the start")
        claims = [len(kinds(bench, number, of=leaving.instance_id)) for number in range(PARTITIONS)]
        async with stopping(leaving), engine(bench, second, InMemoryLog(bench.cluster)) as joining:
            jobs = {number: bench.enqueue(f"p{number}", number) for number in range(1, PARTITIONS)}
            took = await seconds_until(
                lambda: all(bench.has_completed(job, partition=number) for number, job in jobs.items()), "the jobs of the others"
            )
            assert took < 5
            now = [len(kinds(bench, number, of=leaving.instance_id)) for number in range(PARTITIONS)]
            assert now == [claims[0], *(count + 1 for count in claims[1:])], "a release each, and no claim"
            assert len(bench.cluster.members(bench.group)) == 1
            assert (first.running, first.interrupted) == (["long"], [])
            first.open_gate("long")
            await seconds_until(lambda: len(joining.groups[0].ready) == PARTITIONS, "all partitions")
        assert first.started == [("long", 1)] and ("long", 2) not in second.started


@in_virtual_time
async def test_an_attempt_whose_start_is_acknowledged_after_the_order_to_stop_begins_and_has_the_grace(bench: Bench) -> None:
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    worker.close_gate("short")
    async with engine(bench, worker, log) as leaving:
        await all_held(bench, leaving)
        held_back = log.hold_acknowledgements(STATE, matching=of_status("running"))
        job = bench.enqueue("short", 0)
        await caught(held_back)
        async with stopping(leaving) as stop:
            waiting = bench.enqueue("waits", 0)
            await passing(5)
            assert not stop.done() and worker.started == []
            held_back.release()
            await seconds_until(lambda: worker.running == ["short"], "the start")
            assert "stopped" not in kinds(bench, 0)
            worker.open_gate("short")
            assert await seconds_until(stop.done, "the end of the engine") < AT_ONCE
            assert await stop
        done = ended(bench, job)
        assert [(each.attempt, each.status) for each in done.attempts] == [(1, "completed")]
        assert bench.written(waiting) == []


@in_virtual_time
async def test_an_attempt_whose_start_is_acknowledged_after_the_grace_does_not_begin(bench: Bench) -> None:
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    async with engine(bench, worker, log) as leaving:
        await all_held(bench, leaving)
        held_back = log.hold_acknowledgements(STATE, matching=of_status("running"))
        job = bench.enqueue("late", 0)
        await caught(held_back)
        async with stopping(leaving, grace=2) as stop:
            await passing(3)
            assert not stop.done()
            held_back.release()
            assert await stop
        assert (worker.started, bench.statuses(job)) == ([], ["running", "queued"])
        assert kinds(bench, 0)[-1] == "stopped"


# --- while the brokers are away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent_before", [0.0, 8.0])
@pytest.mark.parametrize("grace", [12.0, 30.0])
@in_virtual_time
async def test_a_stop_ends_within_its_grace_though_the_brokers_are_away(bench: Bench, grace: float, silent_before: float) -> None:
    """The time that is needed for closing is the attempts'."""
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    worker.close_gate("long")
    async with engine(bench, worker, log) as leaving:
        await all_held(bench, leaving)
        bench.enqueue("long", 0)
        await seconds_until(lambda: worker.running == ["long"], "the start")
        log.cut_off()
        await passing(silent_before)
        begun = asyncio.get_running_loop().time()
        stop = asyncio.create_task(leaving.stop(grace_seconds=grace))
        # Its lease ends 20 s after it was renewed for the last time.
        least = min(grace - 9, 16) - silent_before
        assert await seconds_until(lambda: worker.interrupted == ["long"], "the order to end") > least
        assert await stop
        assert asyncio.get_running_loop().time() - begun < grace + 1


@in_virtual_time
async def test_a_start_that_is_never_acknowledged_holds_up_no_stop(bench: Bench) -> None:
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    async with engine(bench, worker, log) as leaving:
        await all_held(bench, leaving)
        held_back = log.hold_acknowledgements(STATE, matching=of_status("running"))
        bench.enqueue("a", 0)
        await caught(held_back)
        log.cut_off()
        begun = asyncio.get_running_loop().time()
        assert await leaving.stop(grace_seconds=12)
        assert asyncio.get_running_loop().time() - begun < 13
        assert worker.started == []


@in_virtual_time
async def test_brokers_that_are_slow_get_the_releases_all_the_same(bench: Bench) -> None:
    first = GatedWorker()
    bench.cluster.latency = lambda: 0.4  # and as much for the answer
    log = InMemoryLog(bench.cluster)
    first.close_gate("p0", "p1")
    async with engine(bench, first, log) as leaving:
        await all_held(bench, leaving)
        jobs = [bench.enqueue(f"p{number}", number) for number in (0, 1)]
        await seconds_until(lambda: len(first.running) == 2, "the starts")
        assert await leaving.stop(grace_seconds=0)
        assert [kinds(bench, number) for number in range(PARTITIONS)] == [["claim", "stopped"]] * PARTITIONS
        assert [bench.statuses(job)[-1] for job in jobs] == ["queued", "queued"]
