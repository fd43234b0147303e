"""Following partitions: how far it is, and that nothing is lost when the broker or the taker fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from headrace.core.topics import Topic
from headrace.errors import BrokerUnreachable
from headrace.ports import TopicPartition
from headrace.views import follower as module
from headrace.views.follower import Batch, Follower, LogReplaced, Pace
from support.virtual_time import in_virtual_time, run_in_virtual_time
from support.written_jobs import WrittenLog

PARTITION = TopicPartition("things", 0)
OTHER = TopicPartition("others", 1)
MADE = [Topic(name="things", partitions=1), Topic(name="others", partitions=2)]
PATIENCE = 10.0


class Taker:
    """Keeps the offsets that it was given."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        self.positions: dict[TopicPartition, int] = {}

    async def __call__(self, batch: Batch) -> None:
        if self.failures:
            raise self.failures.pop()
        self.taken += [record.offset for records in batch.records.values() for record in records]
        self.batches.append(sum(map(len, batch.records.values())))
        self.positions.update(batch.positions)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.01)


@pytest.fixture
def log() -> WrittenLog:
    made = WrittenLog()
    made.cluster.create_topics(MADE)
    for number in range(10):
        made.put(PARTITION, b"k", b"%d" % number)
    return made


@pytest.fixture
def taker() -> Taker:
    return Taker()


@contextlib.asynccontextmanager
async def following(log: WrittenLog, taker: Taker, *fatal: type[Exception], pace: Pace | None = None) -> AsyncIterator[Follower]:
    follower = Follower(log, taker, name="test", fatal=fatal, pace=pace)
    await follower.start()
    try:
        yield follower
    finally:
        await follower.stop()


async def test_caught_up_is_a_matter_of_positions(log: WrittenLog, taker: Taker) -> None:
    """The newest records may be gone by compaction: nothing comes, and yet all is read."""
    log.cluster.remove_records(PARTITION, range(5, 10))
    async with following(log, taker) as follower:
        assert not follower.caught_up
        follower.follow({PARTITION: 2})
        await follower.wait_caught_up(PATIENCE)
        assert taker.taken == [2, 3, 4]
        assert taker.positions == {PARTITION: 10}
        assert follower.behind == 0


async def test_what_is_not_given_out_is_not_caught_up(log: WrittenLog, taker: Taker) -> None:
    log.cluster.withhold(PARTITION)
    async with following(log, taker) as follower:
        follower.follow({PARTITION: 0})
        with pytest.raises(TimeoutError):
            await follower.wait_caught_up(0.05)
        assert follower.behind == 10
        log.cluster.give_out()
        await follower.wait_caught_up(PATIENCE)


async def test_more_partitions_join_those_that_are_read(log: WrittenLog, taker: Taker) -> None:
    async with following(log, taker) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        log.put(OTHER, b"k", b"v")
        log.put(PARTITION, b"k", b"v")
        follower.follow({OTHER: 0})
        assert not follower.caught_up
        await follower.catch_up(PATIENCE)
        assert sorted(taker.taken) == sorted([*range(11), 0])


@pytest.mark.parametrize("first", [{}, {PARTITION: 10}])
def test_partitions_that_are_expected_wait_for_no_fetch(
    first: dict[TopicPartition, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at the log ends when it has read what there is, not when nothing more came for a while."""

    monkeypatch.setattr(module, "FETCH_SECONDS", 1000.0)

    async def look() -> None:
        log = WrittenLog()
        log.cluster.create_topics(MADE)
        for number in range(10):
            log.put(PARTITION, b"k", b"%d" % number)
        log.put(OTHER, b"k", b"other")
        taker = Taker()
        async with following(log, taker) as follower:
            follower.expects_more = True
            follower.follow(first)
            while first and not follower.caught_up:
                await follower.wait_moved()
            # So that a fetch is under way that finds nothing.
            await asyncio.sleep(0)
            before = asyncio.get_running_loop().time()
            follower.follow({OTHER: 0})
            await follower.wait_caught_up(PATIENCE)
            assert taker.taken == [0]
            assert asyncio.get_running_loop().time() - before <= module.HURRIED_SECONDS
            follower.expects_more = False

    run_in_virtual_time(look())


async def test_catching_up_goes_to_the_end_of_now(log: WrittenLog, taker: Taker) -> None:
    async with following(log, taker) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        log.put(PARTITION, b"k", b"v")
        await follower.catch_up(PATIENCE)
        assert taker.taken == list(range(11))
        log.cluster.withhold(PARTITION)
        log.put(PARTITION, b"k", b"v")
        assert follower.caught_up
        with pytest.raises(TimeoutError):
            await follower.catch_up(0.05)


async def test_a_batch_that_was_not_taken_comes_again(log: WrittenLog, taker: Taker, caplog: pytest.LogCaptureFixture) -> None:
    taker.failures = [OSError("the disk is full"), OSError("the disk is full"), ZeroDivisionError()]
    async with following(log, taker) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        assert taker.taken == list(range(10))
        assert follower.trouble is None
    assert caplog.text.count("the disk is full") == 1, "the same trouble is told once"


async def test_a_broker_that_was_away_is_read_on_from_where_it_was(log: WrittenLog, taker: Taker) -> None:
    async with following(log, taker) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        log.go_away()
        log.put(PARTITION, b"k", b"v")
        async with asyncio.timeout(PATIENCE):
            while follower.trouble is None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)
        assert "memory:9092" in follower.trouble
        log.accept_requests()
        await follower.catch_up(PATIENCE)
        assert taker.taken == list(range(11))
        assert follower.trouble is None


async def test_a_broker_that_is_away_at_the_start_is_told(log: WrittenLog, taker: Taker) -> None:
    log.go_away()
    with pytest.raises(BrokerUnreachable):
        await Follower(log, taker, name="test").start()


async def test_what_is_fatal_ends_it(log: WrittenLog, taker: Taker) -> None:
    taker.failures = [LogReplaced("another")]
    async with following(log, taker, LogReplaced) as follower:
        follower.follow({PARTITION: 0})
        with pytest.raises(LogReplaced):
            await follower.wait_caught_up(PATIENCE)
        with pytest.raises(LogReplaced):
            await follower.ended()
        with pytest.raises(LogReplaced):
            await follower.catch_up(PATIENCE)
        assert taker.taken == []


@pytest.mark.parametrize("fatal", [True, False])
async def test_a_log_that_became_shorter(log: WrittenLog, taker: Taker, fatal: bool) -> None:
    async with following(log, taker, *([LogReplaced] if fatal else [])) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        log.cluster.delete_topics([PARTITION.topic])
        log.cluster.create_topics(MADE)
        log.put(PARTITION, b"k", b"v")
        # As a client does whose offset is out of range.
        taker.failures = [OSError("reads anew")]
        log.put(OTHER, b"k", b"v")
        follower.follow({OTHER: 0})
        if fatal:
            with pytest.raises(LogReplaced):
                async with asyncio.timeout(PATIENCE):
                    await follower.ended()
        else:
            await follower.catch_up(PATIENCE)
            assert sorted(taker.taken) == sorted([*range(10), 0, 0])


@in_virtual_time
async def test_what_keeps_coming_is_gathered_for_a_while_unless_somebody_waits_for_it(log: WrittenLog, taker: Taker) -> None:
    async with following(log, taker, pace=Pace(3_600.0, 3_600.0, 1.0)) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        assert taker.taken == list(range(10)), "the first is not kept waiting"
        held = await _put_until_one_is_held(log, taker)
        await follower.catch_up(PATIENCE)
        assert taker.taken == list(range(held + 1))
        held = await _put_until_one_is_held(log, taker)
        await follower.catch_up(PATIENCE)
        assert taker.taken == list(range(held + 1)), "and again for whoever comes next"


async def _put_until_one_is_held(log: WrittenLog, taker: Taker) -> int:
    """Offset of a record that is not taken in for a while; one that comes while the follower looks is."""
    for _ in range(20):
        offset = log.put(PARTITION, b"k", b"v").offset
        await asyncio.sleep(0.1)
        if offset not in taker.taken:
            return offset
    pytest.fail("everything is taken in at once")


@in_virtual_time
async def test_a_batch_at_its_pace_has_all_that_has_come(log: WrittenLog, taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a view would fall behind for good where more comes than a fetch brings at that pace."""
    async with following(log, taker, pace=Pace(3_600.0, 3_600.0, 1.0)) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        monkeypatch.setattr(module, "FETCH_RECORDS", 4)
        held = await _put_until_one_is_held(log, taker)
        for _ in range(30):
            log.put(PARTITION, b"k", b"v")
        await follower.catch_up(PATIENCE)
        assert taker.taken == list(range(held + 31))
        assert taker.batches[-1] >= 30, taker.batches


@in_virtual_time
async def test_records_that_were_there_before_are_not_kept_waiting(log: WrittenLog, taker: Taker) -> None:
    async with following(log, taker, pace=Pace(3_600.0, 3_600.0, 1.0)) as follower:
        follower.follow({PARTITION: 0})
        await follower.wait_caught_up(PATIENCE)
        log.put(OTHER, b"k", b"v")
        follower.follow({OTHER: 0})
        await follower.wait_caught_up(PATIENCE)
        assert sorted(taker.taken) == sorted([*range(10), 0])
