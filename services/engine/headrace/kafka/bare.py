"""The client alone, doing what an engine or a caller does with it and nothing else: what benchmarks compare with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.structs import TopicPartition as ClientTopicPartition

from headrace.kafka.connection import Cluster
from headrace.kafka.lane import BATCH_BYTES
from headrace.ports import Header, TopicPartition
from headrace.settings import Settings

_FETCH_BYTES = 4 * 1024 * 1024


class BareProducer:
    """A producer that is connected; made by `BareClient.producer`."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    async def append(self, target: TopicPartition, key: bytes, payload: bytes) -> None:
        """Writes one record, and waits until all in-sync replicas have it."""
        await self._producer.send_and_wait(target.topic, payload, key=key, partition=target.partition)


class BareClient:
    """aiokafka, with the settings that headrace uses it with."""

    def __init__(self, settings: Settings) -> None:
        self._cluster = Cluster(settings)

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[BareProducer]:
        """A producer for as long as the block lasts."""
        producer = await self._producer()
        try:
            yield BareProducer(producer)
        finally:
            await producer.stop()

    async def _producer(self) -> Any:
        return await self._cluster.connect(
            lambda options: AIOKafkaProducer(
                **options, acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=BATCH_BYTES
            )
        )

    async def _consumer(self, topic: str, group: str | None) -> Any:
        return await self._cluster.connect(
            lambda options: AIOKafkaConsumer(
                topic,
                **options,
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=500,
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
        )

    async def _consumer_of_nothing(self) -> Any:
        return await self._cluster.connect(
            lambda options: AIOKafkaConsumer(
                **options, group_id=None, enable_auto_commit=False, max_partition_fetch_bytes=_FETCH_BYTES
            )
        )

    async def drain(self, topic: str, count: int, target: str, payloads: Sequence[bytes], headers: Sequence[Header]) -> float:
        """Reads `count` records and writes each payload once for each of them, by one `send_batch` per partition and turn.

        Returns the records per second from the first fetch to the last acknowledgement.
        """
        producer, consumer = await asyncio.gather(self._producer(), self._consumer(topic, f"{topic}.bare"))
        under_way: set[asyncio.Future[Any]] = set()
        try:
            taken, started = 0, 0.0
            while taken < count:
                batches = await consumer.getmany(timeout_ms=500, max_records=4000)
                started = started or (time.perf_counter() if batches else 0.0)
                for source, records in batches.items():
                    taken += len(records)
                    for payload in payloads:
                        await self._send(producer, TopicPartition(target, source.partition), records, payload, headers, under_way)
            await asyncio.gather(*under_way)
            return taken / (time.perf_counter() - started)
        finally:
            await consumer.stop()
            await producer.stop()

    async def _send(
        self,
        producer: Any,
        target: TopicPartition,
        records: Sequence[ConsumerRecord[bytes, bytes]],
        payload: bytes,
        headers: Sequence[Header],
        under_way: set[asyncio.Future[Any]],
    ) -> None:
        batch = producer.create_batch()
        for record in records:
            if batch.append(key=record.key, value=payload, timestamp=None, headers=headers) is None:
                await self._hand_over(producer, batch, target, under_way)
                batch = producer.create_batch()
                batch.append(key=record.key, value=payload, timestamp=None, headers=headers)
        await self._hand_over(producer, batch, target, under_way)

    async def _hand_over(self, producer: Any, batch: Any, target: TopicPartition, under_way: set[asyncio.Future[Any]]) -> None:
        batch.close()
        answer = await producer.send_batch(batch, target.topic, partition=target.partition)
        under_way.add(answer)
        answer.add_done_callback(under_way.discard)

    async def read(self, partition: TopicPartition, first: int, end: int) -> float:
        """Seconds for reading the records of a partition from `first` up to `end`, once the client is connected."""
        source = ClientTopicPartition(*partition)
        consumer = await self._consumer_of_nothing()
        try:
            started = time.perf_counter()
            consumer.assign([source])
            consumer.seek(source, first)
            while await consumer.position(source) < end:
                await consumer.getmany(timeout_ms=500, max_records=2000)
            return time.perf_counter() - started
        finally:
            await consumer.stop()

    async def append_one_by_one(self, target: TopicPartition, payload: bytes, seconds: float) -> float:
        """Acknowledged records per second, each written when the one before was acknowledged."""
        producer = await self._producer()
        try:
            await producer.send_and_wait(target.topic, payload, key=b"key", partition=target.partition)
            count, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                await producer.send_and_wait(target.topic, payload, key=b"key", partition=target.partition)
                count += 1
            return count / (time.perf_counter() - started)
        finally:
            await producer.stop()

    async def append_many(self, topic: str, partitions: int, payload: bytes, count: int) -> float:
        """Acknowledged records per second, by the client's own `send`, many at a time."""
        producer = await self._producer()
        try:
            started = time.perf_counter()
            answers = [await producer.send(topic, payload, key=b"key", partition=number % partitions) for number in range(count)]
            await asyncio.gather(*answers)
            return count / (time.perf_counter() - started)
        finally:
            await producer.stop()

    async def round_trips(self, topic: str, count: int, interval: float, payload: bytes) -> list[float]:
        """Seconds from each `send` to its record's arrival at a consumer, at a steady pace."""
        producer, consumer = await asyncio.gather(self._producer(), self._consumer(topic, f"{topic}.bare"))
        sent: dict[bytes, float] = {}
        arrived: list[float] = []

        async def receive() -> None:
            while len(arrived) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    now = time.perf_counter()
                    arrived.extend(now - sent[record.key] for record in records if record.key in sent)

        try:
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=100)
            partitions = len(consumer.assignment())
            receiving = asyncio.create_task(receive())
            start = time.perf_counter()
            for number in range(count):
                await asyncio.sleep(max(0.0, start + number * interval - time.perf_counter()))
                key = b"%d" % number
                sent[key] = time.perf_counter()
                await producer.send_and_wait(topic, payload, key=key, partition=number % partitions)
            await receiving
            return arrived
        finally:
            await consumer.stop()
            await producer.stop()
