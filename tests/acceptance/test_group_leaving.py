"""A member that goes while its group deals out partitions must not be given any: they would lie idle until its session ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection

from headrace import Settings
from headrace.kafka.closing import close_client
from headrace.kafka.leaving import client_id_of, leave_groups
from headrace.kafka.log import KafkaLog
from headrace.ports import GroupListener, TopicPartition
from support.engines import eventually
from support.log import plain_topic
from support.loop_errors import told_to_the_loop

PARTITIONS = 6


class Holder:
    """A member whose answer to a revocation can be held back, which holds the whole group in the middle of a change."""

    def __init__(self) -> None:
        self.partitions: Collection[TopicPartition] = ()
        self.revoked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    def listener(self) -> GroupListener:
        return GroupListener(self._assigned, self._revoked)

    def _assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.partitions = partitions

    async def _revoked(self, _: Collection[TopicPartition]) -> None:
        self.partitions = ()
        self.revoked.set()
        await self.may_go_on.wait()


async def test_a_member_that_stops_before_it_was_given_partitions_gets_none(settings: Settings, namespace: str) -> None:
    log, topic = KafkaLog(settings), plain_topic(f"{namespace}.things", PARTITIONS)
    await log.create_topics([topic])
    holder, unlucky = Holder(), Holder()
    first = log.group_consumer(topic.name, f"{namespace}.group", holder.listener())
    second = log.group_consumer(topic.name, f"{namespace}.group", unlucky.listener())
    try:
        await first.start()

        async def has_all() -> bool:
            await first.fetch(timeout=0.05, maximum=1)
            return len(holder.partitions) == PARTITIONS

        await eventually(has_all)
        await second.start()
        async with asyncio.timeout(30):
            await holder.revoked.wait()
        await second.stop(timeout=5)
        holder.may_go_on.set()
        # Far within the session timeout of 45 s, for which the group would have waited for the one that went.
        await eventually(has_all, within=15)
        assert unlucky.partitions == ()
    finally:
        await first.stop(timeout=5)
        await second.stop(timeout=5)
        await log.close()


async def test_a_member_that_stops_in_the_moment_in_which_it_begins_to_read(settings: Settings, namespace: str) -> None:
    log, topic, holder = KafkaLog(settings), plain_topic(f"{namespace}.things"), Holder()
    await log.create_topics([topic])
    member = log.group_consumer(topic.name, f"{namespace}.group", holder.listener())
    with told_to_the_loop() as told:
        try:
            await member.start()
            reading = asyncio.create_task(member.fetch(timeout=0.05, maximum=1))
            await asyncio.sleep(0)  # it begins to read with the next turn of the loop
            await member.stop(timeout=5)
            assert await reading == {}
        finally:
            await member.stop(timeout=5)
            await log.close()
        gc.collect()  # what nobody has looked at is told of when it is let go
    assert told == []


async def test_a_dead_member_whose_id_nobody_was_told_is_taken_out_by_its_client_id(settings: Settings, namespace: str) -> None:
    """It died while the group was dealing out its partitions: without it the others get theirs at once."""
    group, topic = f"{namespace}.group", plain_topic(f"{namespace}.things", PARTITIONS)
    log, others = KafkaLog(settings), KafkaLog(settings, client_id=client_id_of("dead"))
    await log.create_topics([topic])
    holder, dead = Holder(), Holder()
    first = log.group_consumer(topic.name, group, holder.listener())
    second = others.group_consumer(topic.name, group, dead.listener())
    try:
        await first.start()

        async def has_all() -> bool:
            await first.fetch(timeout=0.05, maximum=1)
            return len(holder.partitions) == PARTITIONS

        await eventually(has_all)
        await second.start()
        async with asyncio.timeout(30):
            await holder.revoked.wait()
        # Its process is gone: it neither joins on, nor says that it goes.
        await close_client(second._consumer, timeout=0)
        await leave_groups(settings, {group: ""}, client_id_of("dead"))
        holder.may_go_on.set()
        # Far within the 30 s that the group would have waited for it.
        await eventually(has_all, within=15)
    finally:
        await first.stop(timeout=5)
        await second.stop(timeout=5)
        await log.close()
        await others.close()
