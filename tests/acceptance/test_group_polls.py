"""A poll of a group member that outlives the fetch that began it: aiokafka's must not be cancelled, so it is taken up later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable

import pytest

from headrace.kafka import KafkaLog
from headrace.kafka.group import KafkaGroupConsumer
from headrace.ports import TopicPartition
from support.log import Member, Outcomes, eventually, members, numbered, numbers_of, started


@pytest.fixture
async def holder(log: KafkaLog, topic: str) -> AsyncIterator[Member]:
    """A member that holds both partitions; the test fetches."""
    member = Member(log, topic, f"{topic}.group")
    async with members(member):
        await member.joined(2)
        await member.pause_polling()
        yield member


async def write(log: KafkaLog, topic: str) -> None:
    """Partition 0 gets 0 to 9, partition 1 gets 10 to 19."""
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for partition in range(2):
            numbers = range(partition * 10, partition * 10 + 10)
            writer.submit(TopicPartition(topic, partition), numbered(numbers), outcomes.expect(partition))
        await outcomes.offsets()


async def leave_a_poll_with_records(log: KafkaLog, topic: str, member: Member) -> KafkaGroupConsumer:
    """A fetch begins before there is anything, is given up, and its poll gets the records."""
    consumer = member.consumer
    assert isinstance(consumer, KafkaGroupConsumer)
    consumer.pause([TopicPartition(topic, 0)])
    fetching = asyncio.create_task(consumer.fetch(timeout=20, maximum=100))
    await eventually(lambda: consumer._poll is not None and not consumer._poll.done(), "a poll under way")
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    await write(log, topic)
    await eventually(lambda: consumer._poll is not None and consumer._poll.done(), "a poll with records")
    return consumer


async def fetch(consumer: KafkaGroupConsumer, count: int, partitions: Collection[TopicPartition] | None = None) -> list[int]:
    """The next `count` numbers, of whichever partitions are fetched."""
    numbers: list[int] = []
    async with asyncio.timeout(20):
        while len(numbers) < count:
            fetched = await consumer.fetch(timeout=0.2, maximum=100, partitions=partitions)
            numbers += numbers_of([record for records in fetched.values() for record in records])
    return numbers


def only(topic: str, *partitions: int) -> Iterable[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in partitions]


async def test_its_records_are_not_lost(log: KafkaLog, topic: str, holder: Member) -> None:
    consumer = await leave_a_poll_with_records(log, topic, holder)
    assert await fetch(consumer, 10) == list(range(10, 20))


async def test_records_of_a_partition_that_is_not_chosen_now_come_later(log: KafkaLog, topic: str, holder: Member) -> None:
    consumer = await leave_a_poll_with_records(log, topic, holder)
    consumer.resume(only(topic, 0))
    assert await fetch(consumer, 10, [TopicPartition(topic, 0)]) == list(range(10))
    assert await fetch(consumer, 10, [TopicPartition(topic, 1)]) == list(range(10, 20))


async def test_records_of_a_partition_that_was_paused_since_come_after_its_resumption(
    log: KafkaLog, topic: str, holder: Member
) -> None:
    consumer = await leave_a_poll_with_records(log, topic, holder)
    consumer.pause(only(topic, 1))
    consumer.resume(only(topic, 0))
    assert await fetch(consumer, 10) == list(range(10))
    consumer.resume(only(topic, 1))
    assert await fetch(consumer, 10) == list(range(10, 20))


async def test_records_from_before_a_seek_are_not_returned(log: KafkaLog, topic: str, holder: Member) -> None:
    consumer = await leave_a_poll_with_records(log, topic, holder)
    consumer.seek(TopicPartition(topic, 1), 7)
    assert await fetch(consumer, 3) == [17, 18, 19]


async def test_records_from_before_a_revocation_are_not_returned(log: KafkaLog, topic: str, holder: Member) -> None:
    consumer = await leave_a_poll_with_records(log, topic, holder)
    second = Member(log, topic, f"{topic}.group")
    async with members(second):
        await second.joined(1)
        await holder.joined(1)
        [mine], [other] = holder.held, second.held
        await second.received(10)
        # Nothing was committed: each reads its partition from the start, and only its own.
        assert await fetch(consumer, 10) == list(range(mine.partition * 10, mine.partition * 10 + 10))
        assert second.numbers == list(range(other.partition * 10, other.partition * 10 + 10))
