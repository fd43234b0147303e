"""A Kafka or Redpanda cluster as the `Log` of `headrace.ports`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headrace.core.topics import Topic
from headrace.kafka.administration import Administration
from headrace.kafka.connection import Cluster
from headrace.kafka.group import KafkaGroupConsumer, Membership
from headrace.kafka.noise import bound_noise
from headrace.kafka.reader import KafkaReader
from headrace.kafka.writer import KafkaWriter
from headrace.ports import GroupListener, TopicPartition
from headrace.settings import Settings


class KafkaLog:
    """The cluster that the settings name. Nothing connects before it is used.

    Args:
        client_id: what the brokers know those by that join groups; see `leave_groups`.

    Raises:
        BrokerNotConfigured: the settings name no broker.
        ConfigurationError: an address, a certificate or the credentials cannot be used.
    """

    def __init__(self, settings: Settings, *, client_id: str | None = None) -> None:
        bound_noise()
        self._client_id = client_id
        self._engine = settings.engine
        self._cluster = Cluster(settings)
        self._administration = Administration(self._cluster)

    async def create_topics(self, topics: Collection[Topic]) -> None:
        """Creates what is missing and checks what exists; see `Log.create_topics`.

        Raises:
            TopicMisconfigured: a topic exists with settings under which data could be lost.
            ConfigurationError: the cluster does not take the topic as it is asked for.
        """
        await self._administration.create_topics(topics)

    async def delete_topics(self, names: Collection[str]) -> None:
        """Deletes topics with all their records; those that do not exist are passed over."""
        await self._administration.delete_topics(names)

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Deletes what stands below an offset of each partition; see `Log.delete_records`.

        Raises:
            BrokerError: a partition ends before its offset, or the brokers do not let this client delete.
            TopicMissing: there is no such topic.
        """
        await self._administration.delete_records(offsets)

    async def topic_names(self) -> set[str]:
        """Every topic of the cluster, whoever made it."""
        return await self._administration.topic_names()

    async def partition_count(self, topic: str) -> int:
        """How many partitions the topic has. Raises `TopicMissing`."""
        return await self._administration.partition_count(topic)

    async def committed_offsets(self, group: str) -> Mapping[TopicPartition, int]:
        """What a group has committed, whether or not it has members."""
        return await self._administration.committed_offsets(group)

    async def close(self) -> None:
        """Ends the connection for topics and offsets. Writers, readers and members are stopped by whoever made them."""
        await self._administration.close()

    def writer(self) -> KafkaWriter:
        return KafkaWriter(self._cluster, self._administration)

    def reader(self) -> KafkaReader:
        return KafkaReader(self._cluster, self._administration)

    def group_consumer(self, topic: str, group: str, listener: GroupListener) -> KafkaGroupConsumer:
        membership = Membership(
            group=group,
            topic=topic,
            session_timeout=self._engine.session_timeout_seconds,
            heartbeat_interval=self._engine.heartbeat_interval_seconds,
            client_id=self._client_id,
        )
        return KafkaGroupConsumer(self._cluster, self._administration, membership, listener)
