"""The directory of workers: definitions outlive engines, and engines live by their signs of life."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import orjson
import pytest

from headrace.core.records import definition_key, instance_key
from headrace.ports import TopicPartition
from headrace.testing import InMemoryLog
from headrace.views.workers import WorkerDirectory
from support.written_jobs import TOPICS, WORKER, Engines, WrittenLog

PATIENCE = 10.0
NOW = 1_780_000_000_000
PARTITION = TopicPartition(TOPICS.workers.name, 0)


class Clock:
    """A wall clock that stands until it is set."""

    milliseconds = NOW

    def __call__(self) -> float:
        return self.milliseconds / 1000


@pytest.fixture
def log() -> WrittenLog:
    return WrittenLog()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextlib.asynccontextmanager
async def started(log: InMemoryLog, clock: Clock) -> AsyncIterator[WorkerDirectory]:
    directory = WorkerDirectory(log, TOPICS, presence_interval_seconds=5.0, clock=clock)
    await directory.start()
    try:
        await directory.wait_ready(PATIENCE)
        yield directory
    finally:
        await directory.stop()


async def test_an_empty_topic_is_made_and_ready(clock: Clock) -> None:
    log = InMemoryLog()
    async with started(log, clock) as directory:
        assert directory.ready
        assert directory.summaries() == []
        assert log.cluster.partition_count(TOPICS.workers.name) == 1


async def test_a_definition_outlives_its_engines(log: WrittenLog, clock: Clock) -> None:
    engines = Engines(log)
    Engines(log, "a_worker").define()
    engines.define()
    engines.live("one", timestamp=NOW - 1_000)
    engines.live("two", timestamp=NOW - 1_000)
    async with started(log, clock) as directory:
        assert [(each.name, each.live_instances) for each in directory.summaries()] == [("a_worker", 0), (WORKER, 2)]
        assert directory.summaries()[1].description == "Sends a digest."
        log.put(PARTITION, instance_key("one"), None)
        await directory.catch_up(PATIENCE)
        assert [each.live_instances for each in directory.summaries()] == [0, 1]
        clock.milliseconds += 60_000
        assert [each.live_instances for each in directory.summaries()] == [0, 0]
        log.put(PARTITION, definition_key("a_worker"), None)
        await directory.catch_up(PATIENCE)
        assert list(directory.definitions) == [WORKER]


@pytest.mark.parametrize(("age", "lives"), [(0, True), (15_000, True), (16_900, True), (17_100, False), (-90_000, True)])
async def test_an_engine_lives_for_three_intervals_and_some_skew(log: WrittenLog, clock: Clock, age: int, lives: bool) -> None:
    engines = Engines(log)
    engines.define()
    engines.live("one", timestamp=NOW - age)
    async with started(log, clock) as directory:
        assert bool(directory.live_instances()) is lives
        assert directory.summaries()[0].live_instances == int(lives)


@pytest.mark.parametrize(("age", "lives"), [(181_900, True), (182_100, False)])
async def test_an_engine_that_says_how_often_it_writes_is_judged_by_that(
    log: WrittenLog, clock: Clock, age: int, lives: bool
) -> None:
    Engines(log).live("one", timestamp=NOW - age, presenceIntervalSeconds=60.0)
    async with started(log, clock) as directory:
        assert bool(directory.live_instances()) is lives


async def test_a_clock_that_is_ahead_keeps_no_engine_alive(log: WrittenLog, clock: Clock) -> None:
    Engines(log).live("one", timestamp=NOW + 3_600_000)
    async with started(log, clock) as directory:
        assert directory.live_instances()
        clock.milliseconds += 17_100
        assert not directory.live_instances()


async def test_what_is_damaged_costs_only_itself(log: WrittenLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log.put(PARTITION, definition_key("broken"), b"{")
    log.put(PARTITION, definition_key("empty"), b"{}")
    log.put(PARTITION, b"definition/\xff", b"{}")
    log.put(PARTITION, b"unknown", b"{}")
    log.put(PARTITION, None, b"{}")
    log.put(PARTITION, instance_key("broken"), orjson.dumps({"instanceId": 5}))
    Engines(log).define()
    async with started(log, clock) as directory:
        assert [each.name for each in directory.summaries()] == [WORKER]
        assert directory.undecodable.total == 6
    assert len(caplog.records) == 1


async def test_a_damaged_definition_leaves_the_one_before(log: WrittenLog, clock: Clock) -> None:
    Engines(log).define()
    log.put(PARTITION, definition_key(WORKER), b"{")
    async with started(log, clock) as directory:
        assert list(directory.definitions) == [WORKER]


async def test_changes_of_definitions_are_told(log: WrittenLog, clock: Clock) -> None:
    async with started(log, clock) as directory:
        told: list[int] = []
        directory.on_change(lambda: told.append(len(directory.definitions)))
        Engines(log).define()
        await directory.catch_up(PATIENCE)
        assert told == [1]
        Engines(log).define()
        Engines(log).live("one", timestamp=NOW)
        await directory.catch_up(PATIENCE)
        assert told == [1], "the same definition again is no change"


async def test_watchers_are_called_when_what_is_told_has_changed(log: WrittenLog, clock: Clock) -> None:
    engines = Engines(log)
    engines.define()
    engines.live("one", timestamp=NOW)
    async with started(log, clock) as directory:
        told: list[int] = []
        with directory.watch(lambda: told.append(directory.summaries()[0].live_instances)):
            for _ in range(3):
                engines.define()
                engines.live("one", timestamp=NOW)
            await directory.catch_up(PATIENCE)
            assert told == [], "signs of life of who is up change nothing"
            engines.live("two", timestamp=NOW)
            await directory.catch_up(PATIENCE)
            assert told == [2]
            clock.milliseconds += 60_000
            engines.live("one", timestamp=NOW + 60_000)
            await directory.catch_up(PATIENCE)
            assert told == [2, 1], "one that seemed gone has come back"
            log.put(PARTITION, instance_key("one"), None)
            await directory.catch_up(PATIENCE)
            assert told == [2, 1, 0]
        engines.live("three", timestamp=NOW + 60_000)
        await directory.catch_up(PATIENCE)
        assert told == [2, 1, 0]


async def test_how_long_it_takes_until_an_engine_seems_gone(log: WrittenLog, clock: Clock) -> None:
    engines = Engines(log)
    engines.define()
    Engines(log, "another").live("other", timestamp=NOW - 16_000)
    async with started(log, clock) as directory:
        assert directory.seconds_to_lapse(WORKER) is None
        engines.live("one", timestamp=NOW)
        engines.live("two", timestamp=NOW - 5_000)
        engines.live("gone", timestamp=NOW - 60_000)
        await directory.catch_up(PATIENCE)
        assert directory.seconds_to_lapse(WORKER) == 12.0
        clock.milliseconds += 12_001
        assert directory.seconds_to_lapse(WORKER) == pytest.approx(4.999)
