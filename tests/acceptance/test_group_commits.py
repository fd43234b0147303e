"""A commit that is given up while its request is under way: what the broker answers then is no error of anybody's."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from aiokafka.errors import NotCoordinatorForGroupError
from aiokafka.protocol.commit import OffsetCommitRequest

from headrace.kafka import KafkaLog
from headrace.kafka.group import KafkaGroupConsumer
from headrace.ports import Committed, TopicPartition
from support.log import Member, eventually, members
from support.loop_errors import told_to_the_loop


async def test_the_error_of_a_commit_that_nobody_waits_for_is_not_reported_as_lost(
    log: KafkaLog, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(log, topic, f"{topic}.group")
    with told_to_the_loop() as lost:
        async with members(member):
            await member.joined(2)
            consumer = member.consumer
            assert isinstance(consumer, KafkaGroupConsumer)
            coordinator = consumer._consumer._coordinator
            send, answer, answered = coordinator._send_req, asyncio.Event(), asyncio.Event()

            async def send_late(request: Any) -> Any:
                if not isinstance(request, OffsetCommitRequest):
                    return await send(request)
                await answer.wait()
                answered.set()
                raise NotCoordinatorForGroupError

            monkeypatch.setattr(coordinator, "_send_req", send_late)
            committing = {TopicPartition(topic, 0): Committed(0)}
            assert not await consumer.commit(committing, timeout=0.1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await consumer.commit(committing)
            answer.set()
            async with asyncio.timeout(10):
                await answered.wait()
            # The tasks that nobody waits for have ended, and are collected: then asyncio would report them.
            await eventually(lambda: not any("_do_commit_offsets" in repr(each) for each in asyncio.all_tasks()), "their end")
            gc.collect()
            assert lost == []
            monkeypatch.setattr(coordinator, "_send_req", send)
            assert await consumer.commit(committing), "the next gets through"
