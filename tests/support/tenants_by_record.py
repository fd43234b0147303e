"""What tenants do by records of `tool-calls`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

from headrace.ports import NewRecord, TopicPartition
from headrace.testing import InMemoryLog
from headrace_gateway.ingress import KafkaIngress
from support.events import PATIENCE
from support.served import FOR_CALL, settings_in
from support.tenants import Actor, Tenants

_numbers = itertools.count()


def by_record(name: str, arguments: Callable[[Actor], dict[str, Any]]) -> Callable[[Tenants, Actor, Actor], Awaitable[str]]:
    """Calls a tool by a record that has a token of the actor's for this call, with arguments about the owner's things."""

    async def run(world: Tenants, actor: Actor, owner: Actor) -> str:
        await world.keep(KafkaIngress, _ingress)
        call_id = f"call-{next(_numbers)}"
        return await _call(world, f"{actor.token}{FOR_CALL}{call_id}", call_id, name, arguments(owner))

    return run


@asynccontextmanager
async def _ingress(world: Tenants) -> AsyncIterator[None]:
    ingress = KafkaIngress(settings_in(world.folder), world.gateway.app.state.gateway, world.gateway.client)
    await ingress.start()
    try:
        yield
    finally:
        await ingress.stop()


async def _call(world: Tenants, credential: str, call_id: str, name: str, arguments: dict[str, Any]) -> str:
    """The answer, without what every answer to this call has."""
    topics, cluster = world.log.topics, world.log.cluster
    writer = InMemoryLog(cluster).writer()
    await writer.start()
    value = orjson.dumps({"callId": call_id, "name": name, "arguments": arguments})
    headers = [("authorization", f"Bearer {credential}".encode())]
    record = NewRecord(call_id.encode(), value, headers)
    await writer.append(TopicPartition(topics.tool_calls().name, 0), record, timeout=10)
    await writer.stop(timeout=5)
    async with asyncio.timeout(PATIENCE):
        while True:
            answers = [each for each in cluster.topic_records(topics.tool_results().name) if each.key == call_id.encode()]
            if answers:
                return (answers[0].value or b"").decode().replace(call_id, "")
            await asyncio.sleep(0.01)
