"""What a log promises of writing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from headrace.errors import AppendTimeout, BrokerError, TopicMissing
from headrace.ports import Acknowledged, AppendFailed, Log, NewRecord, TopicPartition
from support.log import Outcomes, numbered, numbers_of, read_topic, started

MakeTopic = Callable[..., Awaitable[str]]


async def test_a_record_is_read_as_it_was_written(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    record = NewRecord(b"key", b"value", [("first", b"1"), ("second", b"")])
    async with started(log.writer()) as writer:
        acknowledged = await writer.append(TopicPartition(topic, 0), record, timeout=30)
    [found] = (await read_topic(log, topic, 1))[TopicPartition(topic, 0)]
    assert (found.topic, found.partition, found.offset) == (topic, 0, acknowledged.offset)
    assert (found.key, found.value, list(found.headers)) == (b"key", b"value", [("first", b"1"), ("second", b"")])
    assert found.timestamp == acknowledged.timestamp


async def test_a_tombstone_has_no_value(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(cleanup_policy="compact")
    async with started(log.writer()) as writer:
        await writer.append(TopicPartition(topic, 0), NewRecord(b"key", None), timeout=30)
    [found] = (await read_topic(log, topic, 1))[TopicPartition(topic, 0)]
    assert (found.key, found.value) == (b"key", None)


async def test_the_acknowledgement_has_the_time_of_the_broker_where_that_counts(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(message_timestamp_type="LogAppendTime")
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        first = await writer.append(TopicPartition(topic, 0), NewRecord(b"key", b"0"), timeout=30)
        writer.submit(TopicPartition(topic, 0), numbered([1, 2]), outcomes.expect())
        await outcomes.all()
    records = (await read_topic(log, topic, 3))[TopicPartition(topic, 0)]
    [(_, second)] = outcomes.told
    assert isinstance(second, Acknowledged)
    assert [record.timestamp for record in records] == [first.timestamp, second.timestamp, second.timestamp]
    assert {record.timestamp_type for record in records} == {1}


async def test_elsewhere_a_record_tells_that_its_time_is_its_writers(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    async with started(log.writer()) as writer:
        await writer.append(TopicPartition(topic, 0), NewRecord(b"key", b"0"), timeout=30)
    [record] = (await read_topic(log, topic, 1))[TopicPartition(topic, 0)]
    assert record.timestamp_type == 0


async def test_each_partition_keeps_the_order_of_the_calls(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=4)
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for number in range(4_000):
            target = TopicPartition(topic, number % 4)
            writer.submit(target, numbered([number], size=600), outcomes.expect(number))
        offsets = await outcomes.offsets()
    found = await read_topic(log, topic, 4_000)
    for partition, records in found.items():
        assert numbers_of(records) == list(range(partition.partition, 4_000, 4))
        assert [record.offset for record in records] == [offsets[number] for number in numbers_of(records)]


async def test_calls_are_answered_in_their_order(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for number in range(500):
            writer.submit(TopicPartition(topic, 0), numbered([number]), outcomes.expect(number))
        await outcomes.offsets()
    assert [name for name, _ in outcomes.told] == list(range(500))


async def test_the_records_of_one_call_follow_each_other(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for call in range(100):
            writer.submit(TopicPartition(topic, 0), numbered(range(call * 10, call * 10 + 10)), outcomes.expect(call))
        offsets = await outcomes.offsets()
    assert offsets == {call: call * 10 for call in range(100)}
    assert numbers_of((await read_topic(log, topic, 1_000))[TopicPartition(topic, 0)]) == list(range(1_000))


async def test_a_call_that_is_too_large_for_a_batch_is_answered_once_and_last(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(TopicPartition(topic, 0), numbered([0]), outcomes.expect("before"))
        writer.submit(TopicPartition(topic, 0), numbered(range(1, 31), size=100_000), outcomes.expect("large"))
        writer.submit(TopicPartition(topic, 0), numbered([31]), outcomes.expect("after"))
        assert await outcomes.offsets() == {"before": 0, "large": 1, "after": 31}
    assert numbers_of((await read_topic(log, topic, 32))[TopicPartition(topic, 0)]) == list(range(32))


async def test_a_record_of_almost_two_megabytes_passes(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    large = b"x" * 2_090_000
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(TopicPartition(topic, 0), numbered([0]), outcomes.expect("before"))
        writer.submit(TopicPartition(topic, 0), [NewRecord(b"key", large)], outcomes.expect("large"))
        writer.submit(TopicPartition(topic, 0), numbered([2]), outcomes.expect("after"))
        assert await outcomes.offsets() == {"before": 0, "large": 1, "after": 2}
    records = (await read_topic(log, topic, 3))[TopicPartition(topic, 0)]
    assert [record.value for record in records] == [b"0", large, b"2"]


async def test_a_record_that_is_refused_takes_what_waits_behind_it_along(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2, max_message_bytes="100000")
    refused, elsewhere = Outcomes(), Outcomes()
    async with started(log.writer()) as writer:
        await writer.append(TopicPartition(topic, 0), NewRecord(b"key", b"0"), timeout=30)
        writer.submit(TopicPartition(topic, 0), [NewRecord(b"key", b"x" * 600_000)], refused.expect("large"))
        writer.submit(TopicPartition(topic, 0), numbered([1]), refused.expect("behind"))
        for number in range(10):
            writer.submit(TopicPartition(topic, 1), numbered([number]), elsewhere.expect(number))
        failures = await refused.failures()
        assert all(topic in str(failure.reason) for failure in failures.values())
        await elsewhere.offsets()
        # What comes later is written, in order, as if nothing had happened.
        later = Outcomes()
        for number in range(2, 200):
            writer.submit(TopicPartition(topic, number % 2), numbered([number]), later.expect(number))
        await later.offsets()
    found = await read_topic(log, topic, 209)
    assert numbers_of(found[TopicPartition(topic, 0)]) == [0, *range(2, 200, 2)]
    assert numbers_of(found[TopicPartition(topic, 1)]) == [*range(10), *range(3, 200, 2)]


async def test_a_callback_may_submit_again(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    target = TopicPartition(topic, 0)
    last = Outcomes()
    async with started(log.writer()) as writer:
        second = last.expect("second")
        writer.submit(target, numbered([0]), lambda _: writer.submit(target, numbered([1]), second))
        assert await last.offsets() == {"second": 1}


async def test_a_topic_that_does_not_exist_is_not_made_by_writing(log: Log, namespace: str) -> None:
    async with started(log.writer()) as writer:
        with pytest.raises(TopicMissing, match=f"{namespace}.nowhere"):
            await writer.append(TopicPartition(f"{namespace}.nowhere", 0), NewRecord(b"key", b"value"), timeout=30)
    assert f"{namespace}.nowhere" not in await log.topic_names()


async def test_a_partition_that_does_not_exist_is_refused(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(partitions=2)
    async with started(log.writer()) as writer:
        with pytest.raises(BrokerError, match="no partition 2"):
            await writer.append(TopicPartition(topic, 2), NewRecord(b"key", b"value"), timeout=30)
        assert (await writer.append(TopicPartition(topic, 1), NewRecord(b"key", b"value"), timeout=30)).offset == 0


async def test_records_that_are_appended_together_each_have_a_fate(log: Log, make_topic: MakeTopic, namespace: str) -> None:
    topic = await make_topic(partitions=2)
    nowhere = TopicPartition(f"{namespace}.nowhere", 0)
    async with started(log.writer()) as writer:
        assert await writer.append_all([], timeout=30) == []
        targets = [TopicPartition(topic, 0), nowhere, TopicPartition(topic, 1), TopicPartition(topic, 0)]
        outcomes = await writer.append_all(list(zip(targets, numbered(range(4)), strict=True)), timeout=30)
    assert [outcome.offset for outcome in outcomes if isinstance(outcome, Acknowledged)] == [0, 0, 1]
    refused = outcomes[1]
    assert isinstance(refused, AppendFailed)
    assert isinstance(refused.reason, TopicMissing)
    assert not refused.may_land
    found = await read_topic(log, topic, 3)
    assert {partition.partition: numbers_of(records) for partition, records in found.items()} == {0: [0, 3], 1: [2]}


async def test_appended_and_submitted_records_keep_the_order_of_the_calls(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    target = TopicPartition(topic, 0)
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        appends: list[asyncio.Task[Acknowledged]] = []
        for number in range(0, 600, 3):
            writer.submit(target, numbered([number], size=5_000), outcomes.expect(number))
            [record] = numbered([number + 1], size=5_000)
            appends.append(asyncio.create_task(writer.append(target, record, timeout=30)))
            await asyncio.sleep(0)  # the task hands its record over in this turn
            writer.submit(target, numbered([number + 2], size=5_000), outcomes.expect(number + 2))
        offsets = await outcomes.offsets()
        appended = await asyncio.gather(*appends)
    assert [written.offset for written in appended] == list(range(1, 600, 3))
    assert offsets == {number: number for number in range(600) if number % 3 != 1}
    assert numbers_of((await read_topic(log, topic, 600))[target]) == list(range(600))


async def test_what_was_not_on_its_way_when_the_time_was_over_is_taken_back(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    target = TopicPartition(topic, 0)
    may_land = {1_000}
    async with started(log.writer()) as writer:
        for first in range(0, 200, 20):
            numbers = range(first, first + 20)
            outcomes = await writer.append_all([(target, record) for record in numbered(numbers, size=100_000)], timeout=0)
            for number, outcome in zip(numbers, outcomes, strict=True):
                assert isinstance(outcome, AppendFailed)
                assert isinstance(outcome.reason, AppendTimeout)
                assert outcome.reason.may_land == outcome.may_land
                if outcome.may_land:
                    may_land.add(number)
        [record] = numbered([1_000])
        last = await writer.append(target, record, timeout=30)
    found = numbers_of((await read_topic(log, topic, last.offset + 1))[target])
    assert set(found) <= may_land
    assert found == sorted(found)


async def test_a_call_of_which_a_part_was_refused_may_have_landed(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(max_message_bytes="550000")
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        small, large = NewRecord(b"key", b"0"), NewRecord(b"key", b"x" * 600_000)
        writer.submit(TopicPartition(topic, 0), [small, large], outcomes.expect())
        [failure] = (await outcomes.failures()).values()
    assert failure.may_land
    assert await _end(log, topic) == 1


async def test_a_record_that_is_too_large_is_certainly_not_written(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic(max_message_bytes="100000")
    target = TopicPartition(topic, 0)
    async with started(log.writer()) as writer:
        [outcome] = await writer.append_all([(target, NewRecord(b"key", b"x" * 600_000))], timeout=30)
        assert isinstance(outcome, AppendFailed)
        assert not outcome.may_land
        assert (await writer.append(target, NewRecord(b"key", b"1"), timeout=30)).offset == 0


async def test_stopping_waits_for_what_is_under_way(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    outcomes = Outcomes()
    writer = log.writer()
    await writer.start()
    for number in range(1_000):
        writer.submit(TopicPartition(topic, 0), numbered([number], size=600), outcomes.expect(number))
    await writer.stop(timeout=30)
    assert len(outcomes.told) == 1_000
    assert await outcomes.offsets() == {number: number for number in range(1_000)}


async def test_what_is_submitted_after_the_stop_fails(log: Log, make_topic: MakeTopic) -> None:
    topic = await make_topic()
    outcomes = Outcomes()
    writer = log.writer()
    await writer.start()
    await writer.stop(timeout=30)
    writer.submit(TopicPartition(topic, 0), numbered([0]), outcomes.expect())
    assert isinstance((await outcomes.all())[None], AppendFailed)
    assert (await _end(log, topic)) == 0


async def _end(log: Log, topic: str) -> int:
    async with started(log.reader()) as reader:
        ends: Mapping[TopicPartition, int] = await reader.end_offsets([TopicPartition(topic, 0)])
        return ends[TopicPartition(topic, 0)]
