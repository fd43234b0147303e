"""Takes members out of their groups that are no more, in their name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownMemberIdError, for_code
from aiokafka.protocol.group import LeaveGroupRequest

from headrace.kafka.closing import close_client
from headrace.kafka.connection import Cluster
from headrace.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2
_MOST_TRIES = 10


async def leave_groups(settings: Settings, members: Mapping[str, str]) -> None:
    """Leaves each group with the member id that belongs to it. Who is no member any more is passed over.

    Whoever does this must know that the member is dead: one that lives is told nothing, and its partitions go to others.

    Raises:
        BrokerError: the brokers cannot be reached.
    """
    if not members:
        return
    client: Any = await Cluster(settings).connect(lambda options: AIOKafkaAdminClient(**options))
    try:
        await asyncio.gather(*(_leave(client, group, member_id) for group, member_id in members.items()))
    finally:
        await close_client(client, timeout=1.0)


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
