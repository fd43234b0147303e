"""What a log promises of reading given partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from headrace.errors import BrokerError, TopicMissing
from headrace.ports import Log, TopicPartition
from support.log import Outcomes, by_offset, numbered, numbers_of, read, started

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


async def test_nothing_new_is_nothing_after_the_timeout(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 0})
        begun = asyncio.get_running_loop().time()
        assert await reader.fetch(timeout=0.3) == {}
        assert 0.2 < asyncio.get_running_loop().time() - begun < 3


async def test_nothing_assigned_is_nothing_to_read(log: Log) -> None:
    async with started(log.reader()) as reader:
        assert await reader.fetch(timeout=0.1) == {}
        assert await reader.positions() == {}


async def test_no_more_is_fetched_than_asked_for(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    await write(log, topic, range(100), partition=0)
    await write(log, topic, range(100), partition=1)
    seen: dict[TopicPartition, list[int]] = {}
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        while sum(map(len, seen.values())) < 200:
            fetched = await reader.fetch(timeout=5, maximum=7)
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
            for partition, records in (await reader.fetch(timeout=5, maximum=100)).items():
                seen.setdefault(partition, []).extend(numbers_of(records))
            await reader.assign({**await reader.positions(), added: 0})
        while sum(map(len, seen.values())) < 1_500:
            fetched = await reader.fetch(timeout=5)
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


async def test_a_stop_ends_a_fetch(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    reader = log.reader()
    await reader.start()
    await reader.assign({TopicPartition(topic, 0): 0})
    fetching = asyncio.create_task(reader.fetch(timeout=60))
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
