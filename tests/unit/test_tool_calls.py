"""Tool calls that come as records: each is done once, and answered, whatever becomes of who answers it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
import pytest

from headrace.ports import NewRecord, TopicPartition
from headrace.runtime import wall_clock
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.testing.consumer import InMemoryGroupConsumer
from headrace.tool_calls import CallTopics, OwnedCall, ReceivedCall, ToolCallConsumer
from headrace.tool_calls.calls import CallKey
from headrace.tool_calls.finishing import CUT_OFF_SECONDS
from headrace.tool_calls.partition import MOST_REMEMBERED, CallPartition
from headrace.tool_models import ToolError, ToolRefusal, ToolSuccess
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


@in_virtual_time
async def test_a_stop_takes_in_nothing_more_while_calls_go_on_to_come() -> None:
    answers, caller = Answers(), Caller(InMemoryCluster())
    await caller.start()

    async def do(received: ReceivedCall) -> ToolSuccess | ToolRefusal:
        answer = await answers(received)
        await asyncio.sleep(0.3)
        return answer

    async def write() -> None:
        for number in itertools.count():
            await caller.call(f"call-{number}", partition=number % 2)
            await asyncio.sleep(0.05)

    stopped = consumer(InMemoryLog(caller.cluster), do, concurrency=10)
    await stopped.start()
    writing = asyncio.create_task(write())
    await until(lambda: len(answers.done) >= 20)
    begun = list(answers.ids)
    async with asyncio.timeout(3):
        await stopped.stop(grace_seconds=20)
    assert answers.ids == begun
    assert sorted(result["callId"] for result in caller.results()) == sorted(map(str, begun))
    writing.cancel()
    # Nothing is lost or done twice by that.
    async with consumer(InMemoryLog(caller.cluster), answers):
        written = len(caller.cluster.topic_records(CALLS))
        await caller.results_are(written)
    assert len(answers.ids) == len(set(answers.ids)) == written


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


async def meets_a_cancelled_task() -> None:
    """As a tool does that waits for something which somebody else has cancelled."""
    waited = asyncio.ensure_future(asyncio.sleep(99))
    await asyncio.sleep(0)
    waited.cancel()
    await waited


async def fails() -> None:
    raise RuntimeError("nobody expected this")


@pytest.mark.parametrize("unexpected", [meets_a_cancelled_task, fails])
@in_virtual_time
async def test_a_call_that_ends_as_nobody_expected_is_answered_and_not_done_again(
    unexpected: Callable[[], Awaitable[None]],
) -> None:
    done: list[str] = []

    async def answer(received: ReceivedCall) -> ToolSuccess:
        done.append(received.call_id)
        if received.call_id == "bad":
            await unexpected()
        return ToolSuccess(data={})

    async with answering(answer) as caller:
        await caller.call("bad")
        await caller.call("good")
        await caller.results_are(2)
        await caller.call("bad")
        await caller.committed(0, 3)
        codes = {result["callId"]: result.get("error", {}).get("code") for result in caller.results()}
    assert codes == {"bad": "internal_error", "good": None}
    assert sorted(done) == ["bad", "good"]


@pytest.mark.parametrize("unexpected", [meets_a_cancelled_task, fails])
@in_virtual_time
async def test_a_call_of_which_it_cannot_be_found_out_whose_it_is_is_refused_and_may_be_sent_again(
    unexpected: Callable[[], Awaitable[None]],
) -> None:
    seen: list[str] = []

    async def identify(received: ReceivedCall) -> OwnedCall:
        seen.append(received.call_id)
        if len(seen) == 1:
            await unexpected()
        return OwnedCall(OWNER, partial(Answers(), received))

    caller = Caller(InMemoryCluster())
    await caller.start()
    log = InMemoryLog(caller.cluster)
    async with ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="one", now=wall_clock):
        await caller.call("a")
        assert [result["error"]["code"] for result in await caller.results_are(1)] == ["internal_error"]
        await caller.call("a")
        await caller.results_are(2)
        await caller.committed(0, 2)
        assert caller.results()[1]["ok"]


@pytest.mark.parametrize("unexpected", [meets_a_cancelled_task, fails])
@in_virtual_time
async def test_a_call_that_cannot_be_answered_is_told_and_its_id_is_free(unexpected: Callable[[], Awaitable[None]]) -> None:
    """What fails is neither the tool nor who knows the callers: then nobody can say what became of the call."""
    broken = True

    async def turn() -> None:
        if broken:
            await unexpected()

    async def identify(received: ReceivedCall) -> OwnedCall:
        return OwnedCall(OWNER, partial(Answers(), received), turn=turn)

    caller = Caller(InMemoryCluster())
    await caller.start()
    log = InMemoryLog(caller.cluster)
    async with ToolCallConsumer(log, CallTopics.of(TOPICS), identify, instance_id="one", now=wall_clock) as made:
        await until(lambda: made.trouble is None)
        await caller.call("a")
        await until(lambda: "ended by itself" in str(made.trouble))
        broken = False
        await caller.call("a")
        assert [result["ok"] for result in await caller.results_are(1)] == [True]


@in_virtual_time
async def test_a_refusal_that_cannot_be_written_is_another_one_and_holds_up_nobody() -> None:
    async def answer(received: ReceivedCall) -> ToolRefusal:
        return ToolRefusal(error=ToolError(code="caf\ud800", message="It is refused."))

    async with answering(answer) as caller:
        await caller.call("a")
        assert [result["error"]["code"] for result in await caller.results_are(1)] == ["internal_error"]
        await caller.committed(0, 1)


async def with_a_call_that_takes_long_to_end() -> tuple[Caller, ToolCallConsumer]:
    """A consumer that has a call under way, which when it is cut off goes on for five minutes, and then answers."""
    begun, caller = asyncio.Event(), Caller(InMemoryCluster())
    await caller.start()

    async def answer(received: ReceivedCall) -> ToolSuccess:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(300)
        return ToolSuccess(data={})

    started = consumer(InMemoryLog(caller.cluster), answer)
    await started.start()
    await caller.call("a")
    await begun.wait()
    return caller, started


@in_virtual_time
async def test_a_call_that_takes_long_to_end_holds_up_no_revocation_and_writes_nothing_after_it() -> None:
    caller, made = await with_a_call_that_takes_long_to_end()
    async with asyncio.timeout(6):
        await made._revoked(list(made._partitions))
    assert caller.results() == []
    await asyncio.sleep(400)
    assert caller.results() == [], "somebody else answers it"
    await made.stop()


@in_virtual_time
async def test_a_call_that_takes_long_to_end_holds_up_no_stop() -> None:
    caller, made = await with_a_call_that_takes_long_to_end()
    async with asyncio.timeout(10 + CUT_OFF_SECONDS + 1):
        await made.stop(grace_seconds=10)
    await asyncio.sleep(400)
    assert caller.results() == []


@in_virtual_time
async def test_what_is_under_way_at_a_revocation_has_a_moment_and_what_it_did_is_committed() -> None:
    caller, answers, made = await with_a_call_under_way()
    revoking = asyncio.create_task(made._revoked(list(made._partitions)))
    await asyncio.sleep(2)
    assert not revoking.done()
    answers.hold.set()
    await revoking
    assert [each["callId"] for each in caller.results()] == ["a"]
    source = TopicPartition(CALLS, 0)
    assert caller.cluster.committed_offsets(TOPICS.tool_call_group())[source] == 1
    await made.stop()


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
async def test_a_stop_leaves_what_was_read_just_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, held = InMemoryGroupConsumer.fetch, asyncio.Event()
    fetched: list[Any] = []

    async def late(self: InMemoryGroupConsumer, **values: Any) -> Any:
        if found := await fetch(self, **values):
            fetched.append(found)
            await held.wait()
        return found

    caller, answers, stopped = await with_a_call_under_way()
    monkeypatch.setattr(InMemoryGroupConsumer, "fetch", late)
    await asyncio.sleep(2)  # so that the fetch under way is a late one
    await caller.call("b")
    await until(lambda: bool(fetched))
    stopping = asyncio.create_task(stopped.stop(grace_seconds=20))
    await asyncio.sleep(1)
    held.set()
    await asyncio.sleep(1)
    answers.hold.set()
    await stopping
    assert answers.ids == ["a"]
    await caller.committed(0, 1)
