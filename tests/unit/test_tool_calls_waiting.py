"""Tool calls that come faster than their callers may call: they wait, in memory as far as they may, and else in the log."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest

from headrace.ports import TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallOwner, CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer, waiting
from headrace.tool_calls.waiting import WaitingCalls
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess
from support.tool_calls import CALLS, TOPICS, Caller, until
from support.virtual_time import in_virtual_time


class Turns:
    """Does calls whose caller's turn it is. A call's caller stands before the `-` in its id, and the tenant before a `.` in that.

    Attributes:
        left: how many calls each caller may do.
        hold: while it is not set, no call comes to its end.
        peak: how many calls were done at a time.
    """

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()
        self.seen: list[str] = []
        self.done: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.peak = 0
        self._doing = 0
        self._changed = asyncio.Event()

    def let(self, caller: str, calls: int) -> None:
        self.left[caller] += calls
        self._changed.set()

    async def identify(self, received: ReceivedCall) -> OwnedCall:
        caller = received.call_id.partition("-")[0]
        self.seen.append(received.call_id)
        return OwnedCall(
            CallOwner(caller.partition(".")[0]),
            partial(self._do, caller, received),
            partial(self._turn, caller),
            self._turn_away,
            caller,
            lambda calls: calls <= self.left[caller],
        )

    async def _turn(self, caller: str) -> None:
        while not self.left[caller]:
            self._changed.clear()
            await self._changed.wait()

    async def _do(self, caller: str, received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        if not self.left[caller]:
            return ToolRefusal(error=ToolError(code="early", message="It is not your turn."))
        self.left[caller] -= 1
        self.done.append(received.call_id)
        self._doing += 1
        self.peak = max(self.peak, self._doing)
        await self.hold.wait()
        self._doing -= 1
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
        for number in range(12):
            await caller.call(f"acme-{number}")
        await caller.call("rival-0")
        for number in range(12, 20):
            await caller.call(f"acme-{number}")
        await asyncio.sleep(waiting.HELD_SECONDS - 5)
        assert caller.results() == []
        async with asyncio.timeout(10):
            await until(lambda: "rival-0" in turns.done)
            await until(lambda: len(caller.results()) > 8)
        refused = [call_id for call_id, code in codes(caller).items() if code == "rate_limited"]
        assert refused == [f"acme-{number}" for number in range(12, 20)]
        # Once it has eased, calls wait as before.
        turns.let("acme", 1000)
        await caller.committed(0, 21)
        turns.left.clear()
        told = len(caller.results())
        for number in range(20):
            await caller.call(f"acme-more-{number}")
        await asyncio.sleep(waiting.HELD_SECONDS - 5)
        assert len(caller.results()) == told


@pytest.mark.usefixtures("few")
@in_virtual_time
async def test_whoever_is_alone_in_a_shared_topic_is_never_refused() -> None:
    turns = Turns()
    async with answering(turns, concurrency=4) as caller:
        ids = [f"acme-{number}" for number in range(60)]
        for call_id in ids:
            await caller.call(call_id)
        for _ in range(10):
            await asyncio.sleep(100)
            turns.let("acme", 1)
        assert len(turns.seen) <= 10 + 2 * 8 + 4, "no more wait in memory than may"
        turns.let("acme", 1000)
        await caller.results_are(60)
        assert codes(caller) == dict.fromkeys(ids)


@pytest.mark.usefixtures("few")
@in_virtual_time
async def test_nobody_is_refused_for_another_caller_of_the_same_tenant() -> None:
    turns = Turns()
    turns.let("acme.bob", 3)
    async with answering(turns, concurrency=2) as caller:
        for number in range(12):
            await caller.call(f"acme.ann-{number}")
        for number in range(3):
            await caller.call(f"acme.bob-{number}")
            await caller.call(f"acme.ann-more-{number}")
        await asyncio.sleep(waiting.HELD_SECONDS + 5)
        bob, more = ([f"acme.{prefix}-{number}" for number in range(3)] for prefix in ("bob", "ann-more"))
        assert codes(caller) == {**dict.fromkeys(bob), **dict.fromkeys(more, "rate_limited")}


def crowded(others: int = 1) -> tuple[WaitingCalls, list[float], ExitStack]:
    """What waits where one caller has filled the memory a minute ago, and others have a call each; and the time."""
    now, held = [0.0], ExitStack()
    calls = WaitingCalls(True, lambda: now[0])
    for _ in range(8):
        held.enter_context(calls.held("loud", 1))
    for number in range(others):
        held.enter_context(calls.held(number, 1))
    now[0] += waiting.HELD_SECONDS
    return calls, now, held


@pytest.mark.usefixtures("few")
def test_only_who_has_more_waiting_than_their_share_and_may_not_call_is_turned_away() -> None:
    calls, _, _ = crowded()
    assert calls.turns_away("loud")
    assert not calls.turns_away(0)
    assert not calls.turns_away("new")
    # Those that wait are called before it.
    assert calls.turns_away("loud", lambda count: count <= 8)
    assert not calls.turns_away("loud", lambda count: count <= 9)
    assert not crowded(others=0)[0].turns_away("loud")


@pytest.mark.usefixtures("few")
def test_others_have_waited_only_while_there_was_no_room() -> None:
    now = [0.0]
    calls = WaitingCalls(True, lambda: now[0])

    def fill(count: int) -> ExitStack:
        held = ExitStack()
        for _ in range(count):
            held.enter_context(calls.held("loud", 1))
        return held

    with calls.held("quiet", 1):
        with fill(4):
            for _ in range(5):
                with fill(4):
                    now[0] += waiting.HELD_SECONDS / 2
                    assert not calls.turns_away("loud")
                now[0] += waiting.HELD_SECONDS
        with fill(6):
            for _ in range(5):
                with fill(2):
                    now[0] += waiting.HELD_SECONDS / 4
            assert calls.turns_away("loud"), "a call that is done makes room for the next, and not for others"


@in_virtual_time
async def test_no_more_are_done_at_a_time_than_may_be_of_those_that_waited() -> None:
    turns = Turns()
    turns.hold.clear()
    async with answering(turns, concurrency=3) as caller:
        ids = [f"{tenant}-{number}" for tenant in "abcd" for number in range(10)]
        for call_id in ids:
            await caller.call(call_id)
        await until(lambda: len(turns.seen) == 40)
        for tenant in "abcd":
            turns.let(tenant, 10)
        await until(lambda: len(turns.done) == 3)
        await asyncio.sleep(60)
        assert len(turns.done) == 3
        assert len({call_id[0] for call_id in turns.done}) == 3, "nobody has all places who only has most calls"
        turns.hold.set()
        await caller.results_are(40)
        assert codes(caller) == dict.fromkeys(ids)
    assert turns.peak == 3


@in_virtual_time
async def test_a_turn_that_is_over_when_a_place_is_left_is_waited_for_again() -> None:
    turns = Turns()
    turns.hold.clear()
    turns.let("acme", 1)
    async with answering(turns, concurrency=2) as caller:
        for call_id in ("rival-0", "rival-1"):
            await caller.call(call_id)
        await caller.call("acme-0", partition=1)
        await until(lambda: turns.done == ["acme-0"])
        turns.let("rival", 1)
        await until(lambda: len(turns.done) == 2)
        turns.let("rival", 1)
        await asyncio.sleep(10)
        turns.left["rival"] = 0  # as by a call of theirs over HTTP
        turns.hold.set()
        await caller.results_are(2)
        await asyncio.sleep(10)
        turns.let("rival", 1)
        await caller.results_are(3)
        assert codes(caller) == dict.fromkeys(["acme-0", "rival-0", "rival-1"])


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


@in_virtual_time
async def test_what_waits_is_counted_with_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING_BYTES", 100_000)
    turns = Turns()
    async with answering(turns, shared=False, concurrency=2) as caller:
        for number in range(20):
            value = orjson.dumps({"callId": f"acme-{number}", "name": "echo"})
            await caller.write(f"acme-{number}".encode(), value, headers=[("trace", b"x" * 30_000)])
        await until(lambda: len(turns.seen) >= 4)
        await asyncio.sleep(100)  # of virtual time
        assert len(turns.seen) <= 5
        turns.let("acme", 20)
        await caller.results_are(20)


@in_virtual_time
async def test_of_a_call_that_waits_no_headers_are_kept() -> None:
    turns = Turns()
    async with answering(turns) as caller:
        await caller.write(b"acme-0", orjson.dumps({"callId": "acme-0", "name": "echo"}), headers=[("trace", b"x" * 1_000)])
        await until(lambda: turns.seen == ["acme-0"])
        await caller.call("acme-1")  # what was read last may be held by who reads
        await until(lambda: turns.seen == ["acme-0", "acme-1"])
        gc.collect()
        [stored, _] = caller.cluster.topic_records(CALLS)
        held = [each for each in gc.get_referrers(stored) if inspect.iscoroutine(each) or inspect.isframe(each)]
        assert [each for each in held if each is not sys._getframe()] == []


@in_virtual_time
async def test_a_call_with_headers_without_end_is_refused() -> None:
    turns = Turns()
    turns.let("acme", 1)
    async with answering(turns) as caller:
        value = orjson.dumps({"callId": "acme-0", "name": "echo"})
        await caller.write(b"acme-0", value, headers=[("trace", b"x" * 70_000)])
        [result] = await caller.results_are(1)
        assert result["error"]["code"] == "call_invalid"
        assert "headers take 70,005 bytes, and may take 65,536" in result["error"]["message"]
        await caller.write(b"acme-0", value, headers=[("trace", b"x" * 60_000)])
        await caller.results_are(2)
    assert turns.done == ["acme-0"]
