"""Tool calls that come as records of a log in memory: who writes them, and who answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson

from headrace.core.topics import Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallOwner, CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess
from support.engines import eventually

TOPICS = Topics("test")
CALLS, RESULTS = TOPICS.tool_calls().name, TOPICS.tool_results().name

Answer = Callable[[ReceivedCall], Awaitable[ToolSuccess | ToolRefusal]]
OWNER = CallOwner("default")


async def until(holds: Callable[[], bool]) -> None:
    async def look() -> bool:
        return holds()

    await eventually(look)


class Answers:
    """Does every call, and remembers it.

    Attributes:
        done: the calls, in order.
        hold: while it is not set, no call comes to its end.
    """

    def __init__(self) -> None:
        self.done: list[ReceivedCall] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        self.done.append(received)
        await self.hold.wait()
        if received.call.name == "refused":
            return ToolRefusal(error=ToolError(code="nope", message="It is refused."))
        return ToolSuccess(data={"said": received.call.arguments.get("say")})

    @property
    def ids(self) -> list[str | None]:
        return [each.call.id for each in self.done]


OWNERS = {
    "good": OWNER,
    "acme": CallOwner("acme"),
    "rival": CallOwner("rival"),
    "ann": CallOwner("acme", "ann"),
    "bob": CallOwner("acme", "bob"),
}
"""Whose the calls are that have these credentials."""


class Known(Answers):
    """Knows some credentials."""

    async def refusal(self, received: ReceivedCall) -> ToolRefusal | None:
        if received.credential in OWNERS:
            return None
        await self.hold.wait()
        return ToolRefusal(error=ToolError(code="unauthenticated", message="It does not count."))


class Caller:
    """Writes calls, and reads what the cluster holds."""

    def __init__(self, cluster: InMemoryCluster) -> None:
        self.cluster = cluster
        self._log = InMemoryLog(cluster)
        self._writer = self._log.writer()

    async def start(self) -> None:
        await self._log.create_topics([TOPICS.tool_calls(), TOPICS.tool_results(), TOPICS.dead_letters])
        await self._writer.start()

    async def call(self, call_id: str, *, name: str = "echo", partition: int = 0, **arguments: Any) -> None:
        value = orjson.dumps({"callId": call_id, "name": name, "arguments": arguments})
        await self.write(call_id.encode(), value, partition=partition)

    async def write(self, key: bytes, value: bytes | None, *, partition: int = 0, headers: Any = ()) -> None:
        await self._writer.append(TopicPartition(CALLS, partition), NewRecord(key, value, headers), timeout=10)

    def results(self) -> list[dict[str, Any]]:
        return [orjson.loads(record.value or b"") for record in self.cluster.topic_records(RESULTS)]

    async def results_are(self, count: int) -> list[dict[str, Any]]:
        await until(lambda: len(self.results()) >= count)
        return self.results()

    async def committed(self, partition: int, offset: int) -> None:
        source, group = TopicPartition(CALLS, partition), TOPICS.tool_call_group()
        await until(lambda: self.cluster.committed_offsets(group).get(source) == offset)


def consumer(log: InMemoryLog, answer: Answer, **options: Any) -> ToolCallConsumer:
    async def identify(received: ReceivedCall) -> OwnedCall | ToolRefusal:
        if isinstance(answer, Known) and (refusal := await answer.refusal(received)) is not None:
            return refusal
        owner = OWNERS.get(received.credential or "", OWNER)
        return OwnedCall(owner, partial(answer, received))

    return ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="gateway-1", now=wall_clock, **options)


@asynccontextmanager
async def answering(answer: Answer, **options: Any) -> AsyncIterator[Caller]:
    caller = Caller(InMemoryCluster())
    await caller.start()
    async with consumer(InMemoryLog(caller.cluster), answer, **options):
        yield caller
