"""What a log promises of records that are deleted, and of offsets that are looked up by time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from headrace.errors import BrokerError, TopicMissing
from headrace.ports import Log, NewRecord, TopicPartition
from headrace.replay.recorded.spans import since, until
from support.log import read_topic, started

MakeTopic = Callable[..., Awaitable[str]]


async def fill(log: Log, topic: str, count: int, partition: int = 0) -> list[int]:
    """Writes numbered records, one after another; the times that the log has for them."""
    async with started(log.writer()) as writer:
        written = []
        for number in range(count):
            record = NewRecord(b"key", b"%d" % number)
            written.append(await writer.append(TopicPartition(topic, partition), record, timeout=20))
        return [each.timestamp for each in written]


async def test_what_is_deleted_is_gone_and_the_rest_keeps_its_offsets(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    await fill(log, topic, 5, 0)
    await fill(log, topic, 2, 1)
    await log.delete_records({TopicPartition(topic, 0): 3})
    async with started(log.reader()) as reader:
        both = [TopicPartition(topic, number) for number in range(2)]
        assert await reader.start_offsets(both) == {both[0]: 3, both[1]: 0}
        assert await reader.end_offsets(both) == {both[0]: 5, both[1]: 2}
    found = await read_topic(log, topic, 4)
    assert [(record.offset, record.value) for record in found[both[0]]] == [(3, b"3"), (4, b"4")]
    assert len(found[both[1]]) == 2


async def test_everything_can_be_deleted_and_new_records_go_on_from_there(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    only = TopicPartition(topic, 0)
    await fill(log, topic, 3)
    await log.delete_records({only: 3})
    await log.delete_records({only: 2})  # below the start: nothing is left to delete
    await fill(log, topic, 1)
    assert [record.offset for record in (await read_topic(log, topic, 1))[only]] == [3]


async def test_nothing_can_be_deleted_that_is_not_there_yet(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    await fill(log, topic, 2)
    with pytest.raises(BrokerError):
        await log.delete_records({TopicPartition(topic, 0): 7})
    assert len((await read_topic(log, topic, 2))[TopicPartition(topic, 0)]) == 2


async def test_of_a_topic_that_does_not_exist_nothing_is_deleted(log: Log, namespace: str) -> None:
    with pytest.raises(TopicMissing, match=f"{namespace}.nowhere"):
        await log.delete_records({TopicPartition(f"{namespace}.nowhere", 0): 1})
    assert f"{namespace}.nowhere" not in await log.topic_names()
    await log.delete_records({})


async def test_the_first_record_that_is_not_older_than_a_time(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(message_timestamp_type="LogAppendTime")
    only = TopicPartition(topic, 0)
    times = await fill(log, topic, 3)
    async with started(log.reader()) as reader:
        assert await reader.offsets_since([only], 0) == {only: 0}
        for time in times:
            assert await reader.offsets_since([only], time) == {only: times.index(time)}
        assert await reader.offsets_since([only], times[-1] + 1) == {only: 3}


async def test_after_a_deletion_the_end_may_be_told_and_no_record_is_missed(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(message_timestamp_type="LogAppendTime", segment_ms="1")
    only = TopicPartition(topic, 0)
    times = await fill(log, topic, 5)
    await log.delete_records({only: 3})
    async with started(log.reader()) as reader:
        assert (await reader.offsets_since([only], times[0]))[only] in (3, 5), "Kafka finds what was deleted"
        assert await since(reader, [only], times[0]) == {only: 3}
        assert (await until(reader, [only], times[-1] + 1))[only] == 5
