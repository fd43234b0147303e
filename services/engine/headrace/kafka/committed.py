"""What a group has committed, read so that an error is never taken for "nothing yet".

A broker whose coordinator is still loading, as it is for a moment after its start, answers with an error for the group as a whole
and names no partition. aiokafka 0.14 looks at the errors of partitions alone, and so takes that for a group that has never
committed anything: who believes it reads a queue again from its start.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from aiokafka.errors import KafkaError, NotCoordinatorForGroupError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as ClientTopicPartition

Offsets = dict[ClientTopicPartition, OffsetAndMetadata]

_RETRY_SECONDS = 0.1


async def committed_of(coordinator: Any, partitions: Collection[ClientTopicPartition]) -> Offsets:
    """What the coordinator's group has committed of these partitions; one of which it has nothing is left out.

    It asks again while the brokers come and go: whoever calls it sets the limit.

    Raises:
        KafkaError: the brokers refuse to say it.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for partition in partitions:
        numbers[partition.topic].append(partition.partition)
    while partitions:
        await coordinator.ensure_coordinator_known()
        try:
            answered = answered_offsets(await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, [*numbers.items()])))
            if not answered.keys() >= set(partitions):
                raise UnknownTopicOrPartitionError("a partition is missing in the answer")
            return _there(answered)
        except NotCoordinatorForGroupError:
            coordinator.coordinator_dead()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_RETRY_SECONDS)
    return {}


async def committed_of_group(client: Any, group: str) -> Offsets:
    """All that a group has committed, asked of its coordinator by an administrator's client. Raises: KafkaError."""
    coordinator = await client.find_coordinator(group)
    return _there(answered_offsets(await client._send_request(OffsetFetchRequest(group, None), coordinator)))


def answered_offsets(response: Any) -> Offsets:
    """The offsets in an answer, -1 where nothing is committed.

    Raises:
        KafkaError: the answer is an error, for the group or for one of the partitions.
    """
    offsets: Offsets = {}
    # The first versions of the answer have no error for the group.
    codes = [getattr(response, "error_code", 0)]
    for topic, partitions in response.topics:
        for number, offset, metadata, code in partitions:
            codes.append(code)
            offsets[ClientTopicPartition(topic, number)] = OffsetAndMetadata(offset, metadata)
    for code in filter(None, codes):
        raise for_code(code)()
    return offsets


def _there(offsets: Offsets) -> Offsets:
    return {partition: committed for partition, committed in offsets.items() if committed.offset >= 0}
