"""What is compared before and after a replay shows every kind of change."""

from __future__ import annotations

import pytest

from headrace import Settings
from headrace.kafka.log import KafkaLog
from headrace.ports import TopicPartition
from support.clusters import state_of
from support.log import numbered, plain_topic


@pytest.mark.parametrize("change", ["records written", "records deleted", "topic made", "topic deleted"])
async def test_a_change_is_seen(log: KafkaLog, settings: Settings, change: str) -> None:
    topic, another = plain_topic(f"{settings.namespace}.some"), plain_topic(f"{settings.namespace}.another")
    await log.create_topics([topic])
    writer, place = log.writer(), TopicPartition(topic.name, 0)
    await writer.start()
    try:
        for record in numbered([1, 2]):
            await writer.append(place, record, timeout=30)
        before = await state_of(settings)
        assert await state_of(settings) == before
        match change:
            case "records written":
                await writer.append(place, numbered([3])[0], timeout=30)
            case "records deleted":
                await log.delete_records({place: 1})
            case "topic made":
                await log.create_topics([another])
            case _:
                await log.delete_topics([topic.name])
        assert await state_of(settings) != before
    finally:
        await writer.stop(timeout=5)
        names = await log.topic_names()
        await log.delete_topics([each.name for each in (topic, another) if each.name in names])
