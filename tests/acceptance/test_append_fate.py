"""What becomes of a record whose writer waits in vain: it is taken back, or may land, and the caller is told which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError, RequestTimedOutError

from headrace import Client, EnqueueTimeout, JobContext, WorkerEngine, worker
from headrace.broker import LocalBroker
from headrace.errors import AppendTimeout, BrokerError
from headrace.kafka import KafkaLog
from headrace.kafka.writer import KafkaWriter
from headrace.ports import AppendFailed, NewRecord, TopicPartition
from headrace.settings import Settings
from headrace.workers.memory_compaction import MemoryCompactionWorker
from support.log import Outcomes, eventually, numbered, numbers_of, plain_topic, read, read_topic, started
from support.outages import frozen

PATIENCE_SECONDS = 20.0


@pytest.fixture
async def log(fragile_settings: Settings) -> AsyncIterator[KafkaLog]:
    made = KafkaLog(fragile_settings)
    yield made
    await made.close()


@pytest.fixture
async def target(log: KafkaLog, namespace: str) -> TopicPartition:
    name = f"{namespace}.things"
    await log.create_topics([plain_topic(name)])
    return TopicPartition(name, 0)


async def test_a_job_that_was_taken_back_is_not_accepted_later(
    fragile_broker: LocalBroker, fragile_settings: Settings, log: KafkaLog
) -> None:
    arguments = {"userId": "ann", "conversationId": "c"}  # one ordering key: one partition
    async with Client(fragile_settings) as client:
        known = await client.enqueue(MemoryCompactionWorker, arguments)
        async with frozen(fragile_broker):
            with pytest.raises(EnqueueTimeout, match="idempotency_key") as under_way:
                await client.enqueue(MemoryCompactionWorker, arguments, timeout=0.5)
            with pytest.raises(EnqueueTimeout, match="was not accepted") as waiting:
                await client.enqueue(MemoryCompactionWorker, arguments, timeout=0.5)
            with pytest.raises(EnqueueTimeout) as many:
                await client.enqueue_many(MemoryCompactionWorker, [arguments] * 1_000, timeout=0.5)
        assert under_way.value.may_be_accepted
        assert not waiting.value.may_be_accepted
        assert not many.value.may_be_accepted
        last = await client.enqueue(MemoryCompactionWorker, arguments, timeout=PATIENCE_SECONDS)
    assert known.source is not None
    assert last.source is not None
    assert last.source.offset == 2
    queue = TopicPartition(known.source.topic, known.source.partition)
    accepted = (await read_topic(log, queue.topic, 3))[queue]
    assert [orjson.loads(record.value or b"")["id"] for record in accepted] == [known.id, under_way.value.job_id, last.id]


async def test_a_call_that_is_repeated_with_its_key_makes_one_job(
    fragile_broker: LocalBroker, fragile_settings: Settings, log: KafkaLog
) -> None:
    done: list[int] = []

    @worker(name="count")
    async def count(args: dict[str, int], ctx: JobContext) -> None:
        done.append(args["n"])

    engine = WorkerEngine(fragile_settings)
    engine.register_worker(count)
    async with engine, Client(fragile_settings) as client:
        one_partition = partial(client.enqueue, count, ordering_key="c")
        await one_partition({"n": 0}, timeout=PATIENCE_SECONDS)
        lost_by = pytest.raises(EnqueueTimeout, match="repeat the call only with the same idempotency_key")
        async with frozen(fragile_broker):
            with lost_by as lost:
                await one_partition({"n": 1}, idempotency_key="k", timeout=0.5)
        assert lost.value.may_be_accepted
        again = await one_partition({"n": 1}, idempotency_key="k", timeout=PATIENCE_SECONDS)
        last = await one_partition({"n": 2}, timeout=PATIENCE_SECONDS)
        assert again.id == lost.value.job_id
        assert last.source is not None
        assert last.source.offset == 3, "both calls are in the log"
        await eventually(lambda: 2 in done, "the last job")
    committed = await log.committed_offsets(engine.topics.group("count"))
    assert committed[TopicPartition(last.source.topic, last.source.partition)] == 4
    assert done == [0, 1, 2]


async def test_what_a_caller_no_longer_waits_for_is_taken_back(
    fragile_broker: LocalBroker, log: KafkaLog, target: TopicPartition
) -> None:
    async with started(log.writer()) as writer:
        await writer.append(target, NewRecord(b"key", b"0"), timeout=10)
        async with frozen(fragile_broker):
            under_way = asyncio.create_task(writer.append(target, NewRecord(b"key", b"1"), timeout=PATIENCE_SECONDS))
            await eventually(lambda: writer._lanes[target].in_flight is not None, "the record is under way")
            cancelled = asyncio.create_task(writer.append(target, NewRecord(b"key", b"2"), timeout=PATIENCE_SECONDS))
            await eventually(lambda: not writer._lanes[target].is_empty, "the record waits")
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert (await under_way).offset == 1
        assert (await writer.append(target, NewRecord(b"key", b"3"), timeout=PATIENCE_SECONDS)).offset == 2
    assert numbers_of((await read_topic(log, target.topic, 3))[target]) == [0, 1, 3]


async def test_what_waits_is_bounded(fragile_broker: LocalBroker, log: KafkaLog, target: TopicPartition) -> None:
    large = NewRecord(b"key", b"x" * 10_000)
    writer = KafkaWriter(log._cluster, log._administration, appended_bytes=100_000)
    async with started(writer):
        await writer.append(target, large, timeout=10)
        async with frozen(fragile_broker):
            under_way = asyncio.create_task(writer.append(target, large, timeout=PATIENCE_SECONDS))
            await eventually(lambda: writer._lanes[target].in_flight is not None, "the record is under way")
            waiting = asyncio.create_task(writer.append_all([(target, large)] * 100, timeout=1.0))
            # It stands behind those, and gets no room in its time.
            with pytest.raises(AppendTimeout) as outside:
                await writer.append(target, large, timeout=0.5)
            assert not outside.value.may_land
            assert writer._room.used <= 100_000
            outcomes = await waiting
            assert all(isinstance(outcome, AppendFailed) and not outcome.may_land for outcome in outcomes)
            # What waited in vain has left room for what comes.
            behind = asyncio.create_task(writer.append(target, large, timeout=PATIENCE_SECONDS))
        assert (await under_way).offset == 1
        assert (await behind).offset == 2
        assert writer._room.used == 0


async def test_what_is_no_record_fails_alone(log: KafkaLog, target: TopicPartition) -> None:
    no_record = NewRecord("text", b"value")  # type: ignore[arg-type]
    async with started(log.writer()) as writer:
        for _ in range(2):
            with pytest.raises(BrokerError, match="cannot be encoded"):
                await writer.append(target, no_record, timeout=PATIENCE_SECONDS)
        [good] = numbered([0])
        outcomes = await writer.append_all([(target, no_record), (target, good)], timeout=PATIENCE_SECONDS)
        assert [isinstance(outcome, AppendFailed) for outcome in outcomes] == [True, False]
        assert writer.failure is None
    assert numbers_of((await read_topic(log, target.topic, 1))[target]) == [0]


async def test_more_than_fits_at_once_is_written_piece_by_piece(log: KafkaLog, target: TopicPartition) -> None:
    writer = KafkaWriter(log._cluster, log._administration, appended_bytes=50_000)
    async with started(writer):
        records = [(target, record) for record in numbered(range(100), size=10_000)]
        assert len(await writer.append_all(records, timeout=PATIENCE_SECONDS)) == 100
    assert numbers_of((await read_topic(log, target.topic, 100))[target]) == list(range(100))


async def test_a_refusal_after_an_answer_was_lost_says_nothing_of_the_record(
    fragile_broker: LocalBroker, log: KafkaLog, namespace: str
) -> None:
    """aiokafka repeats what was not answered; the broker may by then refuse what it has in its log already."""
    target, other = [TopicPartition(f"{namespace}.things", number) for number in range(2)]
    await log.create_topics([plain_topic(target.topic, 2)])
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        await writer.append(target, NewRecord(b"key", b"0"), timeout=10)
        client = writer._channel.producer.client
        send = client.send

        async def send_and_lose_the_answer(*arguments: Any, **options: Any) -> Any:
            client.send = send
            await send(*arguments, **options)
            await _limit_records(fragile_broker, other, 1_000)
            raise RequestTimedOutError

        client.send = send_and_lose_the_answer
        writer.submit(target, numbered([1], size=5_000), outcomes.expect())
        [failure] = (await outcomes.failures()).values()
        assert failure.may_land
        assert "MessageSizeTooLarge" in str(failure.reason)
    async with started(log.reader()) as reader:
        await reader.assign({target: 0})
        assert numbers_of((await read(reader, 2))[target]) == [0, 1]
        assert (await reader.end_offsets([target])) == {target: 2}


async def _limit_records(broker: LocalBroker, probed: TopicPartition, size: int) -> None:
    """Lets a topic take batches of so many bytes alone, and waits until it does: a partition of it gets some that are larger."""
    administration = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await administration.start()
    try:
        await administration.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, probed.topic, configs={"max.message.bytes": str(size)})]
        )
    finally:
        await administration.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    await producer.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(MessageSizeTooLargeError):
                while True:
                    await producer.send_and_wait(probed.topic, b"x" * (size + 1), partition=probed.partition)
    finally:
        await producer.stop()


async def test_an_error_that_nobody_expected_fails_what_waits(
    log: KafkaLog, target: TopicPartition, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        assert writer.failure is None

        async def hand_over(lane: object) -> None:
            raise RuntimeError("a fault of the code")

        monkeypatch.setattr(writer, "_hand_over", hand_over)
        writer.submit(target, numbered([0]), outcomes.expect("waited"))
        await _assert_failed(writer, target, outcomes)
    assert "nobody expected" in caplog.text


async def test_a_producer_that_cannot_be_made_anew_fails_what_waits(
    log: KafkaLog, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TopicPartition(f"{namespace}.small", 0)
    await log.create_topics([plain_topic(target.topic, max_message_bytes="100000")])
    outcomes = Outcomes()
    async with started(log.writer()) as writer:

        async def make_producer() -> None:
            raise RuntimeError("a fault of the code")

        monkeypatch.setattr(writer, "_make_producer", make_producer)
        [refused] = await writer.append_all([(target, NewRecord(b"key", b"x" * 600_000))], timeout=PATIENCE_SECONDS)
        assert isinstance(refused, AppendFailed)
        writer.submit(target, numbered([0]), outcomes.expect("waited"))
        await _assert_failed(writer, target, outcomes)


async def _assert_failed(writer: Any, target: TopicPartition, outcomes: Outcomes) -> None:
    [failure] = (await outcomes.failures()).values()
    assert "a fault of the code" in str(failure.reason)
    assert not failure.may_land
    assert failure.reason is writer.failure
    with pytest.raises(BrokerError, match="must be made anew"):
        await writer.append(target, NewRecord(b"key", b"later"), timeout=PATIENCE_SECONDS)
