"""What a log promises of reading given partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from headrace.errors import BrokerError, TopicMissing
from headrace.ports import Log, NewRecord, TopicPartition, UnplacedRecord
from support.log import Outcomes, by_offset, numbered, numbers_of, read, read_topic, started

MakeTopic = Callable[..., Awaitable[str]]


async def write(log: Log, topic: str, numbers: Sequence[int], *, partition: int = 0) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(TopicPartition(topic, partition), numbered(numbers), outcomes.expect())
        await outcomes.offsets()


async def test_reading_starts_at_the_offset_given(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    await write(log, topic, range(10), partition=0)
    await write(log, topic, range(10, 20), partition=1)
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 7, TopicPartition(topic, 1): 0})
        found = await read(reader, 13)
        assert numbers_of(found[TopicPartition(topic, 0)]) == [7, 8, 9]
        assert numbers_of(found[TopicPartition(topic, 1)]) == list(range(10, 20))
        assert await reader.positions() == {TopicPartition(topic, 0): 10, TopicPartition(topic, 1): 10}


async def test_a_position_is_known_before_anything_is_read(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    await write(log, topic, range(5))
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 3})
        assert by_offset(await reader.positions()) == {0: 3}


async def test_start_and_end_are_those_of_the_log(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    await write(log, topic, range(5), partition=1)
    partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    async with started(log.reader()) as reader:
        assert by_offset(await reader.start_offsets(partitions)) == {0: 0, 1: 0}
        assert by_offset(await reader.end_offsets(partitions)) == {0: 0, 1: 5}


async def test_an_offset_beyond_the_end_means_a_log_made_anew(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    await write(log, topic, range(3))
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 1_000})
        assert by_offset(await reader.positions()) == {0: 0}
        assert numbers_of((await read(reader, 3))[TopicPartition(topic, 0)]) == [0, 1, 2]


async def test_the_end_itself_is_a_place_to_start_at(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    await write(log, topic, range(3))
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 3})
        await write(log, topic, [3, 4])
        assert numbers_of((await read(reader, 2))[TopicPartition(topic, 0)]) == [3, 4]


@pytest.mark.parametrize("fetch", ["fetch", "fetch_unplaced"])
async def test_nothing_new_is_nothing_after_the_timeout(log: Log, make_topic: MakeTopic, fetch: str) -> None:
    topic = await make_topic()
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 0})
        begun = asyncio.get_running_loop().time()
        async with asyncio.timeout(20):
            assert await getattr(reader, fetch)(timeout=0.3) == {}
        assert asyncio.get_running_loop().time() - begun > 0.2


@pytest.mark.parametrize("fetch", ["fetch", "fetch_unplaced"])
async def test_nothing_assigned_is_nothing_to_read(log: Log, fetch: str) -> None:
    async with started(log.reader()) as reader:
        assert await getattr(reader, fetch)(timeout=0.1) == {}
        assert await reader.positions() == {}


async def test_no_more_is_fetched_than_asked_for(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    await write(log, topic, range(100), partition=0)
    await write(log, topic, range(100), partition=1)
    seen: dict[TopicPartition, list[int]] = {}
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        while sum(map(len, seen.values())) < 200:
            fetched = await reader.fetch(timeout=30, maximum=7)
            assert 0 < sum(map(len, fetched.values())) <= 7
            for partition, records in fetched.items():
                seen.setdefault(partition, []).extend(numbers_of(records))
                assert (await reader.positions())[partition] == records[-1].offset + 1
    assert all(numbers == list(range(100)) for numbers in seen.values())


async def test_partitions_can_be_added_while_reading(log: Log, make_topic: MakeTopic) -> None:
    first, second = await make_topic("first", partitions=2), await make_topic("second")
    for partition in range(2):
        await write(log, first, range(500), partition=partition)
    await write(log, second, range(500))
    seen: dict[TopicPartition, list[int]] = {}
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(first, 0): 0})
        for added in (TopicPartition(first, 1), TopicPartition(second, 0)):
            for partition, records in (await reader.fetch(timeout=30, maximum=100)).items():
                seen.setdefault(partition, []).extend(numbers_of(records))
            await reader.assign({**await reader.positions(), added: 0})
        while sum(map(len, seen.values())) < 1_500:
            fetched = await reader.fetch(timeout=30)
            assert fetched
            for partition, records in fetched.items():
                seen.setdefault(partition, []).extend(numbers_of(records))
    assert len(seen) == 3
    assert all(numbers == list(range(500)) for numbers in seen.values())


async def test_partitions_that_are_not_named_again_are_read_no_more(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        await reader.assign({TopicPartition(topic, 1): 0})
        await write(log, topic, [0], partition=0)
        await write(log, topic, [1], partition=1)
        assert await read(reader, 1) == {TopicPartition(topic, 1): [_any_record(1)]}
        assert await reader.fetch(timeout=0.3) == {}


async def test_records_that_may_come_without_their_place_are_the_same(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(first, numbered(range(10)), outcomes.expect(0))
        writer.submit(second, [NewRecord(b"key", b"3", [("a", b"b"), ("c", b"")]), NewRecord(b"key", None)], outcomes.expect(1))
        await outcomes.offsets()
    found: dict[TopicPartition, list[UnplacedRecord]] = {first: [], second: []}
    async with started(log.reader()) as reader:
        # In the middle of a batch, and at its begin.
        await reader.assign({first: 7, second: 0})
        while sum(map(len, found.values())) < 5:
            fetched = await reader.fetch_unplaced(timeout=30)
            assert fetched
            for partition, records in fetched.items():
                found[partition] += records
                assert (await reader.positions())[partition] == records[-1].offset + 1
        assert await reader.fetch_unplaced(timeout=0.1) == {}
        placed = (await read_topic(log, topic, 12))[second]
    assert [(each.offset, each.value) for each in found[first]] == [(7, b"7"), (8, b"8"), (9, b"9")]
    for one, other in zip(found[second], placed, strict=True):
        assert (one.offset, one.timestamp, one.key, one.value) == (other.offset, other.timestamp, other.key, other.value)
        assert list(one.headers) == list(other.headers)
    assert list(found[second][0].headers) == [("a", b"b"), ("c", b"")]


async def test_a_fetch_of_some_and_one_of_all_that_follow_give_each_record_once(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    await write(log, topic, range(50))
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 0})
        found = numbers_of((await reader.fetch(timeout=30, maximum=7))[TopicPartition(topic, 0)])
        while len(found) < 50:
            fetched = await reader.fetch_unplaced(timeout=30)
            assert fetched
            found += numbers_of(fetched[TopicPartition(topic, 0)])
    assert found == list(range(50))


@pytest.mark.parametrize("fetch", ["fetch", "fetch_unplaced"])
async def test_of_a_partition_that_was_read_to_its_end_nothing_more_is_fetched(
    log: Log, make_topic: MakeTopic, fetch: str
) -> None:
    topic = await make_topic(partitions=3)
    ended, empty, open_ = (TopicPartition(topic, number) for number in range(3))
    await write(log, topic, range(5), partition=0)
    async with started(log.reader()) as reader:
        await reader.assign({ended: 0, empty: 0, open_: 0}, ends={ended: 5, empty: 0})
        assert numbers_of((await getattr(reader, fetch)(timeout=20))[ended]) == list(range(5))
        for partition in range(3):
            await write(log, topic, range(5), partition=partition)
        fetched = await getattr(reader, fetch)(timeout=20)
        assert {partition: numbers_of(records) for partition, records in fetched.items()} == {open_: list(range(5))}
        assert await getattr(reader, fetch)(timeout=0.3) == {}
        assert by_offset(await reader.positions()) == {0: 5, 1: 0, 2: 5}
        await reader.assign(await reader.positions())
        assert set(await read(reader, 10)) == {ended, empty}


@pytest.mark.parametrize("fetch", ["fetch", "fetch_unplaced"])
async def test_a_stop_ends_a_fetch(log: Log, make_topic: MakeTopic, fetch: str) -> None:
    topic = await make_topic()
    reader = log.reader()
    await reader.start()
    await reader.assign({TopicPartition(topic, 0): 0})
    fetching = asyncio.create_task(getattr(reader, fetch)(timeout=60))
    await asyncio.sleep(0)
    await reader.stop()
    async with asyncio.timeout(20):
        assert await fetching == {}
    assert await reader.fetch(timeout=0) == {}
    with pytest.raises(BrokerError, match="does not run"):
        await reader.positions()


async def test_a_topic_that_does_not_exist_is_not_made_by_reading(log: Log, namespace: str) -> None:
    missing = TopicPartition(f"{namespace}.nowhere", 0)
    async with started(log.reader()) as reader:
        with pytest.raises(TopicMissing, match=missing.topic):
            await reader.partitions(missing.topic)
        with pytest.raises(TopicMissing, match=missing.topic):
            await reader.assign({missing: 0})
        with pytest.raises(TopicMissing, match=missing.topic):
            await reader.end_offsets([missing])
    assert missing.topic not in await log.topic_names()


class _any_record:  # noqa: N801 - reads as a value
    """Equal to every record with the number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __eq__(self, other: object) -> bool:
        return getattr(other, "value", None) == str(self._number).encode()

    __hash__ = None  # type: ignore[assignment]
