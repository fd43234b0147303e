"""What a log promises of topics."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.topics import Topics
from headrace.errors import TopicMisconfigured, TopicMissing
from headrace.ports import Log, NewRecord, TopicPartition
from support.log import plain_topic, started


async def test_what_is_missing_is_created(log: Log, namespace: str) -> None:
    topics = [plain_topic(f"{namespace}.one", 1), plain_topic(f"{namespace}.five", 5)]
    await log.create_topics(topics)
    assert {topic.name for topic in topics} <= await log.topic_names()
    assert [await log.partition_count(topic.name) for topic in topics] == [1, 5]


async def test_what_exists_is_success(log: Log, namespace: str) -> None:
    topic = plain_topic(f"{namespace}.again", 2)
    await log.create_topics([topic])
    await log.create_topics([topic, plain_topic(f"{namespace}.more", 1)])
    assert await log.partition_count(f"{namespace}.more") == 1


async def test_another_number_of_partitions_is_taken_as_it_is(log: Log, namespace: str) -> None:
    topic = plain_topic(f"{namespace}.kept", 3)
    await log.create_topics([topic])
    await log.create_topics([replace(topic, partitions=7)])
    assert await log.partition_count(topic.name) == 3


async def test_a_setting_that_guards_data_must_be_right(log: Log, namespace: str) -> None:
    topic = plain_topic(f"{namespace}.guarded", 1, cleanup_policy="delete")
    await log.create_topics([topic])
    with pytest.raises(TopicMisconfigured, match=r"(?s)cleanup\.policy=delete.*cleanup\.policy=compact"):
        await log.create_topics([replace(topic, configuration={**topic.configuration, "cleanup.policy": "compact"})])


async def test_a_setting_that_guards_nothing_may_differ(log: Log, namespace: str) -> None:
    topic = plain_topic(f"{namespace}.free", 1, segment_ms="600000")
    await log.create_topics([topic])
    await log.create_topics([replace(topic, configuration={**topic.configuration, "segment.ms": "700000"})])
    assert await log.partition_count(topic.name) == 1


async def test_a_topic_may_keep_its_records_for_longer_and_not_for_less(log: Log, namespace: str) -> None:
    topic = Topics(namespace).ended_keys(60)
    await log.create_topics([topic])
    await log.create_topics([Topics(namespace).ended_keys(30)])
    with pytest.raises(TopicMisconfigured, match=r"(?s)retention\.ms=120000.*retention\.ms=240000"):
        await log.create_topics([Topics(namespace).ended_keys(120)])


async def test_a_topic_that_does_not_exist_is_not_made_by_asking(log: Log, namespace: str) -> None:
    with pytest.raises(TopicMissing, match=f"{namespace}.nowhere"):
        await log.partition_count(f"{namespace}.nowhere")
    assert f"{namespace}.nowhere" not in await log.topic_names()


async def test_a_deleted_topic_is_gone_and_can_be_made_anew(log: Log, namespace: str) -> None:
    topic = plain_topic(f"{namespace}.passing", 2)
    await log.create_topics([topic])
    async with started(log.writer()) as writer:
        await writer.append(TopicPartition(topic.name, 0), NewRecord(b"key", b"value"), timeout=30)
    await log.delete_topics([topic.name, f"{namespace}.never-was"])
    assert topic.name not in await log.topic_names()
    with pytest.raises(TopicMissing):
        await log.partition_count(topic.name)
    await log.create_topics([replace(topic, partitions=1)])
    async with started(log.reader()) as reader:
        assert await reader.end_offsets([TopicPartition(topic.name, 0)]) == {TopicPartition(topic.name, 0): 0}
    assert await log.partition_count(topic.name) == 1
