"""Tool calls that come faster than their callers may call: they wait, in memory as far as they may, and else in the log."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest

from headrace.ports import TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallOwner, CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer, waiting
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess
from support.tool_calls import CALLS, RESULTS, TOPICS, Caller, until
from support.virtual_time import in_virtual_time


class Turns:
    """Does calls whose tenant's turn it is. A call's tenant stands before the `-` in its id."""

    def __init__(self) -> None:
        self.free: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))
        self.seen: list[str] = []
        self.done: list[str] = []

    def let(self, tenant: str, calls: int) -> None:
        for _ in range(calls):
            self.free[tenant].release()

    async def identify(self, received: ReceivedCall) -> OwnedCall:
        tenant = received.call_id.partition("-")[0]
        self.seen.append(received.call_id)
        return OwnedCall(CallOwner(tenant), partial(self._do, received), partial(self._turn, tenant), self._turn_away)

    async def _turn(self, tenant: str) -> None:
        await self.free[tenant].acquire()

    async def _do(self, received: ReceivedCall) -> ToolSuccess:
        self.done.append(received.call_id)
        return ToolSuccess(data={})

    def _turn_away(self) -> ToolRefusal:
        return ToolRefusal(error=ToolError(code="rate_limited", message="Slow down."))


def consumer(cluster: InMemoryCluster, turns: Turns, **options: Any) -> ToolCallConsumer:
    log = InMemoryLog(cluster)
    return ToolCallConsumer(log, CallTopics.of(TOPICS), turns.identify, instance_id="one", now=wall_clock, **options)


@asynccontextmanager
async def answering(turns: Turns, **options: Any) -> AsyncIterator[Caller]:
    caller = Caller(InMemoryCluster())
    await caller.start()
    async with consumer(caller.cluster, turns, **options):
        yield caller


def codes(caller: Caller) -> dict[str, str | None]:
    return {result["callId"]: result.get("error", {}).get("code") for result in caller.results()}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING", 8)


@pytest.mark.usefixtures("few")
@in_virtual_time
async def test_who_calls_too_fast_waits_and_is_not_refused() -> None:
    turns = Turns()
    async with answering(turns, concurrency=4, shared=False) as caller:
        ids = [f"acme-{number}" for number in range(40)]
        for call_id in ids:
            await caller.call(call_id)
        await until(lambda: len(turns.seen) >= 8)
        await asyncio.sleep(1000)  # of virtual time
        assert len(turns.seen) < 8 + 4, "the others stay in the log"
        assert (turns.done, caller.results()) == ([], [])
        turns.let("acme", 40)
        await caller.results_are(40)
        await caller.committed(0, 40)
        assert codes(caller) == dict.fromkeys(ids)
    assert sorted(turns.done) == sorted(ids)


@in_virtual_time
async def test_those_who_wait_hold_up_nobody_else() -> None:
    turns = Turns()
    turns.let("rival", 1)
    async with answering(turns, concurrency=4) as caller:
        for number in range(40):
            await caller.call(f"acme-{number}")
        await caller.call("rival-0")
        await caller.results_are(1)
        assert turns.done == ["rival-0"]


@in_virtual_time
async def test_no_more_bytes_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING_BYTES", 10_000)
    turns = Turns()
    async with answering(turns, concurrency=2, shared=False) as caller:
        for number in range(20):
            await caller.call(f"acme-{number}", text="x" * 2_000)
        await until(lambda: len(turns.seen) >= 5)
        await asyncio.sleep(60)
        assert len(turns.seen) < 5 + 2


@pytest.mark.usefixtures("few")
@in_virtual_time
async def test_others_behind_a_queue_wait_for_a_minute_and_not_for_ever() -> None:
    turns = Turns()
    turns.let("rival", 1)
    async with answering(turns, concurrency=2) as caller:
        for number in range(20):
            await caller.call(f"acme-{number}")
        await caller.call("rival-0")
        await asyncio.sleep(waiting.HELD_SECONDS - 5)
        assert caller.results() == []
        async with asyncio.timeout(10):
            await until(lambda: "rival-0" in turns.done)
            await until(lambda: len(caller.results()) > 8)
        refused = [call_id for call_id, code in codes(caller).items() if code == "rate_limited"]
        assert refused and all(call_id.startswith("acme-") for call_id in refused)
        records = caller.cluster.topic_records(RESULTS)
        given = {orjson.loads(record.value or b"")["callId"]: bool(record.headers) for record in records}
        assert given == {**dict.fromkeys(refused, False), "rival-0": True}
        # Once it has eased, calls wait as before.
        turns.let("acme", 1000)
        await caller.committed(0, 21)
        turns.free["acme"] = asyncio.Semaphore(0)
        told = len(caller.results())
        for number in range(20):
            await caller.call(f"acme-more-{number}")
        await asyncio.sleep(waiting.HELD_SECONDS - 5)
        assert len(caller.results()) == told


@in_virtual_time
async def test_a_stop_leaves_those_who_wait_to_the_next_owner() -> None:
    turns, later = Turns(), Turns()
    caller = Caller(InMemoryCluster())
    await caller.start()
    stopped = consumer(caller.cluster, turns)
    await stopped.start()
    for number in range(10):
        await caller.call(f"acme-{number}")
    await caller.call("acme-0")  # which waits for the first
    turns.let("acme", 3)
    await caller.results_are(3)
    await until(lambda: len(turns.seen) == 11)
    async with asyncio.timeout(2):
        await stopped.stop(grace_seconds=20)
    later.let("acme", 100)
    async with consumer(caller.cluster, later):
        await caller.committed(0, 11)
    assert sorted(turns.done + later.done) == sorted(f"acme-{number}" for number in range(10))


@in_virtual_time
async def test_a_partition_that_is_taken_away_is_left_at_once() -> None:
    turns = Turns()
    async with answering(turns) as caller:
        await caller.call("acme-0")
        await until(lambda: turns.seen == ["acme-0"])
        other = consumer(caller.cluster, turns)
        async with asyncio.timeout(2.5):
            await other.start()
            await until(lambda: len(other._partitions) == 4)
        turns.let("acme", 10)
        await caller.committed(0, 1)
        await other.stop()
    assert turns.done == ["acme-0"]
    assert TopicPartition(CALLS, 0) in caller.cluster.committed_offsets(TOPICS.tool_call_group())
