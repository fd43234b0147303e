"""What a group has committed, asked for while its broker is starting: an error is never taken for "nothing yet"."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from aiokafka.errors import GroupLoadInProgressError, KafkaError, NotCoordinatorForGroupError, UnknownTopicOrPartitionError
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from headrace.broker import LocalBroker
from headrace.errors import BrokerError
from headrace.kafka import KafkaLog
from headrace.kafka.committed import answered_offsets
from headrace.ports import Committed, TopicPartition
from headrace.settings import Settings
from support.log import Member, members, plain_topic
from support.outages import killed

COMMITS = 400


@pytest.mark.parametrize(
    ("code", "error"),
    [(14, GroupLoadInProgressError), (16, NotCoordinatorForGroupError), (3, UnknownTopicOrPartitionError)],
)
def test_an_error_is_an_error_of_the_group_or_of_a_partition(code: int, error: type[KafkaError]) -> None:
    with pytest.raises(error):
        answered_offsets(OffsetFetchResponse_v3(0, [], code))
    with pytest.raises(error):
        answered_offsets(OffsetFetchResponse_v3(0, [("topic", [(0, -1, "", code)])], 0))
    assert answered_offsets(OffsetFetchResponse_v3(0, [], 0)) == {}


async def test_a_broker_that_starts_is_not_believed_that_nothing_was_committed(
    fragile_broker: LocalBroker, fragile_settings: Settings, namespace: str
) -> None:
    log, topic, group = KafkaLog(fragile_settings), f"{namespace}.things", f"{namespace}.group"
    partition = TopicPartition(topic, 0)
    told: list[Committed | None] = []
    listed: list[Mapping[TopicPartition, int]] = []
    await log.create_topics([plain_topic(topic, 2)])
    member = Member(log, topic, group)
    asking: list[asyncio.Task[None]] = []

    async def ask_member() -> None:
        while True:
            try:
                told.append((await member.consumer.committed([partition]))[partition])
            except BrokerError:
                await asyncio.sleep(0.01)

    async def ask_log() -> None:
        while True:
            try:
                listed.append(await log.committed_offsets(group))
            except BrokerError:
                await asyncio.sleep(0.01)

    try:
        async with members(member):
            await member.joined(2)
            # The more was committed, the longer a broker loads it.
            for number in range(1, COMMITS + 1):
                assert await member.consumer.commit({partition: Committed(number, "x" * 1_000)})
            asking += [asyncio.create_task(ask_member()), asyncio.create_task(ask_log())]
            for _ in range(3):
                async with killed(fragile_broker):
                    told.clear()
                    listed.clear()
                async with asyncio.timeout(60):
                    while not (told and listed):  # noqa: ASYNC110 - nothing tells of it
                        await asyncio.sleep(0.01)
                assert {each.offset if each else None for each in told} == {COMMITS}
                assert {each.get(partition) for each in listed} == {COMMITS}
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    finally:
        for task in asking:
            task.cancel()
        await log.close()
