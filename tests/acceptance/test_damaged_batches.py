"""A batch that arrives damaged: nothing that was fetched along with it is lost, and it is read again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from headrace.errors import BrokerError
from headrace.kafka import KafkaLog
from headrace.ports import TopicPartition, UnplacedRecord
from support.engines import eventually
from support.log import Outcomes, numbered, numbers_of, started

ALL = list(range(20))


async def write(log: KafkaLog, topic: str) -> None:
    """Partition 0 gets the numbers 0 to 9, and partition 1 gets 10 to 19."""
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for partition in range(2):
            numbers = range(partition * 10, partition * 10 + 10)
            writer.submit(TopicPartition(topic, partition), numbered(numbers), outcomes.expect(partition))
        await outcomes.offsets()


@pytest.fixture
def unpacked(topic: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the partitions whose data was looked at, in this order. The second is damaged, in its middle."""
    looked_at: list[int] = []
    original = PartitionRecords._unpack_records

    def unpack(self: Any) -> Iterator[Any]:
        if self._tp.topic == topic:
            looked_at.append(self._tp.partition)
        damaged = self._tp.topic == topic and len(looked_at) == 2
        for count, record in enumerate(original(self)):
            if damaged and count == 5:
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            yield record

    monkeypatch.setattr(PartitionRecords, "_unpack_records", unpack)
    return looked_at


async def fetched_ahead(consumer: Any) -> None:
    """Waits until both partitions' data is there, so that one poll looks at both."""

    async def look() -> bool:
        return len(consumer._fetcher._records) == 2

    await eventually(look)


async def read_all(fetch: Callable[[], Awaitable[Mapping[TopicPartition, Sequence[UnplacedRecord]]]]) -> int:
    """Fetches until all numbers came, each once; returns how many fetches failed."""
    found: list[UnplacedRecord] = []
    failures = 0

    async def look() -> bool:
        nonlocal failures
        try:
            for records in (await fetch()).values():
                found.extend(records)
        except BrokerError:
            failures += 1
        return len(found) >= len(ALL)

    await eventually(look)
    assert sorted(numbers_of(found)) == ALL
    return failures


async def test_a_reader_reads_again(log: KafkaLog, topic: str, unpacked: list[int]) -> None:
    reader = log.reader()
    async with started(reader):
        await reader.assign({TopicPartition(topic, number): 0 for number in range(2)})
        await write(log, topic)
        await fetched_ahead(reader._consumer)
        assert await read_all(lambda: reader.fetch(timeout=0.5)) == 1
    assert sorted(unpacked[:2]) == [0, 1]


def damaged_batch() -> bytes:
    """A batch of one record, of which one byte was changed on its way."""
    batch = BatchBuilder(1_000, 0)
    assert batch.append(timestamp=None, key=b"key", value=b"999") is not None
    built = bytearray(batch._build())
    built[-2] ^= 1
    return bytes(built)


@pytest.mark.parametrize("partition", [0, 1])
async def test_a_reader_of_records_without_their_place_reads_again(log: KafkaLog, topic: str, partition: int) -> None:
    reader = log.reader()
    async with started(reader):
        await reader.assign({TopicPartition(topic, number): 0 for number in range(2)})
        await write(log, topic)
        await fetched_ahead(reader._consumer)
        fetched = next(each for place, each in reader._consumer._fetcher._records.items() if place.partition == partition)
        fetched._partition_records._records = MemoryRecords(damaged_batch())
        assert await read_all(lambda: reader.fetch_unplaced(timeout=0.5)) == 0
