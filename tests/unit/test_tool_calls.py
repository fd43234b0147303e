"""Tool calls that come as records: each is done once, and answered, whatever becomes of who answers it."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from headrace.ports import NewRecord, TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.tool_calls import CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer, answered
from headrace.tool_calls.calls import CallKey
from headrace.tool_calls.partition import MOST_REMEMBERED, CallPartition
from headrace.tool_models import ToolSuccess
from support.tool_calls import CALLS, OWNER, RESULTS, TOPICS, Answers, Caller, answering, consumer, until
from support.virtual_time import in_virtual_time


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
            call_id = scheme[-3:]
            await caller.write(call_id, value.replace(b'"a"', b'"' + call_id + b'"'), headers=[("Authorization", scheme)])
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


@pytest.mark.parametrize("key", [None, b"", b"other"], ids=["none", "empty", "other"])
@in_virtual_time
async def test_a_call_whose_key_is_not_its_id_is_refused(key: bytes | None) -> None:
    answers = Answers()
    value = orjson.dumps({"callId": "a", "name": "echo"})
    async with answering(answers) as caller:
        caller.cluster.append(TopicPartition(CALLS, 1), NewRecord(key, value))  # type: ignore[arg-type]  # no writer of headrace's
        await caller.call("a")
        await caller.results_are(2)
        await caller.committed(1, 1)
        told = {(each["callId"], each.get("error", {}).get("code")) for each in caller.results()}
        assert told == {("a", "call_invalid"), ("a", None)}
        [letter] = caller.cluster.topic_records(TOPICS.dead_letters.name)
        assert (letter.key, letter.value) == (key or b"", value)
        assert b"the record's key is not its callId" in (dict(letter.headers)["headrace-message"] or b"")
    assert answers.ids == ["a"]


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


def test_only_so_many_answers_are_remembered() -> None:
    partition = CallPartition(TopicPartition(CALLS, 0))
    partition.learn(CallKey(f"call-{number}", OWNER) for number in range(MOST_REMEMBERED + 1))
    assert not partition.knows("call-0")
    assert partition.is_new(CallKey("call-0", OWNER), 5)
    assert partition.knows("call-1")
    assert not partition.is_new(CallKey("call-1", OWNER), 6)


def virtual_clock() -> int:
    """Milliseconds of the loop's own time, as of a day long ago."""
    return 1_700_000_000_000 + int(asyncio.get_running_loop().time() * 1000)


@pytest.mark.parametrize(
    ("held_up", "hours", "known"),
    [(False, 0.9, True), (False, 5, False), (True, 5, True)],
    ids=["within-an-hour", "later", "not-passed"],
)
@in_virtual_time
async def test_the_next_owner_knows_what_was_answered_within_an_hour_and_all_that_was_not_passed(
    held_up: bool, hours: float, known: bool
) -> None:
    """A call that waits for hours holds the offset back, and all that was answered behind it comes again."""
    turn, done = asyncio.Event(), list[str]()
    if not held_up:
        turn.set()

    async def identify(received: ReceivedCall) -> OwnedCall:
        async def do() -> ToolSuccess:
            done.append(received.call_id)
            return ToolSuccess(data={})

        slow = received.call_id == "slow"
        return OwnedCall(OWNER, do, turn=turn.wait if slow else None, caller=received.call_id)  # type: ignore[arg-type]

    caller = Caller(InMemoryCluster(now=virtual_clock))
    await caller.start()

    def made() -> ToolCallConsumer:
        log = InMemoryLog(caller.cluster)
        return ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="one", now=virtual_clock)

    async with made():
        for call_id in ("slow", "a", "b", "c"):
            await caller.call(call_id)
        await caller.results_are(3)
        await asyncio.sleep(hours * 3600)
    async with made():
        await asyncio.sleep(60)
        assert done.count("a") == 1
        turn.set()
        await caller.committed(0, 4)
        await caller.call("a")
        await caller.committed(0, 5)
    assert sorted(done) == ["a", *([] if known else ["a"]), "b", "c", "slow"]


@in_virtual_time
async def test_what_is_learnt_of_a_partition_ends_with_it() -> None:
    cluster = InMemoryCluster()
    caller = Caller(cluster)
    await caller.start()
    withheld = [TopicPartition(RESULTS, number) for number in range(TOPICS.tool_results().partitions)]
    for partition in withheld:
        cluster.append(partition, NewRecord(b"a", b"{}"))
    cluster.withhold(*withheld)
    async with consumer(InMemoryLog(cluster), Answers()) as made:
        await until(lambda: len(made._recoveries) == len(withheld))
        async with consumer(InMemoryLog(cluster), Answers()) as other:
            await until(lambda: 0 < len(made._partitions) < len(withheld))
            await until(lambda: len(made._recoveries) == len(made._partitions))
            await until(lambda: len(other._recoveries) == len(other._partitions))
        cluster.give_out()


@in_virtual_time
async def test_of_very_many_answers_the_last_ones_are_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answered, "MOST_REMEMBERED", 3)
    async with answering(Answers()) as caller:
        for number in range(5):
            await caller.call(f"call-{number}")
        await caller.committed(0, 5)
    calls, results = TopicPartition(CALLS, 0), TopicPartition(RESULTS, 0)
    found = await answered.answered_calls(InMemoryLog(caller.cluster), calls, results, committed=5, now=wall_clock())
    assert [key.call_id for key in found] == ["call-2", "call-3", "call-4"]
