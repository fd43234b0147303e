"""How much a look at the log costs: what is asked of the brokers, and how often."""

from __future__ import annotations

from headrace.kafka import KafkaLog
from headrace.ports import TopicPartition
from support.log import plain_topic, started

TOPICS = 6


async def test_many_topics_are_found_with_one_question(log: KafkaLog, namespace: str) -> None:
    """Of one that it does not know aiokafka would learn alone, after a pause: with many workers, looks took seconds."""
    topics = [plain_topic(f"{namespace}.things-{number}") for number in range(TOPICS)]
    await log.create_topics(topics)
    partitions = [TopicPartition(topic.name, 0) for topic in topics]
    async with started(log.reader()) as reader:
        client = reader._consumer._client
        asked: list[set[str]] = []
        update = client._metadata_update

        async def counted(cluster: object, names: set[str]) -> bool:
            asked.append(set(names))
            return bool(await update(cluster, names))

        client._metadata_update = counted
        assert await reader.end_offsets(partitions) == dict.fromkeys(partitions, 0)
        assert len(asked) == 1 and asked[0] == {topic.name for topic in topics}
        await reader.assign({partitions[0]: 0})
        assert await reader.start_offsets(partitions) == dict.fromkeys(partitions, 0)
        assert len(asked) <= 2, "what is known already is not asked for once more"
