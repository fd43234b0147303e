"""A partition that goes to another engine is given back as soon as nothing of it runs, and no sooner: rule R1 of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog, StoredRecord
from support.leases import caught, engine, kinds, lease_bench, lease_records, of_kind, seconds_until
from support.log import Member, members
from support.memory_engines import STATE, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

AT_ONCE = 2.0
LONG = 60.0
QUEUE = TOPICS.jobs_name(GatedWorker.name)
NAMES = ["p0", "p1"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path, partitions=2)


def gated() -> GatedWorker:
    """A worker whose jobs, one for each partition, wait."""
    worker = GatedWorker()
    worker.close_gate(*NAMES)
    return worker


async def begun(bench: Bench, worker: GatedWorker) -> list[str]:
    """A job in each partition, of which all run; their ids."""
    jobs = [bench.enqueue(name, number) for number, name in enumerate(NAMES)]
    await seconds_until(lambda: sorted(worker.running) == NAMES, "all starts")
    return jobs


def held_by(bench: Bench, log: InMemoryLog) -> list[int]:
    """The numbers of the partitions that the group has given to a process."""
    members = bench.cluster.members(bench.group)
    return sorted(partition.partition for name, held in members.items() if name.startswith(f"{log.name}-") for partition in held)


async def share_of(bench: Bench, log: InMemoryLog) -> int:
    """Waits until a process was given one partition; which."""
    await seconds_until(lambda: len(held_by(bench, log)) == 1, "a share")
    return held_by(bench, log)[0]


# --- handing over -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_runs_at_a_hand_over_is_queued_again_and_runs_elsewhere_at_once(bench: Bench) -> None:
    first, second = gated(), gated()
    other = InMemoryLog(bench.cluster)
    async with engine(bench, first) as giving:
        jobs = await begun(bench, first)
        async with engine(bench, second, other) as taking:
            lost = await share_of(bench, other)
            assert await seconds_until(lambda: second.running == [NAMES[lost]], "the start there") < AT_ONCE
            assert first.interrupted == [NAMES[lost]]
            second.open_gate(NAMES[lost])
            await seconds_until(lambda: bench.has_completed(jobs[lost], partition=lost), "the end there")
            assert second.started == [(NAMES[lost], 2)]
            history = [
                (snapshot["status"], snapshot["attempt"], [attempt["status"] for attempt in snapshot["attempts"]])
                for snapshot in bench.written(jobs[lost])
            ]
            assert history == [
                ("running", 1, ["running"]),
                ("queued", 1, ["interrupted"]),
                ("running", 2, ["interrupted", "running"]),
                ("completed", 2, ["interrupted", "completed"]),
            ]
            writers = [attempt["instanceId"] for attempt in bench.written(jobs[lost])[-1]["attempts"]]
            assert writers == [giving.instance_id, taking.instance_id]
            assert kinds(bench, lost) == ["claim", "handed-over", "claim"]
            claim, release, _ = (record for record in lease_records(bench, lost) if record.kind != "renewal")
            assert release.fields["epoch"] == claim.offset


@in_virtual_time
async def test_the_release_comes_after_the_last_word_of_what_was_interrupted(bench: Bench) -> None:
    """Until that is acknowledged the partition is kept."""
    first, second = gated(), GatedWorker()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    async with engine(bench, first, log):
        jobs = await begun(bench, first)
        held = log.hold_acknowledgements(STATE, matching=lambda record: b'"interrupted"' in (record.value or b""))
        async with engine(bench, second, other):
            lost = await share_of(bench, other)
            await caught(held)
            await passing(10)
            assert kinds(bench, lost) == ["claim"]
            held.release()
            assert await seconds_until(lambda: bench.has_completed(jobs[lost], partition=lost), "the end there") < AT_ONCE
            assert kinds(bench, lost) == ["claim", "handed-over", "claim"]


@in_virtual_time
async def test_a_partition_with_an_attempt_that_does_not_stop_is_kept_and_renewed_until_that_ends(bench: Bench) -> None:
    first, second = gated(), GatedWorker()
    first.stubborn.update(NAMES)
    other = InMemoryLog(bench.cluster)
    async with engine(bench, first) as giving:
        jobs = await begun(bench, first)
        async with engine(bench, second, other):
            lost = await share_of(bench, other)
            behind = bench.enqueue("behind", lost)
            await passing(2 * LONG)
            assert (first.interrupted, second.started) == ([NAMES[lost]], [])
            *_, last = lease_records(bench, lost)
            assert (last.kind, last.instance_id) == ("renewal", giving.instance_id)
            assert kinds(bench, lost) == ["claim"]
            first.open_gate(NAMES[lost])
            assert await seconds_until(lambda: bench.has_completed(behind, partition=lost), "what came behind") < AT_ONCE
            assert kinds(bench, lost) == ["claim", "handed-over", "claim"]
            # It came to its end under a lease: that counts, and nobody does it again.
            assert bench.statuses(jobs[lost]) == ["running", "completed"]
            assert second.names_started() == ["behind"]
            first.open_gate(*NAMES)


@in_virtual_time
async def test_what_waits_in_a_partition_that_is_handed_over_is_left_to_its_next_owner(bench: Bench) -> None:
    first, second = GatedWorker(concurrency=2), GatedWorker()
    first.close_gate(*NAMES)
    first.stubborn.update(NAMES)
    other = InMemoryLog(bench.cluster)
    async with engine(bench, first):
        await begun(bench, first)
        behind = [bench.enqueue(f"behind-{number}", number) for number in (0, 1)]
        async with engine(bench, second, other):
            lost = await share_of(bench, other)
            kept = 1 - lost
            first.open_gate(NAMES[kept])
            await seconds_until(lambda: bench.has_completed(behind[kept], partition=kept), "what waited here, when there is room")
            await passing(LONG)
            assert bench.written(behind[lost]) == []
            first.open_gate(NAMES[lost])
            await seconds_until(lambda: bench.has_completed(behind[lost], partition=lost), "what waited in the other")
            assert second.started == [(f"behind-{lost}", 1)]


@in_virtual_time
async def test_a_partition_that_comes_back_while_it_is_handed_over_is_released_and_claimed_anew(bench: Bench) -> None:
    first = gated()
    first.stubborn.update(NAMES)
    other = Member(InMemoryLog(bench.cluster), QUEUE, bench.group)
    async with engine(bench, first) as giving:
        await begun(bench, first)
        async with members(other):
            await other.joined(1)
            [lost] = [partition.partition for partition in other.held]
            await seconds_until(lambda: first.interrupted == [NAMES[lost]], "the order to stop")
        behind = bench.enqueue("behind", lost)
        await passing(LONG)
        assert kinds(bench, lost) == ["claim"]
        assert "behind" not in first.names_started(), "it is being given back"
        first.open_gate(NAMES[lost])
        assert await seconds_until(lambda: bench.has_completed(behind, partition=lost), "what came behind") < AT_ONCE
        assert kinds(bench, lost, of=giving.instance_id) == ["claim", "handed-over", "claim"]
        assert sorted(first.started) == [("behind", 1), *((name, 1) for name in NAMES)]
        assert kinds(bench, 1 - lost) == ["claim"]
        first.open_gate(*NAMES)


# --- a take-over that is wound up -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_claim_that_a_rebalance_overtakes_is_given_back_at_once(bench: Bench) -> None:
    """It stands in the log, and its writer has not heard of it, when the partition is given to another engine."""
    first, second = GatedWorker(), GatedWorker()
    log, other = InMemoryLog(bench.cluster), InMemoryLog(bench.cluster)
    jobs = [bench.enqueue(name, number) for number, name in enumerate(NAMES)]
    slow = log.hold_acknowledgements(STATE, matching=of_kind("claim"))
    async with engine(bench, first, log) as overtaken:
        await caught(slow, 2)
        async with engine(bench, second, other):
            lost = await share_of(bench, other)
            await passing(5)
            assert (first.started, second.started) == ([], [])
            slow.release()
            assert await seconds_until(lambda: bench.has_completed(jobs[lost], partition=lost), "the end there") < AT_ONCE
            assert kinds(bench, lost, of=overtaken.instance_id) == ["claim", "handed-over"]
            await seconds_until(lambda: bench.has_completed(jobs[1 - lost], partition=1 - lost), "the end here")
            assert kinds(bench, 1 - lost) == ["claim"], "the other is of use"
            assert (first.names_started(), second.names_started()) == ([NAMES[1 - lost]], [NAMES[lost]])


@in_virtual_time
async def test_a_claim_that_is_acknowledged_while_the_engine_stops_is_given_back(bench: Bench) -> None:
    first, second = GatedWorker(), GatedWorker()
    log = InMemoryLog(bench.cluster)
    jobs = [bench.enqueue(name, number) for number, name in enumerate(NAMES)]
    slow = log.hold_acknowledgements(STATE, matching=of_kind("claim"))
    async with engine(bench, first, log) as stopping:
        await caught(slow, 2)
        stop = asyncio.create_task(stopping.stop(grace_seconds=0))
        await passing(1)
        slow.release()
        await stop
        claims = [lease_records(bench, number) for number in (0, 1)]
        assert [[record.kind for record in records] for records in claims] == [["claim", "release"]] * 2
    async with engine(bench, second):
        took = await seconds_until(lambda: all(bench.has_completed(jobs[n], partition=n) for n in (0, 1)), "all ends")
        assert took < AT_ONCE
        assert first.started == []


# --- what stays -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_stays_is_neither_claimed_nor_restarted_nor_read_again(bench: Bench) -> None:
    worker, log = gated(), InMemoryLog(bench.cluster)
    given: list[StoredRecord] = []

    def note(_: TopicPartition, records: Sequence[StoredRecord]) -> None:
        given.extend(records)

    async with engine(bench, worker, log):
        jobs = await begun(bench, worker)
        more = [bench.enqueue(f"more-{number}", number) for number in (0, 1)]
        await seconds_until(lambda: all(bench.has_completed(more[n], partition=n) for n in (0, 1)), "the ends of others")
        bench.cluster.fetched = note
        kept: set[int] = {0, 1}
        for _ in range(3):
            other = Member(InMemoryLog(bench.cluster), QUEUE, bench.group)
            async with members(other):
                await other.joined(1)
                await passing(5)
                kept -= {partition.partition for partition in other.held}
            await passing(5)
        [stayed] = kept
        state = bench.state(stayed)
        assert [record for record in given if (record.topic, record.partition) == (state.topic, state.partition)] == []
        mine = [record for record in given if (record.topic, record.partition) == (QUEUE, stayed)]
        assert mine == []
        assert kinds(bench, stayed) == ["claim"]
        assert worker.started.count((NAMES[stayed], 1)) == 1
        assert NAMES[stayed] not in worker.interrupted
        worker.open_gate(*NAMES)
        await seconds_until(lambda: all(bench.has_completed(jobs[n], partition=n) for n in (0, 1)), "all ends")
        assert worker.started.count((NAMES[stayed], 1)) == 1


# --- stopping -------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_engine_that_stops_gives_its_partitions_back(bench: Bench) -> None:
    first, second = gated(), GatedWorker()
    async with engine(bench, first) as stopping:
        jobs = await begun(bench, first)
        await stopping.stop(grace_seconds=0)
        assert [kinds(bench, number) for number in (0, 1)] == [["claim", "stopped"]] * 2
    async with engine(bench, second):
        took = await seconds_until(lambda: all(bench.has_completed(jobs[n], partition=n) for n in (0, 1)), "all ends")
        assert took < AT_ONCE
        assert sorted(second.started) == [(name, 2) for name in NAMES]


@in_virtual_time
async def test_an_engine_that_stops_keeps_the_lease_of_what_does_not_stop(bench: Bench) -> None:
    """Its successor waits for the term."""
    first, second = gated(), GatedWorker()
    first.stubborn.add(NAMES[0])
    log = InMemoryLog(bench.cluster)
    async with engine(bench, first, log) as stopping:
        jobs = await begun(bench, first)
        assert not await stopping.stop(grace_seconds=0)
        assert [kinds(bench, number) for number in (0, 1)] == [["claim"], ["claim", "stopped"]]
        *_, last = lease_records(bench, 0)
        assert first.running == [NAMES[0]]
    async with engine(bench, second):
        await seconds_until(lambda: bench.has_completed(jobs[1], partition=1), "the end of what was given back")
        await seconds_until(lambda: bool(second.names_started().count(NAMES[0])), "the start of the other")
        *_, claim = (record for record in lease_records(bench, 0) if record.kind == "claim")
        assert claim.at - last.at > 30
    first.open_gate(NAMES[0])
    await seconds_until(lambda: first.running == [], "the end of the stubborn")
    assert bench.written(jobs[0])[-1]["result"] == {"name": NAMES[0]}
    assert bench.written(jobs[0])[-1]["attempt"] == 2
