"""What is compared before and after a replay shows every kind of change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headrace import Settings
from headrace.kafka.log import KafkaLog
from headrace.ports import TopicPartition
from support.clusters import state_of
from support.log import numbered, plain_topic
from support.sandboxes import commit_as_another


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


@pytest.fixture
async def own_log(fragile_settings: Settings) -> AsyncIterator[KafkaLog]:
    """A cluster that this module has for itself: what is made here would be seen by tests that look beside it on another."""
    made = KafkaLog(fragile_settings)
    yield made
    await made.close()


async def test_a_change_outside_of_the_namespace_is_seen(own_log: KafkaLog, fragile_settings: Settings) -> None:
    """Nobody knows before where something goes wrong."""
    place = TopicPartition("stray", 0)
    states = [await state_of(fragile_settings)]
    await own_log.create_topics([plain_topic(place.topic)])
    states.append(await state_of(fragile_settings))
    await commit_as_another(own_log, "strangers", place, 7)
    states.append(await state_of(fragile_settings))
    await commit_as_another(own_log, "strangers", place, 8)
    states.append(await state_of(fragile_settings))
    assert all(one != other for number, one in enumerate(states) for other in states[number + 1 :])
    assert states[-1].groups["strangers"] == {place: 8}


@pytest.mark.parametrize("namespace_of_another", ["test-00000000", "bench-00000000", "demo-0"])
async def test_what_other_tests_do_is_not_looked_at(
    own_log: KafkaLog, fragile_settings: Settings, namespace_of_another: str
) -> None:
    before = await state_of(fragile_settings)
    place = TopicPartition(f"{namespace_of_another}.some", 0)
    await own_log.create_topics([plain_topic(place.topic)])
    await commit_as_another(own_log, f"{namespace_of_another}.group", place, 7)
    assert place.topic in await own_log.topic_names()
    assert await state_of(fragile_settings) == before
