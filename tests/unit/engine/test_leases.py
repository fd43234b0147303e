"""A lease is held while it is renewed, by two clocks, and never beyond: rules F3, H1, H2 and H4 to H6 of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.ports import Committed, GroupConsumer, TopicPartition
from headrace.testing import Hold, InMemoryCluster, InMemoryLog
from support.leases import (
    TERM,
    Clocks,
    caught,
    engine,
    kinds,
    lease_bench,
    lease_records,
    of_kind,
    of_status,
    seconds_until,
)
from support.log import Member, members
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

RENEWAL = 3.0
OVER = 30.0
SESSION = 6.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


def gated(*names: str) -> GatedWorker:
    worker = GatedWorker()
    worker.close_gate(*names)
    return worker


async def running(bench: Bench, worker: GatedWorker, name: str = "a") -> str:
    """A job that runs; its id."""
    job = bench.enqueue(name)
    await seconds_until(lambda: name in worker.running, "the start")
    return job


# --- H1: time -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_lease_is_renewed_every_three_seconds_for_as_long_as_its_engine_runs(bench: Bench) -> None:
    worker = gated("a")
    async with engine(bench, worker) as holder:
        await running(bench, worker)
        await passing(600)
        claim, *renewals = lease_records(bench, of=holder.instance_id)
        assert [record.kind for record in renewals] == ["renewal"] * len(renewals)
        before = [claim, *renewals]
        gaps = [record.at - last.at for last, record in pairwise(renewals)]
        assert gaps == pytest.approx([RENEWAL] * len(gaps), abs=0.1)
        assert [record.fields["previous"] for record in renewals] == [record.offset for record in before[:-1]]
        assert {record.fields["epoch"] for record in renewals} == {claim.offset}
        assert (len(renewals), worker.interrupted) == (200, [])


@in_virtual_time
async def test_what_is_cut_off_has_stopped_before_its_successor_starts(bench: Bench) -> None:
    first, second = gated("a"), gated("a")
    log = InMemoryLog(bench.cluster, session_timeout=SESSION)
    async with engine(bench, first, log):
        job = await running(bench, first)
        await passing(60)
        log.cut_off()
        *_, last = lease_records(bench)
        begun = asyncio.get_running_loop().time()
        async with engine(bench, second):
            stopped = begun - last.at + await seconds_until(lambda: first.running == [], "the end here")
            assert 20 <= stopped <= TERM
            started = stopped + await seconds_until(lambda: second.running == ["a"], "the start there")
            # It came when the group missed the other, and watched from then on.
            assert OVER <= started < OVER + SESSION + 2
            second.open_gate("a")
            await seconds_until(lambda: bench.has_completed(job), "the job's end")
            assert second.started == [("a", 2)]


@in_virtual_time
async def test_the_term_counts_from_before_the_last_acknowledged_renewal_was_sent(bench: Bench) -> None:
    worker, log = gated("a"), InMemoryLog(bench.cluster)
    async with engine(bench, worker, log):
        await running(bench, worker)
        slow = log.hold_acknowledgements(STATE, matching=of_kind("renewal"))
        await caught(slow)
        await passing(15)
        log.hold_acknowledgements(STATE, matching=of_kind("renewal"))
        slow.release()
        assert await seconds_until(lambda: worker.running == [], "the end") <= TERM - 15
        log.end_faults()


@in_virtual_time
async def test_the_term_counts_from_before_the_claim_was_sent(bench: Bench) -> None:
    worker, log = gated("a"), InMemoryLog(bench.cluster)
    bench.enqueue("a")
    slow = log.hold_acknowledgements(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log):
        await caught(slow)
        await passing(15)
        log.hold_acknowledgements(STATE, matching=of_kind("renewal"))
        slow.release()
        await seconds_until(lambda: worker.running == ["a"], "the start")
        assert await seconds_until(lambda: worker.running == [], "the end") <= TERM - 15
        log.end_faults()


@pytest.mark.parametrize("jump", [Clocks.suspend, Clocks.move_steady, Clocks.move_wall])
@in_virtual_time
async def test_a_clock_that_jumps_ahead_ends_the_lease(bench: Bench, jump: Callable[[Clocks, float], None]) -> None:
    worker, clock = gated("a"), Clocks()
    async with engine(bench, worker, clock=clock):
        job = await running(bench, worker)
        jump(clock, 60)
        assert await seconds_until(lambda: worker.interrupted == ["a"], "the order to stop") <= RENEWAL
        await seconds_until(lambda: worker.running == ["a"], "the second attempt")
        worker.open_gate("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        first, second = bench.claims()
        assert [(snapshot["status"], snapshot["epoch"]) for snapshot in bench.written(job)] == [
            ("running", first.offset),
            ("running", second.offset),
            ("completed", second.offset),
        ]


@in_virtual_time
async def test_a_wall_clock_that_is_set_back_changes_nothing(bench: Bench) -> None:
    worker, clock = gated("a"), Clocks()
    async with engine(bench, worker, clock=clock):
        await running(bench, worker)
        clock.move_wall(-3_600)
        await passing(60)
        assert (kinds(bench), worker.interrupted) == (["claim"], [])


# --- F3 and H2: acknowledgements ------------------------------------------------------------------------------------------


@in_virtual_time
async def test_work_whose_start_is_acknowledged_after_the_lease_does_not_start(bench: Bench) -> None:
    worker, log, clock = GatedWorker(), InMemoryLog(bench.cluster), Clocks()
    async with engine(bench, worker, log, clock):
        await passing(1)
        held = log.hold_acknowledgements(STATE, matching=of_status("running"))
        job = bench.enqueue("a")
        await caught(held)
        clock.suspend(60)
        held.release()
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert worker.started == [("a", 2)]
        assert len(bench.claims()) == 2


@in_virtual_time
async def test_work_that_a_rebalance_held_up_until_the_lease_was_over_does_not_start(tmp_path: Path) -> None:
    bench, worker, clock = lease_bench(tmp_path, partitions=2), GatedWorker(), Clocks()
    log = InMemoryLog(bench.cluster)
    idle, newcomer = (Member(InMemoryLog(bench.cluster), QUEUE, bench.group) for _ in range(2))
    revoking, go_on = asyncio.Event(), asyncio.Event()

    async def hold_up(_: Collection[TopicPartition]) -> None:
        revoking.set()
        await go_on.wait()

    async with engine(bench, worker, log, clock), members(idle):
        await idle.joined(1)
        [mine] = {0, 1} - {partition.partition for partition in idle.held}
        await seconds_until(lambda: "claim" in kinds(bench, mine), "the claim")
        held = log.hold_acknowledgements(STATE, matching=of_status("running"))
        job = bench.enqueue("a", mine)
        await caught(held)
        idle.when_revoked(hold_up)
        async with members(newcomer):
            await revoking.wait()
            held.release()
            await passing(1)
            assert worker.started == []
            clock.suspend(60)
            go_on.set()
            await seconds_until(lambda: bench.has_completed(job, partition=mine), "the job's end")
        assert worker.started == [("a", 2)]


@in_virtual_time
async def test_an_end_that_is_acknowledged_after_the_lease_lets_nothing_go_on(bench: Bench) -> None:
    """The end counts when it is read under a new claim; what waited for it starts then, and not under the old one."""
    worker, log, clock = gated("a"), InMemoryLog(bench.cluster), Clocks()
    async with engine(bench, worker, log, clock):
        first = bench.enqueue("a", key="k")
        second = bench.enqueue("b", key="k")
        await seconds_until(lambda: worker.running == ["a"], "the start")
        held = log.hold_acknowledgements(STATE, matching=of_status("completed"))
        worker.open_gate("a")
        await caught(held)
        clock.suspend(60)
        held.release()
        await seconds_until(lambda: bench.has_completed(first, second), "all ends")
        _, claim = bench.claims()
        assert {snapshot["epoch"] for snapshot in bench.written(second)} == {claim.offset}
        assert worker.started == [("a", 1), ("b", 1)]


# --- H4: a member that the group has given up -----------------------------------------------------------------------------


class SilentCoordinator(InMemoryLog):
    """The way of a process to a cluster, of which the broker that keeps the group has no answer to commits, or refuses them."""

    def __init__(self, cluster: InMemoryCluster, answers_after: float) -> None:
        super().__init__(cluster)
        self.is_silent = False
        self._answers_after = answers_after

    def group_consumer(self, *arguments: Any) -> Any:
        consumer: GroupConsumer = super().group_consumer(*arguments)
        commit = consumer.commit

        async def commit_or_wait(offsets: Mapping[TopicPartition, Committed], *, timeout: float = 10.0) -> bool:
            if not self.is_silent:
                return await commit(offsets, timeout=timeout)
            await asyncio.sleep(min(timeout, self._answers_after))
            return False

        consumer.commit = commit_or_wait  # type: ignore[method-assign]
        return consumer


@pytest.mark.parametrize("answers_after", [0.0, 3_600.0])
@in_virtual_time
async def test_an_engine_that_was_evicted_and_not_told_gives_back_within_forty_seconds(
    bench: Bench, answers_after: float
) -> None:
    first, second = gated("a"), GatedWorker()
    log = SilentCoordinator(bench.cluster, answers_after)
    async with engine(bench, first, log) as evicted:
        job = await running(bench, first)
        await passing(60)
        log.is_silent = True
        log.evict(bench.group)
        async with engine(bench, second):
            took = await seconds_until(lambda: bench.has_completed(job), "the end at the successor")
            assert 30 < took < 42
            assert kinds(bench, of=evicted.instance_id) == ["claim", "handed-over"]
            assert (first.interrupted, second.started) == (["a"], [("a", 2)])


@in_virtual_time
async def test_an_engine_that_gave_back_for_want_of_an_answer_claims_anew_when_it_is_answered(bench: Bench) -> None:
    """The group had not given it up: nobody else comes for its partitions."""
    worker, log = gated("a"), SilentCoordinator(bench.cluster, 0.0)
    async with engine(bench, worker, log):
        job = await running(bench, worker)
        log.is_silent = True
        await seconds_until(lambda: kinds(bench) == ["claim", "handed-over"], "the release")
        await passing(60)
        assert kinds(bench) == ["claim", "handed-over"]
        log.is_silent = False
        assert await seconds_until(lambda: worker.running == ["a"], "the second attempt") < 10
        worker.open_gate("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert (kinds(bench), worker.started) == (["claim", "handed-over", "claim"], [("a", 1), ("a", 2)])


@in_virtual_time
async def test_an_idle_engine_finds_out_by_its_probe_that_it_was_evicted(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    async with engine(bench, GatedWorker(), log) as evicted:
        await passing(60)
        log.evict(bench.group)
        assert not bench.cluster.members(bench.group)
        assert await seconds_until(lambda: len(bench.cluster.members(bench.group)) == 1, "its return") <= 6
        await passing(60)
        assert kinds(bench, of=evicted.instance_id) == ["claim"], "nobody else came: its lease goes on"


@in_virtual_time
async def test_an_idle_engine_that_can_commit_keeps_its_partitions(bench: Bench) -> None:
    async with engine(bench, GatedWorker()):
        await passing(3_600)
        assert kinds(bench) == ["claim"]


# --- H5: no return ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_renewal_that_is_acknowledged_after_the_lease_lapsed_revives_nothing(bench: Bench) -> None:
    """Its own age is below the term; what counts is that the lease had ended meanwhile."""
    worker, log = gated("a"), InMemoryLog(bench.cluster)
    async with engine(bench, worker, log):
        job = await running(bench, worker)
        await passing(60)
        held = log.hold_acknowledgements(STATE, matching=of_kind("renewal"))
        await caught(held)
        *_, acknowledged, unheard = lease_records(bench)
        assert unheard.at - acknowledged.at == pytest.approx(RENEWAL, abs=0.1)
        await passing(20 - RENEWAL + 0.5)
        held.release()
        await seconds_until(lambda: worker.started == [("a", 1), ("a", 2)], "the second attempt")
        worker.open_gate("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert kinds(bench) == ["claim", "claim"]


# --- H6: failed sends -----------------------------------------------------------------------------------------------------


def refused(cluster: InMemoryCluster) -> Hold | None:
    cluster.refuse_appends(STATE, matching=of_kind("renewal"))
    return None


def unanswered(cluster: InMemoryCluster) -> Hold | None:
    cluster.lose_acknowledgements(STATE, matching=of_kind("renewal"))
    return None


def late(cluster: InMemoryCluster) -> Hold | None:
    return cluster.land_late(STATE, matching=of_kind("renewal"))


@pytest.mark.parametrize("failing", [refused, unanswered, late])
@in_virtual_time
async def test_a_renewal_that_fails_ends_the_claim(bench: Bench, failing: Callable[[InMemoryCluster], Hold | None]) -> None:
    worker = gated("a")
    async with engine(bench, worker):
        job = await running(bench, worker)
        hold = failing(bench.cluster)
        await seconds_until(lambda: worker.started == [("a", 1), ("a", 2)], "the second attempt")
        if hold is not None:
            hold.release()
        await passing(60)
        assert kinds(bench) == ["claim", "claim"]
        worker.open_gate("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        _, second = bench.claims()
        assert bench.written(job)[-1]["epoch"] == second.offset


# --- what cannot be stopped -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_engine_of_which_an_attempt_cannot_be_stopped_when_its_lease_ends_reports_a_crash(bench: Bench) -> None:
    worker, log = gated("a"), InMemoryLog(bench.cluster)
    worker.stubborn.add("a")
    async with engine(bench, worker, log) as stuck:
        await running(bench, worker)
        await passing(60)
        ended = asyncio.create_task(stuck.ended())
        log.cut_off()
        *_, last = lease_records(bench)
        begun = asyncio.get_running_loop().time()
        assert 24 < begun - last.at + await seconds_until(ended.done, "the report") < TERM + 0.1
        assert "cannot be stopped" in str(ended.result())
        worker.open_gate("a")


@in_virtual_time
async def test_an_engine_whose_attempts_stop_in_time_goes_on(bench: Bench) -> None:
    worker, clock = gated("a"), Clocks()
    async with engine(bench, worker, clock=clock) as going_on:
        await running(bench, worker)
        ended = asyncio.create_task(going_on.ended())
        clock.suspend(60)
        await seconds_until(lambda: worker.started == [("a", 1), ("a", 2)], "the second attempt")
        await passing(60)
        assert not ended.done()
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
