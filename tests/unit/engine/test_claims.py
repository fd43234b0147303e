"""Who may claim a partition, when, and what it knows then: rules C1 to C4, F1, F2 and O1 of the ownership protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing import InMemoryLog
from support.leases import Clocks, Instance, caught, engine, kinds, lease_bench, lease_records, of_kind, seconds_until
from support.log import Member, members
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

LONG = 60.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


@pytest.fixture
def by_own_clock(tmp_path: Path) -> Bench:
    """Its engines do not go by the brokers' clocks."""
    return lease_bench(tmp_path, lease_by_log_time=False)


# --- C1 and O1: waiting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_log_time", [True, False])
@in_virtual_time
async def test_a_partition_is_claimed_when_its_lease_is_released_and_not_before(tmp_path: Path, by_log_time: bool) -> None:
    bench, worker = lease_bench(tmp_path, lease_by_log_time=by_log_time), GatedWorker()
    other = Instance(bench, "other")
    other.claim()
    job = bench.enqueue("a")
    async with other.renewing(), engine(bench, worker) as waiter:
        await passing(LONG)
        assert kinds(bench) == ["claim"]
        assert worker.started == []
        other.release()
        assert await seconds_until(lambda: bench.has_completed(job), "the job's end") < 2
        assert kinds(bench, of=waiter.instance_id) == ["claim"]


@in_virtual_time
async def test_the_lease_of_an_instance_that_falls_silent_is_over_after_thirty_seconds(by_own_clock: Bench) -> None:
    bench, worker = by_own_clock, GatedWorker()
    other = Instance(bench, "other")
    other.claim()
    async with engine(bench, worker) as waiter:
        async with other.renewing():
            await passing(LONG)
        *_, last = lease_records(bench)
        await seconds_until(lambda: bool(kinds(bench, of=waiter.instance_id)), "a claim")
        [claim] = lease_records(bench, of=waiter.instance_id)[:1]
        assert 29.9 < claim.at - last.at < 33


@in_virtual_time
async def test_by_its_own_clock_a_waiter_knows_only_of_the_time_since_it_came(by_own_clock: Bench) -> None:
    bench, worker = by_own_clock, GatedWorker()
    Instance(bench, "other").claim()
    await passing(3_600)
    async with engine(bench, worker):
        assert 29.9 < await seconds_until(lambda: len(kinds(bench)) == 2, "a claim") < 33


@in_virtual_time
async def test_by_the_log_s_time_the_lease_of_an_instance_that_died_long_ago_is_over_at_once(bench: Bench) -> None:
    worker = GatedWorker()
    Instance(bench, "other").claim()
    job = bench.enqueue("a")
    await passing(36)
    async with engine(bench, worker):
        assert await seconds_until(lambda: bench.has_completed(job), "the job's end") < 3


@in_virtual_time
async def test_by_the_log_s_time_a_lease_is_not_over_before_thirty_five_seconds(bench: Bench) -> None:
    """The waiter asks the log about a second after it came."""
    Instance(bench, "other").claim()
    await passing(33)
    async with engine(bench, GatedWorker()):
        assert await seconds_until(lambda: len(kinds(bench)) == 2, "a claim") > 29.9, "as by its own clock"


@in_virtual_time
async def test_only_what_was_read_up_to_an_end_that_was_asked_for_after_the_time_tells_that_nobody_renewed(
    by_own_clock: Bench,
) -> None:
    bench, worker = by_own_clock, GatedWorker()
    other = Instance(bench, "other")
    other.claim()
    async with other.renewing(), engine(bench, worker):
        await passing(5)
        bench.cluster.withhold(bench.state())
        await passing(2 * LONG)
        assert kinds(bench) == ["claim"], "it was renewed, and the waiter could not read it"
        bench.cluster.give_out(bench.state())
        await passing(LONG)
        assert kinds(bench) == ["claim"]


@in_virtual_time
async def test_the_sleep_of_the_waiter_s_machine_ends_nobody_s_lease(by_own_clock: Bench) -> None:
    bench, clock = by_own_clock, Clocks()
    other = Instance(bench, "other")
    other.claim()
    async with other.renewing(), engine(bench, GatedWorker(), clock=clock):
        await passing(5)
        clock.suspend(3_600)
        await passing(5)
        assert kinds(bench) == ["claim"]


# --- C2: compare and set ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_claim_is_void_when_another_came_first_and_its_writer_waits_for_that(bench: Bench) -> None:
    worker, log, other = GatedWorker(), InMemoryLog(bench.cluster), Instance(bench, "other")
    job = bench.enqueue("a")
    held = log.hold_appends(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log) as late:
        await caught(held)
        epoch = other.claim()
        begun = other.begin(other.accepted(job))
        held.release()
        async with other.renewing():
            await passing(LONG)
            assert [record.instance_id for record in lease_records(bench) if record.kind == "claim"] == [
                "other",
                late.instance_id,
            ]
            assert worker.started == []
            other.complete(begun)
        state = bench.state_of(job)
        assert state is not None
        assert (state["status"], state["epoch"]) == ("completed", epoch), "a void claim fences nobody"
        other.release()
        *_, last = lease_records(bench, of="other")
        second = bench.enqueue("b")
        await seconds_until(lambda: bench.has_completed(second), "the end of the next")
        *_, claim = (record for record in lease_records(bench, of=late.instance_id) if record.kind == "claim")
        assert claim.fields["previous"] == last.offset
        assert worker.names_started() == ["b"]


@in_virtual_time
async def test_who_hears_late_of_its_claim_waits_for_the_one_that_came_after_it(by_own_clock: Bench) -> None:
    bench, log, other = by_own_clock, InMemoryLog(by_own_clock.cluster), Instance(by_own_clock, "other")
    held = log.hold_acknowledgements(STATE, matching=of_kind("claim"))
    async with engine(bench, GatedWorker(), log) as late:
        await caught(held)
        await passing(28)
        other.claim(previous=bench.cluster.ends()[bench.state()])
        held.release()
        await passing(25)
        assert kinds(bench) == ["claim", "claim"], "the lease of the other is not over"
        await seconds_until(lambda: len(kinds(bench, of=late.instance_id)) == 2, "a claim when it is")


@in_virtual_time
async def test_a_claim_is_void_when_the_lease_was_renewed_before_it(by_own_clock: Bench) -> None:
    """The renewal was on its way for so long that the lease looked over."""
    bench, worker = by_own_clock, GatedWorker()
    log, other = InMemoryLog(bench.cluster), Instance(bench, "other")
    other.claim()
    bench.enqueue("a")
    held = log.hold_appends(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log):
        await seconds_until(lambda: held.count == 1, "the claim")
        other.renew()
        held.release()
        async with other.renewing():
            await passing(LONG)
            assert kinds(bench) == ["claim", "claim"]
            assert worker.started == []
        assert await seconds_until(lambda: worker.names_started() == ["a"], "the start when it is over indeed") > 25


@in_virtual_time
async def test_of_two_engines_that_claim_at_once_one_has_the_partition(bench: Bench) -> None:
    """The group gave it to both: the first was evicted while its claim was on its way, and has not heard of it."""
    first, second = GatedWorker(), GatedWorker()
    first.close_gate("a")
    second.close_gate("a")
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    holds = [each.hold_appends(STATE, matching=of_kind("claim")) for each in (log, other)]
    bench.enqueue("a")
    async with engine(bench, first, log):
        await caught(holds[0])
        log.evict(bench.group)
        async with engine(bench, second, other):
            await caught(holds[1])
            holds[1].release()
            await seconds_until(lambda: second.running == ["a"], "the start")
            holds[0].release()
            await passing(LONG)
            assert (first.started, second.started) == ([], [("a", 1)])
            assert second.interrupted == []


# --- C3: reading back ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_written_just_before_a_claim_is_known_when_work_begins(bench: Bench) -> None:
    worker, log, other = GatedWorker(), InMemoryLog(bench.cluster), Instance(bench, "other")
    jobs = [bench.enqueue("ended"), bench.enqueue("begun"), bench.enqueue("new")]
    other.claim()
    begun = [other.begin(other.accepted(job)) for job in jobs[:2]]
    held = log.hold_appends(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log):
        await passing(5)
        other.release()
        await caught(held)
        other.complete(begun[0])
        held.release()
        await seconds_until(lambda: bench.committed() == 3, "all ends")
        assert worker.started == [("begun", 2), ("new", 1)]


@in_virtual_time
async def test_nothing_begins_before_the_claim_itself_is_read(bench: Bench) -> None:
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    job = bench.enqueue("a")
    held = log.hold_appends(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log):
        await caught(held)
        bench.cluster.withhold(bench.state())
        held.release()
        await passing(15)
        assert kinds(bench) == ["claim"]
        assert bench.statuses(job) == []
        bench.cluster.give_out()
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert kinds(bench) == ["claim"]


@in_virtual_time
async def test_a_claim_that_is_read_back_when_it_has_lapsed_is_worth_nothing(bench: Bench) -> None:
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    job = bench.enqueue("a")
    held = log.hold_appends(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log):
        await caught(held)
        bench.cluster.withhold(bench.state())
        held.release()
        await passing(25)
        bench.cluster.give_out()
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        _, second = bench.claims()
        assert {snapshot["epoch"] for snapshot in bench.written(job)} == {second.offset}


# --- C4: one at a time --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_rebalances_during_a_claim_send_no_other_beside_it(bench: Bench) -> None:
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    idle = [Member(InMemoryLog(bench.cluster), QUEUE, bench.group) for _ in range(3)]
    held = log.hold_acknowledgements(STATE, matching=of_kind("claim"))
    async with engine(bench, worker, log):
        await caught(held)
        for member in idle:
            async with members(member):
                await passing(2)
            await passing(2)
        assert kinds(bench) == ["claim"]
        held.release()
        job = bench.enqueue("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert kinds(bench) == ["claim"], "what was claimed is used"


# --- F1 and F2: whose word counts -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_last_words_of_a_predecessor_are_void_for_the_next_owner(bench: Bench) -> None:
    worker, frozen, successor = GatedWorker(), Instance(bench, "frozen"), Instance(bench, "successor")
    jobs = [bench.enqueue("said-too-late"), bench.enqueue("said-in-time")]
    frozen.claim()
    begun = [frozen.begin(frozen.accepted(job)) for job in jobs]
    frozen.complete(begun[1])
    successor.claim()
    frozen.complete(begun[0])
    successor.release()
    async with engine(bench, worker):
        await seconds_until(lambda: bench.committed() == 2, "all ends")
        assert worker.started == [("said-too-late", 2)]
        state = bench.state_of(jobs[0])
        assert state is not None
        assert state["result"] == {"name": "said-too-late"}
        assert [attempt["status"] for attempt in state["attempts"]] == ["interrupted", "completed"]


@in_virtual_time
async def test_a_frozen_engine_that_thaws_is_not_believed(bench: Bench) -> None:
    """Its clocks stood still with it, so that it takes its lease for good, and its network was cut."""
    first, second, third = GatedWorker(), GatedWorker(concurrency=1), GatedWorker()
    for worker in (first, second):
        worker.close_gate("a", "b")
    clock, log = Clocks(), InMemoryLog(bench.cluster, session_timeout=6.0)
    async with engine(bench, first, log, clock) as frozen:
        jobs = [bench.enqueue("a"), bench.enqueue("b")]
        await seconds_until(lambda: len(first.running) == 2, "all starts")
        clock.stop()
        log.cut_off()
        async with engine(bench, second):
            # Of the second job it writes nothing: there is room for one.
            await seconds_until(lambda: second.running == ["a"], "the start at the successor")
            first.open_gate("a", "b")
            await seconds_until(lambda: first.running == [], "the ends in the frozen engine")
            log.reconnect()
            await seconds_until(lambda: bench.statuses(jobs[1]) == ["running", "completed"], "its last words")
            last_words = bench.written(jobs[1])[-1]
            assert last_words["instanceId"] == frozen.instance_id
            assert not bench.has_completed(*jobs)
        async with engine(bench, third):
            await seconds_until(lambda: bench.has_completed(*jobs), "all ends")
            ends = [bench.state_of(job) for job in jobs]
            assert [end["attempt"] for end in ends if end is not None] == [3, 2]


@in_virtual_time
async def test_of_a_job_s_snapshots_the_highest_counts_and_nothing_follows_an_end_within_an_epoch(bench: Bench) -> None:
    worker, other = GatedWorker(), Instance(bench, "other")
    jobs = [bench.enqueue("ended"), bench.enqueue("twice")]
    other.claim()
    first, twice = (other.begin(other.accepted(job)) for job in jobs)
    other.complete(first)
    other.write({**first, "attempt": 2, "sequence": 1})
    other.write({**twice, "attempt": 2, "attempts": [{**twice["attempts"][0], "attempt": 2}]})
    other.write(twice)
    other.release()
    async with engine(bench, worker):
        await seconds_until(lambda: bench.committed() == 2, "all ends")
        assert worker.started == [("twice", 3)]
