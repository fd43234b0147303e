"""What the log of an engine says while its work stands still: what it waits for, and an outage in few lines."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from headrace.core.timestamps import format_timestamp
from headrace.testing import InMemoryLog
from support.leases import Clocks, Instance, engine, lease_bench, seconds_until
from support.memory_engines import Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

PARTITIONS = 8
SESSION = 9.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path, partitions=PARTITIONS)


def said(caplog: pytest.LogCaptureFixture, what: str, level: int = logging.WARNING) -> list[str]:
    """What the news had to say of something, at a level."""
    records = [record for record in caplog.records if record.name == "headrace.engine.news" and record.levelno == level]
    return [message for record in records if what in (message := record.getMessage())]


async def running_everywhere(bench: Bench, worker: GatedWorker, names: str) -> None:
    """A job runs on each partition."""
    for number, name in enumerate(names):
        bench.enqueue(name, number)
    await seconds_until(lambda: len(worker.running) == len(names), "the starts")


# --- waiting --------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_who_waits_for_the_leases_of_a_dead_engine_says_so_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(PARTITIONS):
        Instance(bench, "dead-one.2", number).claim()
    heard_at = format_timestamp(bench.cluster.now())
    worker = GatedWorker()
    async with engine(bench, worker):
        bench.enqueue("a")
        await passing(4)
        assert said(caplog, "") == [], "a rebalance, or an orderly end, may take a moment"
        await passing(4)
        [message] = said(caplog, "")
        assert f"gated waits for the leases of {PARTITIONS} partitions; dead-one, who holds" in message
        assert f"was last heard of at {heard_at} and has 25 s to renew it" in message
        await seconds_until(lambda: worker.names_started() == ["a"], "the start")
        assert said(caplog, "") == [message]


@in_virtual_time
async def test_a_second_wait_is_told_of_as_well(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    worker = GatedWorker()
    for times in (1, 2):
        for number in range(PARTITIONS):
            Instance(bench, "dead-one", number).claim()
        async with engine(bench, worker):
            await passing(60)
            assert len(said(caplog, "waits for the leases")) == times


@in_virtual_time
async def test_who_gets_a_lease_within_a_moment_says_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    holder = Instance(bench, "slow-one")
    holder.claim()
    worker = GatedWorker()
    async with engine(bench, worker):
        bench.enqueue("a")
        await passing(3)
        holder.release()
        await seconds_until(lambda: worker.names_started() == ["a"], "the start")
        await passing(30)
        assert said(caplog, "") == []


@in_virtual_time
async def test_who_waits_for_its_group_says_so_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    gone, log = GatedWorker(), InMemoryLog(bench.cluster, session_timeout=SESSION)
    async with engine(bench, gone, log):
        await passing(30)
        assert said(caplog, "") == []
        log.cut_off_from_groups()
        async with engine(bench, GatedWorker(), InMemoryLog(bench.cluster, session_timeout=SESSION)):
            await passing(4)
            assert said(caplog, "") == []
            await passing(3)
            [message] = said(caplog, "")
            assert message.startswith("gated waits for its group to deal out its partitions")
            assert "45 s" in message, "after which the group gives a member up"
            await passing(SESSION)
            assert said(caplog, "waits for its group") == [message]
        log.reconnect()
    await passing(30)
    assert said(caplog, "waits for its group") == [message], "nobody waits who has ended"


# --- an outage ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_outage_is_one_line_however_many_claims_end_and_another_when_it_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "headrace.engine.news")
    worker, log = GatedWorker(), InMemoryLog(bench.cluster)
    names = "abcdefgh"
    worker.close_gate(*names)
    async with engine(bench, worker, log, Clocks()):
        await running_everywhere(bench, worker, names)
        for times in (1, 2):
            log.cut_off()
            await seconds_until(lambda: worker.running == [], "the end of the attempts")
            await passing(40)
            assert len(said(caplog, "ends, and those of others may follow: its lease was not renewed in time")) == times
            ended = said(caplog, "ends, and those of others may follow", logging.DEBUG)
            assert len(ended) == times * (PARTITIONS - 1), "the others can be had, too"
            log.reconnect()
            await seconds_until(lambda: len(worker.running) == PARTITIONS, "the next attempts")
            expected = f"gated goes on, with {PARTITIONS} partitions, after {PARTITIONS} claims had ended"
            assert said(caplog, "goes on") == [expected] * times
            assert len(said(caplog, "")) == 3 * times, "with one that says that the brokers do not answer"
            silent = [record for record in caplog.records if "could not say that it lives" in record.getMessage()]
            assert sum(record.levelno == logging.WARNING for record in silent) == times
            await passing(20)


@in_virtual_time
async def test_a_claim_that_ends_by_itself_is_told_of_each_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    worker, clock = GatedWorker(), Clocks()
    worker.close_gate("a")
    async with engine(bench, worker, clock=clock):
        await running_everywhere(bench, worker, "a")
        for times in (1, 2, 3):
            clock.suspend(60)
            await seconds_until(lambda: worker.running == [], "the end of the attempt")
            await seconds_until(lambda: worker.running == ["a"], "the next")
            await passing(130)
            assert (len(said(caplog, "may follow")), len(said(caplog, "goes on"))) == (times, times)
