"""Tool calls that come as records: each is done once, and answered, whatever becomes of who answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest

from headrace.core.topics import Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallOwner, CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer
from headrace.tool_calls.calls import CallKey
from headrace.tool_calls.partition import MOST_REMEMBERED, CallPartition
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess
from support.engines import eventually
from support.virtual_time import in_virtual_time

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


@in_virtual_time
async def test_a_call_is_answered_in_the_partition_of_the_same_number() -> None:
    answers = Answers()
    async with answering(answers) as caller:
        await caller.call("a", say="hello", partition=3)
        assert await caller.results_are(1) == [{"schemaVersion": 1, "callId": "a", "ok": True, "data": {"said": "hello"}}]
        [record] = caller.cluster.topic_records(RESULTS)
        assert (record.partition, record.key) == (3, b"a")
        await caller.committed(3, 1)


@in_virtual_time
async def test_a_refusal_is_an_answer() -> None:
    async with answering(Answers()) as caller:
        await caller.call("a", name="refused")
        [result] = await caller.results_are(1)
        assert (result["ok"], result["error"]) == (False, {"code": "nope", "message": "It is refused."})


@in_virtual_time
async def test_a_credential_is_handed_on() -> None:
    answers = Answers()
    async with answering(answers) as caller:
        value = orjson.dumps({"callId": "a", "name": "echo"})
        for scheme in (b"Bearer one", b"bearer  two", b"Basic three"):
            await caller.write(b"a", value.replace(b'"a"', b'"' + scheme[-3:] + b'"'), headers=[("Authorization", scheme)])
        await caller.results_are(3)
        assert {each.credential for each in answers.done} == {"one", "two", None}


@in_virtual_time
async def test_a_call_that_is_delivered_twice_is_done_once() -> None:
    answers = Answers()
    async with answering(answers) as caller:
        answers.hold.clear()
        await caller.call("a")
        await caller.call("a")  # while the first is under way
        await caller.call("b", partition=1)
        answers.hold.set()
        await caller.results_are(2)
        await caller.call("a")  # after its answer
        await caller.call("c")
        await caller.results_are(3)
        await caller.committed(0, 4)
    assert sorted(map(str, answers.ids)) == ["a", "b", "c"]


@in_virtual_time
async def test_what_was_answered_and_not_committed_is_not_done_again_by_the_next_owner() -> None:
    first, second = Answers(), Answers()
    caller = Caller(InMemoryCluster())
    await caller.start()
    dying = InMemoryLog(caller.cluster, session_timeout=10)
    before = consumer(dying, first)
    await before.start()
    await caller.call("a")
    await caller.results_are(1)
    dying.cut_off()  # before its commit; and it is heard of no more
    await caller.call("b")
    async with consumer(InMemoryLog(caller.cluster), second):
        await caller.results_are(2)
        await caller.committed(0, 2)
    assert (first.ids, second.ids) == (["a"], ["b"])
    dying.reconnect()
    await before.stop(grace_seconds=0)


@in_virtual_time
async def test_what_was_under_way_when_its_owner_died_is_done_by_the_next() -> None:
    first, second = Answers(), Answers()
    first.hold.clear()
    caller = Caller(InMemoryCluster())
    await caller.start()
    dying = InMemoryLog(caller.cluster, session_timeout=10)
    before = consumer(dying, first)
    await before.start()
    await caller.call("a")
    await until(lambda: bool(first.done))
    dying.cut_off()
    async with consumer(InMemoryLog(caller.cluster), second):
        await caller.results_are(1)
    assert (first.ids, second.ids) == (["a"], ["a"])
    dying.reconnect()
    await before.stop(grace_seconds=0)


@in_virtual_time
async def test_two_share_the_calls_and_each_call_is_done_once() -> None:
    one, other = Answers(), Answers()
    async with answering(one) as caller:
        ids = [f"call-{number}" for number in range(64)]
        for number, call_id in enumerate(ids[:32]):
            await caller.call(call_id, partition=number % 8)
        async with consumer(InMemoryLog(caller.cluster), other):
            for number, call_id in enumerate(ids[32:]):
                await caller.call(call_id, partition=number % 8)
            results = await caller.results_are(64)
        for number in range(8):
            await caller.call(f"late-{number}", partition=number)
        results = await caller.results_are(72)
    assert sorted(each["callId"] for each in results) == sorted([*ids, *(f"late-{number}" for number in range(8))])
    assert sorted(map(str, one.ids + other.ids)) == sorted(each["callId"] for each in results)
    assert other.done


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"no json", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "callId"),
        (b'{"callId": "a", "name": ""}', "name"),
        (b'{"callId": "a", "name": "echo", "arguments": [1]}', "arguments"),
        (None, "no value"),
    ],
)
def test_what_is_no_call_costs_itself_alone(value: bytes | None, problem: str) -> None:
    @in_virtual_time
    async def run() -> None:
        answers = Answers()
        async with answering(answers) as caller:
            await caller.write(b"a", value)
            await caller.call("b")
            results = {each["callId"]: each for each in await caller.results_are(2)}
            await caller.committed(0, 2)
            assert results["a"]["error"]["code"] == "call_invalid"
            assert problem in results["a"]["error"]["message"]
            assert results["b"]["ok"] is True
            [letter] = caller.cluster.topic_records(TOPICS.dead_letters.name)
            told = dict(letter.headers)
            assert (letter.key, letter.value, told["headrace-reason"]) == (b"a", value, b"tool_call_invalid")
            assert (told["headrace-topic"], told["headrace-offset"]) == (CALLS.encode(), b"0")
        assert answers.ids == ["b"]

    run()


@in_virtual_time
async def test_what_has_no_readable_id_is_kept_and_nobody_is_told() -> None:
    async with answering(Answers()) as caller:
        await caller.write(b"\xff\xfe", b"no json")
        await caller.write(b"", b"no json")
        await caller.call("b")
        assert [each["callId"] for each in await caller.results_are(1)] == ["b"]
        await caller.committed(0, 3)
        assert len(caller.cluster.topic_records(TOPICS.dead_letters.name)) == 2


@in_virtual_time
async def test_an_answer_that_is_not_acknowledged_is_written_again_before_the_call_is_passed() -> None:
    async with answering(Answers()) as caller:
        caller.cluster.refuse_appends(RESULTS, times=3)
        await caller.call("a")
        await caller.results_are(1)
        await caller.committed(0, 1)


@in_virtual_time
async def test_no_more_are_under_way_than_may_be() -> None:
    answers = Answers()
    async with answering(answers, concurrency=3) as caller:
        answers.hold.clear()
        for number in range(9):
            await caller.call(f"call-{number}", partition=number % 2)
        await until(lambda: len(answers.done) >= 3)
        await asyncio.sleep(5)  # of virtual time
        assert len(answers.done) == 3
        answers.hold.set()
        assert len(await caller.results_are(9)) == 9


async def with_a_call_under_way() -> tuple[Caller, Answers, ToolCallConsumer]:
    """A consumer that was started, and that has a call which is not done until `answers.hold` is set."""
    answers, caller = Answers(), Caller(InMemoryCluster())
    await caller.start()
    answers.hold.clear()
    started = consumer(InMemoryLog(caller.cluster), answers)
    await started.start()
    await caller.call("a")
    await until(lambda: bool(answers.done))
    return caller, answers, started


@in_virtual_time
async def test_a_stop_answers_what_was_taken_in() -> None:
    caller, answers, stopped = await with_a_call_under_way()
    stopping = asyncio.create_task(stopped.stop(grace_seconds=20))
    await asyncio.sleep(5)
    assert not stopping.done()
    answers.hold.set()
    await stopping
    assert [each["callId"] for each in caller.results()] == ["a"]
    await caller.committed(0, 1)


@in_virtual_time
async def test_a_stop_does_not_wait_for_longer_than_its_grace() -> None:
    caller, answers, stopped = await with_a_call_under_way()
    async with asyncio.timeout(10):
        await stopped.stop(grace_seconds=5)
    answers.hold.set()
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.results_are(1)
    assert answers.ids == ["a", "a"]


def test_only_so_many_answers_are_remembered() -> None:
    partition = CallPartition(TopicPartition(CALLS, 0))
    partition.learn(CallKey(f"call-{number}", OWNER) for number in range(MOST_REMEMBERED + 1))
    assert not partition.knows("call-0")
    assert partition.is_new(CallKey("call-0", OWNER), 5)
    assert partition.knows("call-1")
    assert not partition.is_new(CallKey("call-1", OWNER), 6)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"said": "x" * 2_000_000}, "answer_too_large"),
        ({"said": 2**70}, "internal_error"),
        ({"said": "\ud800"}, "internal_error"),
    ],
)
@in_virtual_time
async def test_an_answer_that_cannot_be_written_is_a_refusal_and_holds_up_nobody(data: dict[str, Any], code: str) -> None:
    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        return ToolSuccess(data=data if received.call.id == "bad" else {})

    async with answering(answer) as caller:
        await caller.call("bad")
        await caller.call("good")
        assert {result["callId"]: result.get("error", {}).get("code") for result in await caller.results_are(2)} == {
            "bad": code,
            "good": None,
        }
        await caller.committed(0, 2)


@in_virtual_time
async def test_what_nobody_knows_the_sender_of_takes_no_id_from_anybody() -> None:
    answers = Known()
    good = [("authorization", b"Bearer good")]
    value = orjson.dumps({"callId": "a", "name": "echo", "arguments": {"say": "mine"}})
    async with answering(answers) as caller:
        await caller.write(b"a", b"no call")
        await caller.results_are(1)
        await caller.write(b"a", value)
        await caller.results_are(2)
        answers.hold.clear()
        await caller.write(b"a", value)
        for _ in range(3):
            await caller.write(b"a", value, headers=good)
        await until(lambda: bool(answers.done))
        answers.hold.set()
        await caller.results_are(3)
        await caller.write(b"a", b"no call")
        await caller.write(b"a", value)
        await caller.committed(0, 8)
        results = caller.results()
    # Whoever waits for the answer to a call of this id, or has it, is not told of others that were nobody's.
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == ["call_invalid", "unauthenticated", None]
    assert answers.ids == ["a"]
    headers = [list(record.headers) for record in caller.cluster.topic_records(RESULTS)]
    assert headers == [[], [], [("headrace-tenant", b"default")]]


@in_virtual_time
async def test_calls_of_one_id_are_one_where_they_are_of_one_caller() -> None:
    """A tenant cannot have a call of another one passed over, nor can a user one of another user."""
    answers = Known()
    caller = Caller(InMemoryCluster())
    await caller.start()
    whose = ("acme", "rival", "ann", "bob")

    async def call(credential: str, said: str) -> None:
        value = orjson.dumps({"callId": "a", "name": "echo", "arguments": {"say": said}})
        await caller.write(b"a", value, headers=[("authorization", f"Bearer {credential}".encode())])

    answers.hold.clear()
    async with consumer(InMemoryLog(caller.cluster), answers):
        for credential in whose:
            await call(credential, credential)
            await call(credential, "again")  # while the first is under way
        await until(lambda: len(answers.done) == 4)
        answers.hold.set()
        await caller.committed(0, 8)
    # The next owner of the partition knows it from the answers.
    async with consumer(InMemoryLog(caller.cluster), answers):
        for credential in whose:
            await call(credential, "once more")
        await call("good", "default")
        await caller.committed(0, 13)
    told = {
        tuple(value.decode() for _, value in record.headers): orjson.loads(record.value or b"")["data"]["said"]
        for record in caller.cluster.topic_records(RESULTS)
    }
    assert told == {
        ("acme",): "acme",
        ("rival",): "rival",
        ("acme", "ann"): "ann",
        ("acme", "bob"): "bob",
        ("default",): "default",
    }
    assert len(caller.results()) == len(answers.done) == 5
    assert {record.key for record in caller.cluster.topic_records(RESULTS)} == {b"a"}


@in_virtual_time
async def test_a_call_whose_credential_ceased_to_count_meanwhile_uses_up_no_id() -> None:
    revoked = True

    async def answer(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        if revoked:
            return ToolRefusal(error=ToolError(code="unauthenticated", message="It does not count any more."))
        return ToolSuccess(data={})

    async with answering(answer) as caller:
        await caller.call("a")
        await caller.results_are(1)
        revoked = False
        await caller.call("a")
        assert [result["ok"] for result in await caller.results_are(2)] == [False, True]
        assert [len(record.headers) for record in caller.cluster.topic_records(RESULTS)] == [0, 1]


@in_virtual_time
async def test_the_next_owner_does_what_was_refused_to_nobody() -> None:
    answers = Known()
    caller = Caller(InMemoryCluster())
    await caller.start()
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.call("a")
        await caller.results_are(1)
    value = orjson.dumps({"callId": "a", "name": "echo"})
    await caller.write(b"a", value, headers=[("authorization", b"Bearer good")])
    async with consumer(InMemoryLog(caller.cluster), answers):
        assert [result["ok"] for result in await caller.results_are(2)] == [False, True]
    await caller.write(b"a", value, headers=[("authorization", b"Bearer good")])
    async with consumer(InMemoryLog(caller.cluster), answers):
        await caller.committed(0, 3)
    assert answers.ids == ["a"]
