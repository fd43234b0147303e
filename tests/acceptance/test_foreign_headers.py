"""Records whose headers have names that are no UTF-8, as other clients can write them: their own batch alone suffers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from headrace import Client, JobContext, Settings, worker
from headrace.kafka import KafkaLog
from headrace.ports import Record, TopicPartition
from support.engines import ended, engine_with, eventually
from support.log import plain_topic, started

NAME, SPOILT = b"zz", b"\xff\xfe"
# Where a batch has its checksum, and what that is of (Kafka's record batch, version 2).
CHECKSUM_AT, CHECKED_FROM = 17, 21


@worker(name="greet")
async def greet(args: dict[str, Any], ctx: JobContext) -> str:
    """Greets."""
    return f"Hello, {args['name']}"


async def write_foreign(settings: Settings, target: TopicPartition, values: Sequence[bytes], spoilt: int) -> None:
    """Writes one batch; the header of one of its records has a name that is no UTF-8."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        batch = producer.create_batch()
        for number, value in enumerate(values):
            headers = [(NAME.decode(), b"x")] if number == spoilt else []
            assert batch.append(timestamp=None, key=b"key", value=value, headers=headers) is not None
        built = bytearray(batch._build())
        at = built.index(NAME)
        built[at : at + len(NAME)] = SPOILT
        struct.pack_into(">I", built, CHECKSUM_AT, calc_crc32c(memoryview(bytes(built[CHECKED_FROM:]))))
        batch._buffer = built
        await (await producer.send_batch(batch, target.topic, partition=target.partition))
    finally:
        await producer.stop()


@pytest.mark.parametrize("fetch", ["fetch", "fetch_unplaced"])
@pytest.mark.parametrize("spoilt", [0, 2, 4])
async def test_a_reader_gets_what_stands_before_it(
    log: KafkaLog, settings: Settings, namespace: str, spoilt: int, fetch: str
) -> None:
    topic = f"{namespace}.things"
    await log.create_topics([plain_topic(topic)])
    target = TopicPartition(topic, 0)
    for batch in range(2):
        await write_foreign(settings, target, [b"%d" % (5 * batch + number) for number in range(5)], spoilt)
    found: list[Record] = []

    async def look() -> bool:
        for records in (await getattr(reader, fetch)(timeout=0.5)).values():
            found.extend(records)
        return len(found) >= 10

    reader = log.reader()
    async with started(reader):
        await reader.assign({target: 0})
        await eventually(look)
        assert (await reader.positions())[target] == 10
    assert [record.offset for record in found] == list(range(10))
    expected = [None if number % 5 >= spoilt else b"%d" % number for number in range(10)]
    assert [record.value for record in found] == expected


async def test_an_engine_does_the_others_and_keeps_where_it_stood(settings: Settings) -> None:
    async with Client(settings) as client, engine_with(settings, greet):
        before = await client.enqueue(greet, {"name": "before"})
        await ended(client, before)
        assert before.source is not None
        target = TopicPartition(before.source.topic, before.source.partition)
        await write_foreign(settings, target, [b'{"id": "foreign"}'], 0)
        jobs = [await client.enqueue(greet, {"name": f"after {number}"}) for number in range(20)]
        assert {(await ended(client, job)).status for job in jobs} == {"completed"}

        async def letters() -> list[Any] | None:
            return [each async for each in client.dead_letters(worker_name=greet.name)] or None

        [letter] = await eventually(letters)
        assert (letter.reason, letter.value) == ("undecodable", None)
        assert letter.source is not None
        assert (letter.source.partition, letter.source.offset) == (target.partition, before.source.offset + 1)
