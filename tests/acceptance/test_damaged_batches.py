"""A batch that arrives damaged: nothing that was fetched along with it is lost, and it is read again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException

from headrace.errors import BrokerError
from headrace.kafka import KafkaLog
from headrace.ports import Record, TopicPartition
from headrace.settings import Settings
from support.engines import eventually
from support.log import Member, Outcomes, members, numbered, numbers_of, plain_topic, started

ALL = list(range(20))


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[KafkaLog]:
    made = KafkaLog(settings)
    yield made
    await made.close()


@pytest.fixture
async def topic(log: KafkaLog, namespace: str) -> str:
    """Partition 0 has the numbers 0 to 9, and partition 1 has 10 to 19."""
    name = f"{namespace}.things"
    await log.create_topics([plain_topic(name, 2)])
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for partition in range(2):
            numbers = range(partition * 10, partition * 10 + 10)
            writer.submit(TopicPartition(name, partition), numbered(numbers), outcomes.expect(partition))
        await outcomes.offsets()
    return name


@pytest.fixture
def damages(topic: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the partitions whose data was damaged: the first answer for each is, in its middle."""
    done: list[int] = []
    original = PartitionRecords._unpack_records

    def unpack(self: Any) -> Iterator[Any]:
        number = self._tp.partition
        damaged = self._tp.topic == topic and number not in done
        for count, record in enumerate(original(self)):
            if damaged and count == 5:
                done.append(number)
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            yield record

    monkeypatch.setattr(PartitionRecords, "_unpack_records", unpack)
    return done


async def read_all(fetch: Callable[[], Awaitable[Mapping[TopicPartition, Sequence[Record]]]]) -> int:
    """Fetches until all numbers came, each once; returns how many fetches failed."""
    found: list[Record] = []
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


async def test_a_reader_reads_again(log: KafkaLog, topic: str, damages: list[int]) -> None:
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, number): 0 for number in range(2)})
        assert await read_all(lambda: reader.fetch(timeout=0.5)) == 2
    assert sorted(damages) == [0, 1]


async def test_a_member_of_a_group_reads_again(log: KafkaLog, topic: str, damages: list[int]) -> None:
    member = Member(log, topic, f"{topic}.group", resumes=False)
    async with members(member):
        await member.joined(2)
        await member.pause_polling()
        member.consumer.resume([TopicPartition(topic, number) for number in range(2)])
        assert await read_all(lambda: member.consumer.fetch(timeout=0.5, maximum=100)) == 2
    assert sorted(damages) == [0, 1]
