"""Recorded jobs are run again as engines ran them, and nothing of what they do is done."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from headrace import GiveUp, Job, JobContext, NewEntry, Retry, WorkerUnknown, worker
from headrace.core.comparison import Verdict
from headrace.core.retry import qualified_name
from headrace.core.snapshots import shorten
from headrace.core.status import JobStatus
from headrace.models import WorkerDefinition
from headrace.ports import ConversationRef, MemorySnapshot
from headrace.recordings.failures import encode_failure
from headrace.replay.history import Began, RecordedJob, RecordingKey
from headrace.replay.rerunning.rerun import Rerunner, RerunOptions
from headrace.replay_errors import AttemptUnknown
from support.histories import InMemoryHistory, past_attempt, recorded_job
from support.reruns import Does, DoesInThread, rerun


class Amount(BaseModel):
    amount: int = 0


async def test_the_same_code_makes_the_same_of_a_job() -> None:
    async def sums(args: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
        return {"sum": sum(args["numbers"]), "numbers": tuple(args["numbers"])}

    told = await rerun(Does(sums), recorded_job("does", {"numbers": [1, 2]}, result={"numbers": [1, 2], "sum": 3}))
    assert told.comparison.verdict is Verdict.SAME
    assert (told.replayed.status, told.replayed.result) == (JobStatus.COMPLETED, {"sum": 3, "numbers": [1, 2]})
    assert told.replayed.seconds is not None and told.recorded is not None and told.recorded.seconds == 1.0


async def test_other_code_makes_something_else_of_it() -> None:
    async def fails(args: dict[str, Any], ctx: JobContext) -> Any:
        raise ValueError("no use")

    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 2

    newly_failing = await rerun(Does(fails), recorded_job("does", result=1))
    assert newly_failing.comparison.verdict is Verdict.NEWLY_FAILING
    assert newly_failing.error is not None
    assert (newly_failing.error["type"], newly_failing.error["message"]) == ("ValueError", "no use")
    assert "in fails" in newly_failing.error["traceback"] and "/rerunning/" not in newly_failing.error["traceback"]
    assert (await rerun(Does(returns), recorded_job("does", result=1))).comparison.verdict is Verdict.DIFFERENT
    assert (await rerun(Does(returns), recorded_job("does", error=("E", "m")))).comparison.verdict is Verdict.NEWLY_FIXED
    assert (await rerun(Does(fails), recorded_job("does", error=("ValueError", "no use")))).comparison.verdict is Verdict.SAME
    assert (await rerun(Does(fails), recorded_job("does", error=("ValueError", "no"))))\
        .comparison.verdict is Verdict.DIFFERENT  # fmt: skip


@pytest.mark.parametrize("error", [Retry("once more", after=1), GiveUp("no use")], ids=["retry", "give-up"])
async def test_no_attempt_follows(error: Exception) -> None:
    async def fails(args: dict[str, Any], ctx: JobContext) -> Any:
        raise error

    told = await rerun(Does(fails), recorded_job("does", result=1))
    assert told.replayed.error_type == f"headrace.errors.{type(error).__name__}"


async def test_a_job_sees_what_it_saw() -> None:
    seen: list[Any] = []

    async def looks(args: dict[str, Any], ctx: JobContext) -> None:
        seen.extend([ctx.job, ctx.attempt, ctx.fencing_token, ctx.now(), ctx.replaying, ctx.cancelled, args])

    attempts = [past_attempt(1, "failed", ("E", "m")), past_attempt(2, "interrupted"), past_attempt(3, "completed")]
    job = recorded_job("does", {"a": 1}, attempts=attempts, parentId="parent", orderingKey="key")
    await rerun(Does(looks), job)
    found, attempt, token, now, replaying, cancelled, args = seen
    assert isinstance(found, Job)
    assert (found.id, found.tenant, found.ctx.user_id, found.parent_id) == ("a-job", "acme", "ann", "parent")
    assert (found.status, found.attempt, found.failures, found.ordering_key) == ("running", 3, 1, "key")
    assert [each.status for each in found.attempts] == ["failed", "interrupted", "running"]
    assert found.attempts[2].finished_at is None and found.result is None and found.error is None
    assert found.source is not None and found.source.offset == 5
    assert (attempt, token, replaying, cancelled, args) == (3, (7, 3), True, False, {"a": 1})
    assert now == datetime.fromisoformat("2026-03-02T09:32:01Z")

    seen.clear()
    told = await rerun(Does(looks), job, attempt=1)
    assert (seen[1], seen[2], seen[0].failures) == (1, (7, 1), 0)
    assert seen[3] == datetime.fromisoformat("2026-03-02T09:30:01Z")
    assert told.attempt == 1


async def test_an_earlier_attempt_is_compared_with_what_is_kept_of_it() -> None:
    text = "x" * 2000

    async def fails(args: dict[str, Any], ctx: JobContext) -> Any:
        raise ValueError(text)

    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 3

    attempts = [past_attempt(1, "failed", ("ValueError", shorten(text, 500))), past_attempt(2, "completed")]
    job = recorded_job("does", result=3, attempts=attempts)
    told = await rerun(Does(fails), job, attempt=1)
    assert told.comparison.verdict is Verdict.SAME
    assert told.replayed.error_message == text
    assert (await rerun(Does(returns), job, attempt=1)).comparison.verdict is Verdict.NEWLY_FIXED
    assert (await rerun(Does(returns), job)).comparison.verdict is Verdict.SAME


async def test_what_did_not_end_by_the_code_is_not_compared() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return ctx.attempt

    interrupted = recorded_job("does", status="queued", attempts=[past_attempt(1, "interrupted")])
    cancelled = recorded_job("does", status="cancelled")
    never_begun = RecordedJob(cancelled.record, cancelled.source, 5, cancelled.accepted_at, None)
    died = recorded_job("does", error=("headrace.errors.WorkerProcessDied", "died"))
    for job in (interrupted, cancelled, never_begun, died):
        told = await rerun(Does(returns), job)
        assert (told.comparison.verdict, told.replayed.result) == (Verdict.NOT_COMPARABLE, 1)


@pytest.mark.parametrize("number", [0, 3, -1])
async def test_an_attempt_that_there_is_not(number: int) -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        raise AssertionError

    job = recorded_job("does", attempts=[past_attempt(1, "failed"), past_attempt(2, "completed")])
    with pytest.raises(AttemptUnknown, match="attempts 1 to 2"):
        await rerun(Does(returns), job, attempt=number)


async def test_a_worker_that_is_not_in_the_code() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        raise AssertionError

    with pytest.raises(WorkerUnknown, match=r"'gone'.* Loaded are: does"):
        await rerun(Does(returns), recorded_job("gone"))


async def test_arguments_that_the_model_takes_no_more() -> None:
    @worker(name="pays")
    def pays(args: Amount, ctx: JobContext) -> int:
        return args.amount

    told = await rerun(pays, recorded_job("pays", {"amount": "many"}, result=1))
    assert told.comparison.verdict is Verdict.ARGUMENTS_REFUSED
    assert told.error is not None and told.error["type"] == "arguments_invalid" and "amount" in told.error["message"]
    again = recorded_job("pays", {"amount": "many"}, error=("arguments_invalid", told.error["message"]), attempts=[])
    assert (await rerun(pays, again)).comparison.verdict is Verdict.SAME
    mended = recorded_job("pays", {"amount": 3}, error=("arguments_invalid", "no"), attempts=[])
    assert (await rerun(pays, mended)).comparison.verdict is Verdict.NEWLY_FIXED


async def test_plain_functions_run_in_threads_and_so_do_those_for_processes() -> None:
    def where(args: dict[str, Any], ctx: JobContext) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        ctx.progress(0.5, "half")
        child = ctx.enqueue_from_thread("does", {"n": 1})
        return [child.id, ctx.recorded_from_thread("model", lambda: "asked")]

    history = InMemoryHistory(definitions={"does": WorkerDefinition(name="does", description="", category="")})
    history.record("a-job", 1, "model", "recorded")
    for executor in (None, "process"):
        told = await rerun(DoesInThread(where, executor=executor), recorded_job("does"), history)
        assert told.error is None
        [child] = told.effects.enqueued
        assert told.replayed.result == [child.id, "recorded"]
        assert [(each.fraction, each.text) for each in told.effects.progress] == [(0.5, "half")]


async def test_an_override_of_process_job_is_kept() -> None:
    class Overrides(Does):
        async def process_job(self, job: Job, ctx: JobContext | None = None) -> Any:
            return {"overridden": await super().process_job(job, ctx)}

    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return args["n"]

    assert (await rerun(Overrides(returns), recorded_job("does", {"n": 4}))).replayed.result == {"overridden": 4}


async def test_children_have_the_ids_that_they_had_and_are_not_enqueued() -> None:
    async def enqueues(args: dict[str, Any], ctx: JobContext) -> Any:
        return [(await ctx.enqueue("does", {"n": n}, ordering_key="k")).id for n in (1, 1, 2)]

    job = recorded_job("does")
    first, second = await rerun(Does(enqueues), job), await rerun(Does(enqueues), job)
    assert first.replayed.result == second.replayed.result
    assert len(set(first.replayed.result)) == 3
    assert [(each.parent_id, each.tenant, each.ordering_key) for each in first.effects.enqueued] == [("a-job", "acme", "k")] * 3
    assert first.effects.to_json()["enqueued"][2]["args"] == {"n": 2}


async def test_a_child_for_nobody_is_refused() -> None:
    async def enqueues(args: dict[str, Any], ctx: JobContext) -> Any:
        await ctx.enqueue("nobody", {})

    told = await rerun(Does(enqueues), recorded_job("does"))
    assert told.replayed.error_type == "headrace.errors.WorkerUnknown"


async def test_what_was_recorded_is_handed_back_and_nothing_else() -> None:
    asked: list[str] = []

    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        def outside() -> str:
            asked.append("outside")
            return "asked"

        return [await ctx.recorded(name, outside, reuse=name == "reused") for name in args["names"]]

    attempts = [past_attempt(1, "failed", ("E", "m")), past_attempt(2, "completed")]
    history = InMemoryHistory()
    history.record("a-job", 1, "reused", "of 1")
    history.record("a-job", 1, "anew", "of 1")
    history.record("a-job", 2, "anew", "of 2", {"n": 1})
    names = ["reused", "anew", "anew"]
    told = await rerun(Does(asks), recorded_job("does", {"names": names}, attempts=attempts), history)
    assert told.replayed.result == ["of 1", "of 2", {"n": 1}]

    more = recorded_job("does", {"names": ["anew", "late"]}, attempts=attempts)
    told = await rerun(Does(asks), more, history)
    assert told.replayed.error_type == "headrace.errors.NotRecorded"
    assert "'late', number 0" in str(told.replayed.error_message)
    assert told.effects.not_recorded == [RecordingKey("late", 0)]
    assert told.comparison.verdict is Verdict.NOT_COMPARABLE
    assert told.comparison.reason == "today's code asks for 'late', number 0, which was not recorded: --live asks outside for it"
    assert asked == []

    told = await rerun(Does(asks), more, history, options=RerunOptions(live=True))
    assert told.replayed.result == ["of 2", "asked"]
    assert told.effects.asked_outside == [RecordingKey("late", 0)]
    assert asked == ["outside"]


class Busy(Exception):
    """Of the worker's own code, with more than a text."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


async def test_what_was_raised_outside_is_raised_again_and_the_same_branch_is_taken() -> None:
    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        def outside() -> None:
            raise AssertionError("nobody asks outside")

        told: list[Any] = []
        for _ in range(4):
            try:
                told.append(await ctx.recorded("model", outside))
            except TimeoutError as error:
                told.append(f"slow: {error}")
            except Busy as error:
                told.append(f"busy: {error}")
        return [*told, await ctx.recorded("model", outside)]

    history = InMemoryHistory()
    history.record("a-job", 1, "model", "first", "second")
    of_attempt = history.recorded["a-job", 1]
    for number, failure, error in ((0, 0, TimeoutError("1 s")), (0, 1, Busy(7)), (1, 0, TimeoutError("2 s"))):
        of_attempt[RecordingKey("model", number, failure)] = encode_failure(error)
    result = ["slow: 1 s", "busy: code 7", "first", "slow: 2 s", "second"]
    told = await rerun(Does(asks), recorded_job("does", result=result), history)
    assert (told.replayed.result, told.comparison.verdict) == (result, Verdict.SAME)


async def test_a_job_that_failed_by_what_was_raised_outside_fails_by_the_same() -> None:
    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        return await ctx.recorded("model", lambda: 1, reuse=True)

    name = qualified_name(Busy)
    for kind in (name, "not.loaded.Busy"):
        history = InMemoryHistory()
        history.recorded["a-job", 2] = {RecordingKey("model", 0, 0): orjson.dumps({"type": kind, "message": "code 7"})}
        attempts = [past_attempt(1, "failed", ("E", "m")), past_attempt(2, "failed", (kind, "code 7"))]
        told = await rerun(Does(asks), recorded_job("does", error=(kind, "code 7"), attempts=attempts), history)
        assert (told.comparison.verdict, told.replayed.error_type) == (Verdict.SAME, kind)


async def test_no_attempt_sees_another_ones_context_variables() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def sets(args: dict[str, Any], ctx: JobContext) -> Any:
        before = variable.get()
        variable.set(before + 1)
        return before

    async with Rerunner(InMemoryHistory(), [Does(sets)]) as rerunner:
        told = [await rerunner.rerun(recorded_job("does")) for _ in range(2)]
    assert [each.replayed.result for each in told] == [0, 0]


async def test_workers_are_closed_in_the_end() -> None:
    closed: list[str] = []

    class Closes(Does):
        async def close(self) -> None:
            closed.append(self.name)

    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        await ctx.memory.append("ann", "trip", [NewEntry(role="user", content="hello")])
        return closed.copy()

    told = await rerun(Closes(returns), recorded_job("does"))
    assert (told.replayed.result, closed) == ([], ["does"])


async def test_the_time_in_which_the_history_is_read_is_not_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def perf_counter(cls) -> float:
            return cls.now

    class SlowHistory(InMemoryHistory):
        async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
            Clock.now += 5
            return await super().recordings(job, attempt)

    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        Clock.now += 2
        return await ctx.recorded("rate", lambda: 0)

    monkeypatch.setattr("headrace.replay.rerunning.rerun.time", Clock)
    monkeypatch.setattr("headrace.replay.rerunning.waiting.time", Clock)
    job, history = recorded_job("does", result=7), SlowHistory()
    history.record(job.id, 1, "rate", 7)
    told = await rerun(Does(asks), job, history)
    assert (told.replayed.result, told.replayed.seconds) == (7, 2.0)


class SlowMemory(InMemoryHistory):
    """To read the memory takes longer than a worker waits for it, unless it was read ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.most: list[int | None] = []
        self.ready: set[ConversationRef] = set()

    async def read_memory_ahead(self, conversation: ConversationRef, *, at_most: int | None) -> None:
        self.most.append(at_most)
        self.ready.add(conversation)

    async def memory_at(self, conversation: ConversationRef, at: int | Began) -> MemorySnapshot:
        if conversation not in self.ready:
            await asyncio.Event().wait()
        return await super().memory_at(conversation, at)


async def test_the_memory_of_the_conversation_that_a_job_names_is_there_before_it_begins() -> None:
    """A time limit of the worker's own knows nothing of what is read of the log."""

    async def reads(args: dict[str, Any], ctx: JobContext) -> Any:
        async with asyncio.timeout(20):
            return len((await ctx.memory.read("ada", "trip")).entries)

    history, job = SlowMemory(), recorded_job("does", {"userId": "ada", "conversationId": "trip"}, result=0)
    async with Rerunner(history, [Does(reads)]) as rerunner:
        for _ in range(2):
            told = await rerunner.rerun(job)
            assert (told.comparison.verdict, told.replayed.result) == (Verdict.SAME, 0)
    assert list(dict.fromkeys(history.most)) == [50_000, None], "of a worker that asks for memory whatever there is"


async def test_a_job_that_names_no_conversation_has_none_read_ahead() -> None:
    async def returns(args: dict[str, Any], ctx: JobContext) -> Any:
        return 1

    history = SlowMemory()
    await rerun(Does(returns), recorded_job("does", {"userId": "ada"}), history)
    assert history.most == []
