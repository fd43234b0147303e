"""What tenants do by records of `tool-calls`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

from headrace.ports import Header, NewRecord, TopicPartition
from headrace.testing import InMemoryLog
from headrace_gateway.ingress import KafkaIngress
from support.events import PATIENCE
from support.served import FOR_CALL, settings_in
from support.tenants import ACTORS, Actor, Tenants

_numbers = itertools.count()


def by_record(name: str, arguments: Callable[[Actor], dict[str, Any]]) -> Callable[[Tenants, Actor, Actor], Awaitable[str]]:
    """Calls a tool by a record that has a token of the actor's for this call, with arguments about the owner's things."""

    async def run(world: Tenants, actor: Actor, owner: Actor) -> str:
        await world.keep(KafkaIngress, _ingress)
        call_id = f"call-{next(_numbers)}"
        headers = [("authorization", f"Bearer {actor.token}{FOR_CALL}{call_id}".encode())]
        return await _call(world, None, headers, call_id, name, arguments(owner))

    return run


def by_record_of_own_topic(
    name: str, arguments: Callable[[Actor], dict[str, Any]]
) -> Callable[[Tenants, Actor, Actor], Awaitable[str]]:
    """The same, by a record in the topic of the actor's tenant, which says by itself whose it is."""

    async def run(world: Tenants, actor: Actor, owner: Actor) -> str:
        await world.keep(KafkaIngress, _ingress)
        return await _call(world, actor.principal.tenant, [], f"call-{next(_numbers)}", name, arguments(owner))

    return run


@asynccontextmanager
async def _ingress(world: Tenants) -> AsyncIterator[None]:
    tenants = ",".join(sorted({actor.principal.tenant for actor in ACTORS if actor.principal.only_user is None}))
    settings = settings_in(world.folder, ingress={"tenants": tenants})
    ingress = KafkaIngress(settings, world.gateway.app.state.gateway, world.gateway.client)
    await ingress.start()
    try:
        yield
    finally:
        await ingress.stop()


async def _call(
    world: Tenants, tenant: str | None, headers: list[Header], call_id: str, name: str, arguments: dict[str, Any]
) -> str:
    """The answer, without what every answer to this call has.

    Args:
        tenant: in whose own topic the record stands; None for the one of all.
    """
    topics, cluster = world.log.topics, world.log.cluster
    writer = InMemoryLog(cluster).writer()
    await writer.start()
    value = orjson.dumps({"callId": call_id, "name": name, "arguments": arguments})
    record = NewRecord(call_id.encode(), value, headers)
    await writer.append(TopicPartition(topics.tool_calls(tenant).name, 0), record, timeout=10)
    await writer.stop(timeout=5)
    async with asyncio.timeout(PATIENCE):
        while True:
            answers = [each for each in cluster.topic_records(topics.tool_results(tenant).name) if each.key == call_id.encode()]
            if answers:
                return (answers[0].value or b"").decode().replace(call_id, "")
            await asyncio.sleep(0.01)
