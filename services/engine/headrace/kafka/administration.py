"""Topics: what there is, what is missing, what is not as it must be; and the offsets of groups.

Where a broker creates topics by itself, naming one in a request for metadata is enough to bring it into being, with the
broker's settings instead of ours. So nothing here names a topic in such a request: all are listed, and looked through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition as ClientTopicPartition

from headrace.core.topics import Topic
from headrace.errors import BrokerError, BrokerUnreachable, ConfigurationError, TopicMisconfigured, TopicMissing
from headrace.kafka.closing import close_client
from headrace.kafka.committed import committed_of_group
from headrace.kafka.connection import Cluster
from headrace.ports import TopicPartition

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_MOST_REPLICAS = 3
_MIN_IN_SYNC = "min.insync.replicas"
_RETRY_SECONDS = 0.1
# Of Kafka's request for offsets.
_NEWEST, _NO_REPLICA, _READ_UNCOMMITTED = -1, -1, 0
# Kafka's numbers for what passes by itself: no leader yet, timed out, not the controller, and the coordinators' start.
_PASSING = frozenset({5, 7, 14, 15, 16, 41})


class Administration:
    """The cluster's topics, through one connection that is made when it is first needed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._partition_counts: dict[str, int] = {}
        self._verified: dict[str, Topic] = {}

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_client(client, timeout=1.0)

    async def create_topics(self, topics: Collection[Topic]) -> None:
        """Makes what is missing, checks what exists, and returns when every partition has a leader.

        A topic with another number of partitions is taken as it is: keys and ids would move if it changed.

        Raises:
            TopicMisconfigured: a topic exists with settings under which data could be lost.
            ConfigurationError: the cluster does not take the topic as it is asked for.
            BrokerError: the brokers cannot be reached, or are not done in time.
        """
        wanted = {topic.name: topic for topic in topics if self._verified.get(topic.name) != topic}
        if not wanted:
            return
        existing = await self._call(lambda client: self._create(client, wanted.values()))
        await self._await_leaders(wanted)
        if existing:
            described = await self._call(lambda client: _describe(client, existing))
            for name in existing:
                self._verify(wanted[name], described.get(name, {}))
        self._verified |= wanted

    async def topic_names(self) -> set[str]:
        return set(await self._list())

    async def partition_count(self, topic: str) -> int:
        """How many partitions a topic has. Counts are kept: they never change.

        Raises:
            TopicMissing: there is no such topic.
        """
        if topic not in self._partition_counts:
            partitions = (await self._list()).get(topic)
            if not partitions:
                raise TopicMissing(f"The topic {topic} does not exist. The engine, gateway or client that needs it makes it.")
            self._partition_counts[topic] = len(partitions)
        return self._partition_counts[topic]

    async def delete_topics(self, names: Collection[str]) -> None:
        """Deletes topics with all their records, and returns when they are gone; those that do not exist are passed over."""
        for name in names:
            self._verified.pop(name, None)
            self._partition_counts.pop(name, None)
        if not names:
            return
        response = await self._call(lambda client: client.delete_topics(list(names)))
        for name, code in response.topic_error_codes:
            if code and for_code(code) is not UnknownTopicOrPartitionError:
                raise BrokerError(f"The topic {name} is not deleted: {for_code(code).description or for_code(code).__name__}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._cluster.connect_timeout
        while left := (await self._list()).keys() & set(names):
            if loop.time() > deadline:
                raise BrokerError(f"Still listed {self._cluster.connect_timeout:g} s after deletion: {', '.join(sorted(left))}.")
            await asyncio.sleep(_RETRY_SECONDS)

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Deletes what stands below an offset of each partition; see `Log.delete_records`.

        Raises:
            BrokerError: a partition ends before its offset, or the brokers do not let this client delete.
            TopicMissing: there is no such topic.
        """
        for topic in {partition.topic for partition in offsets}:
            await self.partition_count(topic)
        before = {
            ClientTopicPartition(*partition): RecordsToDelete(before_offset=offset) for partition, offset in offsets.items()
        }
        if before:
            await self._call(lambda client: client.delete_records(before))

    async def committed_offsets(self, group: str) -> dict[TopicPartition, int]:
        offsets = await self._call(lambda client: committed_of_group(client, group))
        return {TopicPartition(*partition): entry.offset for partition, entry in offsets.items()}

    async def _create(self, client: Any, topics: Iterable[Topic]) -> list[str]:
        """Asks for all topics at once, and returns the names of those that are there already."""
        listed = _partitions_by_topic(await client.describe_topics())
        brokers = (await client.describe_cluster())["brokers"]
        if not brokers:
            # As one says of itself that has just come back.
            raise NodeNotReadyError("the cluster names no broker yet")
        replicas = self._cluster.replication_factor or min(_MOST_REPLICAS, len(brokers))
        existing = [topic.name for topic in topics if topic.name in listed]
        missing = [topic for topic in topics if topic.name not in listed]
        if not missing:
            return existing
        if client._client.cluster.controller is None:
            # aiokafka would fail on the missing node.
            raise NodeNotReadyError("the cluster has no controller yet")
        response = await client.create_topics(
            [NewTopic(topic.name, topic.partitions, replicas, topic_configs=_configuration(topic, replicas)) for topic in missing]
        )
        for name, code, *message in response.topic_errors:
            error = for_code(code)
            if error is TopicAlreadyExistsError:
                existing.append(name)
            elif code in _PASSING:
                raise error(name)
            elif code:
                raise ConfigurationError(
                    f"The cluster does not create the topic {name} with {replicas} replica(s): "
                    f"{next(filter(None, message), None) or error.description}. Replicas are set by "
                    f"HEADRACE_KAFKA_REPLICATION_FACTOR; creating topics must be allowed to this client."
                )
        return existing

    async def _await_leaders(self, names: Collection[str]) -> None:
        """Waits until every partition has a leader that serves: it is named a moment before it knows of it itself."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._cluster.connect_timeout
        while True:
            listed = await self._list()
            leaders = {TopicPartition(name, number): leader for name in names for number, leader in listed.get(name, {}).items()}
            pending = {name for name in names if not listed.get(name)}
            pending |= {partition.topic for partition, leader in leaders.items() if leader < 0}
            if not pending:
                pending = await self._call(partial(_not_serving, leaders))
            if not pending:
                self._partition_counts |= {name: len(listed[name]) for name in names}
                return
            if loop.time() > deadline:
                raise BrokerError(
                    f"No leader for every partition of {', '.join(sorted(pending))} within {self._cluster.connect_timeout:g} s. "
                    f"Are all brokers of the cluster up?"
                )
            await asyncio.sleep(_RETRY_SECONDS)

    def _verify(self, topic: Topic, actual: Mapping[str, str]) -> None:
        wrong = {}
        for name in sorted(topic.guarded & topic.configuration.keys()):
            if name not in actual:
                logger.warning("the broker knows no setting %s, which the topic %s relies on", name, topic.name)
            elif not topic.allows(name, actual[name]):
                wrong[name] = actual[name]
        if not wrong:
            return
        found = ", ".join(f"{name}={value}" for name, value in wrong.items())
        right = {name: topic.configuration[name] for name in wrong}
        # Brackets let kafka-configs.sh take a value that has commas itself.
        kafka = ",".join(f"{name}=[{value}]" if "," in value else f"{name}={value}" for name, value in right.items())
        redpanda = " ".join(f"--set {name}={value}" for name, value in right.items())
        raise TopicMisconfigured(
            f"The topic {topic.name} exists with {found}: data could be lost. Mend it with\n"
            f"  kafka-configs.sh --bootstrap-server {self._cluster.bootstrap_servers} --entity-type topics "
            f"--entity-name {topic.name} --alter --add-config '{kafka}'\n"
            f"or, on Redpanda, with\n"
            f"  rpk topic alter-config {topic.name} {redpanda}"
        )

    async def _list(self) -> dict[str, dict[int, int]]:
        """The partitions of every topic, and the broker that leads each, or -1."""
        return _partitions_by_topic(await self._call(lambda client: client.describe_topics()))

    async def _call(self, request: Callable[[Any], Awaitable[ResultT]]) -> ResultT:
        """Sends a request that may be repeated, again and again while the brokers come and go, until the connect timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._cluster.connect_timeout
        while True:
            client = await self._connected()
            try:
                async with asyncio.timeout_at(deadline):
                    return await request(client)
            except (KafkaError, OSError, TimeoutError) as error:
                passing = getattr(error, "retriable", True)
                if not passing:
                    raise BrokerError(f"The broker refuses a request: {error}") from error
                if loop.time() + _RETRY_SECONDS >= deadline:
                    raise BrokerUnreachable(
                        f"{self._cluster.bootstrap_servers}: no answer within {self._cluster.connect_timeout:g} s ({error!r})."
                    ) from error
                # The client may know only brokers that are gone: another one asks the named addresses again.
                if self._client is client:
                    await self.close()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                self._client = await self._cluster.connect(lambda options: AIOKafkaAdminClient(**options))
            return self._client


async def _describe(client: Any, names: Collection[str]) -> dict[str, dict[str, str]]:
    """The settings of topics, with what each got by default."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    described: dict[str, dict[str, str]] = {}
    for response in await client.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code:
                raise for_code(code)(message or name)
            described[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return described


async def _not_serving(leaders: Mapping[TopicPartition, int], client: Any) -> set[str]:
    """The topics with a partition whose leader does not serve it yet."""
    asked: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for (topic, number), leader in leaders.items():
        asked.setdefault(leader, {}).setdefault(topic, []).append((number, _NEWEST))
    pending = set()
    for leader, partitions in asked.items():
        response = await client._client.send(leader, OffsetRequest(_NO_REPLICA, _READ_UNCOMMITTED, list(partitions.items())))
        pending |= {topic for topic, answers in response.topics if any(code for _, code, *_ in answers)}
    return pending


def _configuration(topic: Topic, replicas: int) -> dict[str, str]:
    """The topic's settings; with three copies or more, two have every acknowledged record, and one may be away."""
    in_sync = {_MIN_IN_SYNC: "2"} if replicas >= _MOST_REPLICAS else {}
    return {**in_sync, **topic.configuration}


def _partitions_by_topic(topics: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, int]]:
    return {
        topic["topic"]: {partition["partition"]: partition["leader"] for partition in topic["partitions"]}
        for topic in topics
        if not topic["error_code"]
    }
