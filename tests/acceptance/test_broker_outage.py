"""What clients do while a broker is away, and when it comes back: nothing hangs, nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from headrace.broker import LocalBroker
from headrace.errors import BrokerUnreachable
from headrace.kafka import KafkaLog
from headrace.ports import Committed, NewRecord, TopicPartition
from headrace.settings import KafkaSettings, load_settings
from support.log import Member, Outcomes, members, numbered, numbers_of, read, read_topic, started
from support.outages import Away, frozen, killed

# Every bound below is this much longer than asked for: the machine may be busy. What takes no notice of its time would go on for
# the 40 s of aiokafka's own limits, or for ever.
SLACK_SECONDS = 20.0
SOON_SECONDS = 2.0


@pytest.fixture
async def log(fragile_broker: LocalBroker, namespace: str) -> AsyncIterator[KafkaLog]:
    settings = load_settings(
        bootstrap_servers=fragile_broker.bootstrap_servers,
        namespace=namespace,
        kafka=KafkaSettings(connect_timeout_seconds=20.0),
    )
    made = KafkaLog(settings)
    yield made
    await made.close()


@contextmanager
def asking_briefly(log: KafkaLog) -> Iterator[None]:
    """It waits for brokers no longer than a moment: they are away."""
    cluster = log._cluster
    patience, cluster.connect_timeout = cluster.connect_timeout, SOON_SECONDS
    try:
        yield
    finally:
        cluster.connect_timeout = patience


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    yield
    assert loop.time() - begun < seconds + SLACK_SECONDS


@pytest.mark.parametrize("away", [killed, frozen])
async def test_everything_stops_in_time_and_says_what_is_lost(
    fragile_broker: LocalBroker, log: KafkaLog, topic: str, away: Away
) -> None:
    target = TopicPartition(topic, 0)
    writer, reader, member = log.writer(), log.reader(), Member(log, topic, f"{topic}.group")
    outcomes = Outcomes()
    async with started(writer), started(reader), members(member):
        await writer.append(target, NewRecord(b"key", b"0"), timeout=10)
        await reader.assign({target: 1})
        await member.joined(2)
        await member.pause_polling()
        async with away(fragile_broker):
            for number in range(1_000):
                writer.submit(TopicPartition(topic, number % 2), numbered([number], size=2_000), outcomes.expect(number))
            async with within(1.0):
                with pytest.raises(TimeoutError):
                    await writer.append(target, NewRecord(b"key", b"late"), timeout=1.0)
            assert await reader.fetch(timeout=0.2) == {}
            assert await member.consumer.fetch(timeout=0.2, maximum=10) == {}
            async with within(1.0):
                assert not await member.consumer.commit({target: Committed(0)}, timeout=1.0)
            with asking_briefly(log):
                async with within(SOON_SECONDS):
                    with pytest.raises(BrokerUnreachable, match=fragile_broker.bootstrap_servers):
                        await log.topic_names()
                async with within(SOON_SECONDS):
                    with pytest.raises(BrokerUnreachable, match=fragile_broker.bootstrap_servers):
                        await log.writer().start()
            async with within(1.0):
                await writer.stop(timeout=1.0)
            assert len(await outcomes.failures()) == 1_000
            async with within(2.0):
                await reader.stop()
            async with within(1.0):
                await member.consumer.stop(timeout=1.0)


async def test_everything_goes_on_when_the_broker_is_back(fragile_broker: LocalBroker, log: KafkaLog, topic: str) -> None:
    outcomes = Outcomes()
    member = Member(log, topic, f"{topic}.group")
    partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    async with started(log.writer()) as writer, started(log.reader()) as reader, members(member):
        await member.joined(2)
        await reader.assign(dict.fromkeys(partitions, 0))

        def submit(numbers: range) -> None:
            for number in numbers:
                writer.submit(partitions[number % 2], numbered([number], size=600), outcomes.expect(number))

        submit(range(1_000))
        await read(reader, 100)
        submit(range(1_000, 2_000))  # some of these are under way when the broker dies
        await asyncio.sleep(0)
        async with killed(fragile_broker):
            submit(range(2_000, 3_000))
            with asking_briefly(log), pytest.raises(BrokerUnreachable):
                await reader.end_offsets(partitions)
        offsets = await outcomes.offsets()
        await member.received(3_000)
        assert await member.consumer.commit(dict.fromkeys(partitions, Committed(1_500)), timeout=20)
        assert await log.committed_offsets(f"{topic}.group") == dict.fromkeys(partitions, 1_500)
        assert await reader.end_offsets(partitions) == dict.fromkeys(partitions, 1_500)
        found = await read_topic(log, topic, 3_000)
    for partition, records in found.items():
        assert numbers_of(records) == list(range(partition.partition, 3_000, 2))
        assert [record.offset for record in records] == [offsets[number] for number in numbers_of(records)]
    assert sorted(member.numbers) == list(range(3_000))


async def test_a_client_waits_for_a_broker_that_is_about_to_come(fragile_broker: LocalBroker, namespace: str) -> None:
    settings = load_settings(
        bootstrap_servers=fragile_broker.bootstrap_servers,
        namespace=namespace,
        kafka=KafkaSettings(connect_timeout_seconds=60.0),
    )
    log = KafkaLog(settings)
    async with killed(fragile_broker):
        asking = asyncio.create_task(log.topic_names())
        await asyncio.sleep(0)
    assert isinstance(await asking, set)
    await log.close()
