"""What is done for an engine that has died: its claims are released and its groups left, each even where the other cannot be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from headrace import Settings
from headrace.core.records import lease_key
from headrace.core.topics import Topics
from headrace.errors import BrokerUnreachable
from headrace.kafka.closing import close_client
from headrace.kafka.leaving import client_id_of
from headrace.kafka.log import KafkaLog
from headrace.ports import GroupListener, TopicPartition
from headrace.supervisor import last_rites
from headrace.supervisor.last_rites import LastWill, perform
from headrace.supervisor.told import Claim
from support.engines import eventually, read_all, releases
from support.log import plain_topic

PARTITIONS = 6


async def fails(*_: Any) -> int:
    raise BrokerUnreachable("just now, for a moment")


def will_of(settings: Settings, group: str) -> LastWill:
    return LastWill(
        bootstrap_servers=settings.bootstrap_servers or "",
        topic=Topics(settings.namespace).job_state.name,
        instance_id="dead",
        reason="died",
        claims=[Claim("things", 3, 5, 0, "dead.2")],
        members={group: ""},
        client_id=client_id_of("dead"),
    )


class Member:
    """Has so many partitions of its group."""

    def __init__(self) -> None:
        self.count = 0

    def listener(self) -> GroupListener:
        return GroupListener(self._assigned, self._revoked)

    def _assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.count = len(partitions)

    async def _revoked(self, _: Collection[TopicPartition]) -> None:
        self.count = 0


async def test_groups_are_left_though_nothing_could_be_released(
    settings: Settings, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_rites, "release", fails)
    group, topic = f"{namespace}.group", plain_topic(f"{namespace}.things", PARTITIONS)
    log, others = KafkaLog(settings), KafkaLog(settings, client_id=client_id_of("dead"))
    await log.create_topics([topic])
    heir, dead = Member(), Member()
    first, second = (
        log.group_consumer(topic.name, group, heir.listener()),
        others.group_consumer(topic.name, group, dead.listener()),
    )
    try:
        await first.start()
        await second.start()

        async def have(*counts: int) -> bool:
            await first.fetch(timeout=0.05, maximum=1)
            return (heir.count, dead.count) == counts

        await eventually(lambda: have(3, 3))
        await close_client(second._consumer, timeout=0)  # its process is gone, and does not say so
        with pytest.raises(BrokerUnreachable):
            await perform(will_of(settings, group), settings)
        # Far within the session timeout of 45 s, after which the group would have missed it.
        await eventually(lambda: have(PARTITIONS, 3), within=20)
    finally:
        await first.stop(timeout=5)
        await second.stop(timeout=5)
        await log.close()
        await others.close()


async def test_claims_are_released_though_no_group_could_be_left(
    settings: Settings, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_rites, "leave_groups", fails)
    log = KafkaLog(settings)
    await log.create_topics([Topics(namespace).job_state])
    await log.close()
    with pytest.raises(BrokerUnreachable):
        await perform(will_of(settings, f"{namespace}.group"), settings)
    [released] = await releases(settings)
    written = await read_all(settings, Topics(namespace).job_state)
    assert [record.key for record in written] == [lease_key("things", 3, "dead.2")]
    assert (released["workerName"], released["partition"], released["instanceId"]) == ("things", 3, "dead.2")
