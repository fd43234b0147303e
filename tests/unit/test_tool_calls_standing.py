"""Whether tool calls that come as records are taken in, and what is said where they are not."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from headrace.core.topics import Topics
from headrace.errors import BrokerError, BrokerUnreachable
from headrace.ports import NewRecord, TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallOwner, CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer
from headrace.tool_calls.answers import LATE_SECONDS
from headrace.tool_calls.standing import REJOIN_SECONDS
from headrace.tool_models import ToolSuccess
from support.broken_members import break_members
from support.engines import eventually
from support.virtual_time import in_virtual_time

TOPICS = Topics("test")


async def answer() -> ToolSuccess:
    return ToolSuccess(data={})


async def identify(received: ReceivedCall) -> OwnedCall:
    return OwnedCall(CallOwner("default"), answer)


def consumer(log: InMemoryLog) -> ToolCallConsumer:
    return ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="gateway-1", now=wall_clock)


def call(cluster: InMemoryCluster, call_id: str, *, partition: int = 0) -> None:
    value = orjson.dumps({"callId": call_id, "name": "echo"})
    cluster.append(TopicPartition(TOPICS.tool_calls().name, partition), NewRecord(call_id.encode(), value))


async def answered(cluster: InMemoryCluster, count: int) -> None:
    """Returns when so many calls are answered."""

    async def look() -> bool:
        return len(cluster.topic_records(TOPICS.tool_results().name)) >= count

    await eventually(look)


async def trouble_is(made: ToolCallConsumer, text: str | None) -> None:
    """Returns when it has this trouble, or none."""

    async def look() -> bool:
        return made.trouble is None if text is None else text in str(made.trouble)

    await eventually(look)


@in_virtual_time
async def test_it_takes_calls_in_from_when_the_group_has_let_it_in_to_its_stop() -> None:
    log = InMemoryLog(InMemoryCluster())
    made = consumer(log)
    assert made.trouble == "it has not been started yet"
    log.cut_off_from_groups()
    async with made:
        await asyncio.sleep(REJOIN_SECONDS * 2)
        assert "the group" in str(made.trouble)
        log.reconnect()
        await trouble_is(made, None)
    assert made.trouble == "it was stopped"


@in_virtual_time
async def test_it_takes_nothing_in_before_it_knows_what_is_answered() -> None:
    cluster = InMemoryCluster()
    log = InMemoryLog(cluster)
    await log.create_topics([TOPICS.tool_calls(), TOPICS.tool_results()])
    partitions = [TopicPartition(TOPICS.tool_results().name, number) for number in range(TOPICS.tool_results().partitions)]
    for partition in partitions:
        cluster.append(partition, NewRecord(b"call", b"{}"))
    cluster.withhold(*partitions)
    async with consumer(log) as made:
        await trouble_is(made, "which calls are answered")
        cluster.give_out()
        await trouble_is(made, None)


@in_virtual_time
async def test_members_without_a_partition_are_in_no_trouble() -> None:
    cluster = InMemoryCluster()
    async with consumer(InMemoryLog(cluster)) as first:
        await trouble_is(first, None)
        others = [consumer(InMemoryLog(cluster)) for _ in range(TOPICS.tool_calls().partitions)]
        for other in others:
            await other.start()
        for each in (first, *others):
            await trouble_is(each, None)
        assert min(len(each._partitions) for each in (first, *others)) == 0
        for other in others:
            await other.stop()


@in_virtual_time
async def test_a_group_that_deals_its_partitions_out_anew_is_no_trouble_unless_it_takes_too_long() -> None:
    cluster = InMemoryCluster()
    log = InMemoryLog(cluster)
    async with consumer(log) as made:
        await trouble_is(made, None)
        seen: list[str | None] = []

        async def watch() -> None:
            while True:
                seen.append(made.trouble)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        async with consumer(InMemoryLog(cluster)) as other:
            await trouble_is(other, None)
            await trouble_is(made, None)
        await asyncio.sleep(1)
        watching.cancel()
        assert set(seen) == {None}
        held = list(made._partitions)
        await made._revoked(held)
        assert made.trouble is None
        await asyncio.sleep(REJOIN_SECONDS + 1)
        assert "has not dealt them out again" in str(made.trouble)


@in_virtual_time
async def test_a_group_that_does_not_answer_is_a_trouble_until_it_does() -> None:
    log = InMemoryLog(InMemoryCluster())
    async with consumer(log) as made:
        await trouble_is(made, None)
        log.refuse_requests(BrokerUnreachable("nothing answers at memory:9092"))
        await trouble_is(made, "cannot be reached: nothing answers")
        log.accept_requests()
        await trouble_is(made, None)


async def test_a_consumer_that_ends_by_itself_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    broken = break_members(monkeypatch)
    async with consumer(InMemoryLog(InMemoryCluster())) as made:
        await trouble_is(made, None)
        broken.set()
        await trouble_is(made, "it has ended by itself: RuntimeError('nobody expected this')")
    assert [record.levelname for record in caplog.records if "not answered any more" in record.message] == ["ERROR"]


@in_virtual_time
async def test_a_writer_that_writes_nothing_any_more_is_made_anew() -> None:
    cluster = InMemoryCluster()
    log = InMemoryLog(cluster)
    async with consumer(log) as made:
        await trouble_is(made, None)
        log.break_writers(BrokerError("nobody expected this"))
        for number in range(150):
            call(cluster, f"call-{number}")
        await answered(cluster, 150)
        await trouble_is(made, None)


@in_virtual_time
async def test_answers_that_cannot_be_written_are_a_trouble_and_nothing_more_is_done() -> None:
    cluster = InMemoryCluster()
    done: list[str] = []

    async def remember(received: ReceivedCall) -> OwnedCall:
        done.append(received.call_id)
        return OwnedCall(CallOwner("default"), answer)

    async with ToolCallConsumer(InMemoryLog(cluster), CallTopics.of(TOPICS), remember, instance_id="one", now=wall_clock) as made:
        await trouble_is(made, None)
        cluster.refuse_appends(TOPICS.tool_results().name, times=30)
        call(cluster, "first")
        await asyncio.sleep(LATE_SECONDS - 2)
        assert made.trouble is None, "a moment is none"
        await trouble_is(made, "answers cannot be written: ")
        await asyncio.sleep(1)
        call(cluster, "second")
        call(cluster, "elsewhere", partition=1)
        await asyncio.sleep(10)
        assert made.trouble is not None
        # What comes in other partitions is done: of that it is not known.
        assert done == ["first", "elsewhere"]
        await answered(cluster, 3)
        await trouble_is(made, None)
        assert done == ["first", "elsewhere", "second"]
