"""All that stands in a cluster, to be compared with what stood there before.

What a test changes must be seen wherever that is: a group of an application with another name, or a topic that nobody expected.
Only what belongs to other tests is left out. They run beside this one where all share a broker (`KAFKA_BOOTSTRAP_SERVERS`), and
of those that were before it on a broker of its own, records may just be going as their time is over. Each has a namespace of its
own, by which its topics and groups are known: `test-` and eight hex digits, or what `headrace bench` and `headrace demo` make up.
And Kafka's own topics, `__consumer_offsets` among them, change with every group that somebody joins: what groups have committed
is looked at itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from headrace import Settings
from headrace.kafka.log import KafkaLog
from headrace.ports import Log, TopicPartition

_Offsets = dict[str, dict[int, int]]


@dataclass(frozen=True)
class ClusterState:
    """What a cluster has, but for what belongs to other tests, and to Kafka itself.

    Attributes:
        starts: the offset of the first record that is still there of each partition of each topic.
        ends: the end offset of each partition of each topic.
        configurations: all settings of each topic.
        groups: what each consumer group has committed.
    """

    starts: Mapping[str, Mapping[int, int]]
    ends: Mapping[str, Mapping[int, int]]
    configurations: Mapping[str, Mapping[str, str]]
    groups: Mapping[str, Mapping[TopicPartition, int]]


_OF_A_TEST = re.compile(r"(test-[0-9a-f]{8}|bench-[0-9a-f]{8}|demo-[0-9a-f]+)(?=[.]|$)")


def _owner_of(name: str) -> str | None:
    """The namespace of a test to which something of that name belongs, or None."""
    found = _OF_A_TEST.match(name)
    return None if found is None else found[0]


async def state_of(settings: Settings) -> ClusterState:
    """What is there now.

    Args:
        settings: the namespace tells which test looks; it may be a sandbox of that.
    """
    own = _owner_of(settings.namespace)

    def is_looked_at(name: str) -> bool:
        return _owner_of(name) in (None, own) and not name.startswith("__")

    log = KafkaLog(settings)
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await client.start()
    try:
        topics = sorted(filter(is_looked_at, await log.topic_names()))
        groups = sorted(name for name, _ in await client.list_consumer_groups() if is_looked_at(name))
        committed = {group: await log.committed_offsets(group) for group in groups}
        starts, ends = await _bounds(log, topics)
        return ClusterState(starts, ends, await _configurations(client, topics), committed)
    finally:
        await client.close()
        await log.close()


async def _bounds(log: Log, topics: Collection[str]) -> tuple[_Offsets, _Offsets]:
    reader = log.reader()
    await reader.start()
    try:
        partitions = [TopicPartition(name, number) for name in topics for number in range(await log.partition_count(name))]
        starts, ends = await reader.start_offsets(partitions), await reader.end_offsets(partitions)
        return _by_topic(topics, starts), _by_topic(topics, ends)
    finally:
        await reader.stop()


def _by_topic(topics: Collection[str], offsets: Mapping[TopicPartition, int]) -> _Offsets:
    found: _Offsets = {name: {} for name in topics}
    for partition, offset in offsets.items():
        found[partition.topic][partition.partition] = offset
    return found


async def _configurations(client: Any, topics: Collection[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    for response in await client.describe_configs(resources) if resources else ():
        for _, _, _, name, entries in response.resources:
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found
