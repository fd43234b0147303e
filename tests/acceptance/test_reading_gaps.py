"""Logs with holes: what a reader's position says of records that are no more, or never were for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition as ClientTopicPartition

from headrace.kafka import KafkaLog
from headrace.ports import LogReader, TopicPartition
from headrace.settings import Settings
from support.engines import eventually
from support.log import Outcomes, numbered, numbers_of, plain_topic, read, started


@pytest.fixture
async def target(log: KafkaLog, namespace: str) -> TopicPartition:
    """A partition with the numbers 0 to 9."""
    topic = plain_topic(f"{namespace}.things")
    await log.create_topics([topic])
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(TopicPartition(topic.name, 0), numbered(range(10)), outcomes.expect())
        await outcomes.offsets()
    return TopicPartition(topic.name, 0)


@pytest.fixture
async def admin(settings: Settings) -> Any:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await client.start()
    yield client
    await client.close()


async def forget_below(admin: Any, target: TopicPartition, offset: int) -> None:
    await admin.delete_records({ClientTopicPartition(*target): RecordsToDelete(before_offset=offset)})


async def test_an_offset_below_the_start_is_moved_to_it(log: KafkaLog, target: TopicPartition, admin: Any) -> None:
    await forget_below(admin, target, 6)
    async with started(log.reader()) as reader:
        assert await reader.start_offsets([target]) == {target: 6}
        await reader.assign({target: 2})
        assert await reader.positions() == {target: 6}
        assert numbers_of((await read(reader, 4))[target]) == [6, 7, 8, 9]


async def test_a_log_without_records_is_read_to_its_end(log: KafkaLog, target: TopicPartition, admin: Any) -> None:
    await forget_below(admin, target, 10)
    async with started(log.reader()) as reader:
        await reader.assign({target: 0})
        assert await reader.positions() == await reader.end_offsets([target]) == {target: 10}


async def test_a_start_that_moves_while_reading_takes_the_reader_along(log: KafkaLog, target: TopicPartition, admin: Any) -> None:
    async with started(log.reader()) as reader:
        await reader.assign({target: 0})
        assert numbers_of((await reader.fetch(timeout=10, maximum=2))[target]) == [0, 1]
        await forget_below(admin, target, 8)
        await reader.assign({target: 2})
        assert numbers_of((await read(reader, 2))[target]) == [8, 9]


async def whole(reader: LogReader, target: TopicPartition) -> Mapping[TopicPartition, int] | None:
    """The end once the transaction's end is there: the coordinator answers before it has written it into the partition."""
    ends = await reader.end_offsets([target])
    return ends if ends == {target: 12} else None


@pytest.mark.parametrize("fetch", ["fetch", "fetch_unplaced"])
async def test_a_position_passes_what_is_no_record(settings: Settings, log: KafkaLog, target: TopicPartition, fetch: str) -> None:
    """A transaction's end takes an offset and is no record, like the place of one that compaction removed."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=f"{target.topic}.other")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(target.topic, b"10", key=b"key", partition=0)
    await producer.stop()
    async with started(log.reader()) as reader:
        ends = await eventually(lambda: whole(reader, target))
        await reader.assign({target: 0})
        found: list[int] = []
        async with asyncio.timeout(20):
            while await reader.positions() != ends:
                found += numbers_of((await getattr(reader, fetch)(timeout=0.2)).get(target, ()))
        assert found == list(range(11))
