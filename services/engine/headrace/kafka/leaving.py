"""Takes members out of their groups that are no more, in their name; lists groups, and deletes those that nobody needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownMemberIdError, for_code
from aiokafka.protocol.admin import DeleteGroupsRequest, DescribeGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from headrace.errors import BrokerError
from headrace.kafka.closing import close_client
from headrace.kafka.connection import Cluster
from headrace.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2
_MOST_TRIES = 10
# Kafka's numbers, of which aiokafka does not know all.
_GROUP_UNKNOWN = 69
_NOT_YET = frozenset({14, 15, 16, 68})  # the coordinator loads, is none, or is elsewhere; the last member is leaving


def client_id_of(instance_id: str) -> str:
    """What an instance's members of groups are known by, also those whose member id nobody was told."""
    return f"headrace-{instance_id}"


async def leave_groups(settings: Settings, members: Mapping[str, str], client_id: str = "") -> None:
    """Leaves each group with the member id that belongs to it. Who is no member any more is passed over.

    A member that dies while it joins has an id that only the coordinator knows. The whole group would wait for it, for as long as
    a rebalance may take: so every other member with its client id leaves, too.

    Whoever does this must know that the member is dead: one that lives is told nothing, and its partitions go to others.

    Args:
        members: the member id in each group; empty where it is not known.
        client_id: of all members that are dead; empty if it is not known.

    Raises:
        BrokerError: the brokers cannot be reached.
    """
    if not members:
        return
    client: Any = await Cluster(settings).connect(lambda options: AIOKafkaAdminClient(**options))
    try:
        await asyncio.gather(*(_leave_all(client, group, member_id, client_id) for group, member_id in members.items()))
    finally:
        await close_client(client, timeout=1.0)


async def delete_groups(settings: Settings, groups: Collection[str]) -> None:
    """Deletes consumer groups with all that they have committed; those that do not exist are passed over.

    Members are taken out first: whoever does this must know that nobody needs them any more.

    Raises:
        BrokerError: the brokers cannot be reached, or keep a group.
    """
    if not groups:
        return
    client: Any = await Cluster(settings).connect(lambda options: AIOKafkaAdminClient(**options))
    try:
        await asyncio.gather(*(_delete(client, group) for group in groups))
    finally:
        await close_client(client, timeout=1.0)


async def groups_named(settings: Settings, prefix: str) -> list[str]:
    """The names of all consumer groups of the cluster that begin so, in order, whether or not they have members.

    Raises:
        BrokerError: the brokers cannot be reached, or do not tell which groups there are.
    """
    client: Any = await Cluster(settings).connect(lambda options: AIOKafkaAdminClient(**options))
    try:
        reason = "?"
        for _ in range(_MOST_TRIES):
            try:
                return sorted(name for name, *_ in await client.list_consumer_groups() if name.startswith(prefix))
            except KafkaError as error:  # as of a coordinator that loads: what it has yet to read may be of that name
                reason = repr(error)
            await asyncio.sleep(_RETRY_SECONDS)
    finally:
        await close_client(client, timeout=1.0)
    raise BrokerError(f"Which consumer groups there are is not told: {reason}.")


async def _delete(client: Any, group: str) -> None:
    reason = "?"
    for _ in range(_MOST_TRIES):
        try:
            for member_id in await _members(client, group, None):
                await _leave(client, group, member_id)
            coordinator = await client.find_coordinator(group)
            response = await client._send_request(DeleteGroupsRequest([group]), coordinator)
            [(_, code)] = response.results
        except KafkaError as error:
            reason = repr(error)
        else:
            if code in (0, _GROUP_UNKNOWN):
                return
            reason = for_code(code).__name__
            if code not in _NOT_YET:
                break
        await asyncio.sleep(_RETRY_SECONDS)
    raise BrokerError(f"The consumer group {group} is not deleted: {reason}.")


async def _leave_all(client: Any, group: str, member_id: str, client_id: str) -> None:
    if member_id:
        await _leave(client, group, member_id)
    if not client_id:
        return
    try:
        found = await _members(client, group, client_id)
    except KafkaError as error:
        logger.warning("group %s cannot be asked for its members: %r", group, error)
        return
    for other in found:
        await _leave(client, group, other)


async def _members(client: Any, group: str, client_id: str | None) -> list[str]:
    """The ids of a group's members, those that are joining too; of those with this client id, if one is given."""
    coordinator = await client.find_coordinator(group)
    response = await client._send_request(DescribeGroupsRequest([group], False), coordinator)
    [description] = response.groups
    error_code, members = description[0], description[5]
    if error_code:
        raise for_code(error_code)()
    return [member_id for member_id, each_client_id, *_ in members if client_id in (None, each_client_id)]


async def _leave(client: Any, group: str, member_id: str) -> None:
    error: Exception | None = None
    for _ in range(_MOST_TRIES):
        try:
            coordinator = await client.find_coordinator(group)
            response = await client._send_request(LeaveGroupRequest(group, member_id), coordinator)
        except KafkaError as raised:
            error = raised
        else:
            kind = for_code(response.error_code)
            if not response.error_code or kind is UnknownMemberIdError:
                return
            error = kind()
        # The coordinator may be on its way to another broker.
        await asyncio.sleep(_RETRY_SECONDS)
    logger.warning("a dead member of group %s could not be taken out: %r", group, error)
