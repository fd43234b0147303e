"""Of several calls under one name each gets its own answer, in a later attempt and in a replay, whatever came back first."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext, Retry
from headrace.core.comparison import Verdict
from headrace.recordings import calls as recorded_calls
from headrace.recordings import given_names, parse_recording_key
from support.histories import InMemoryHistory, recorded_job
from support.memory_engines import Bench
from support.reruns import Does, rerun
from support.virtual_time import in_virtual_time
from unit.recordings.test_live import RECORDINGS, Asks, AsksInThread, done, enqueue, running

Behaves = Callable[[JobContext], Awaitable[Any]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Outside:
    """What a job asks: it answers each question after a time that is another in each attempt.

    Attributes:
        asked: the questions, by attempt.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []

    def page(self, ctx: JobContext, site: str) -> Callable[[], Awaitable[str]]:
        """`b` is quicker in a first attempt, and `a` in a second one."""
        return self._answers(ctx, f"page of {site}", 1 if (site == "b") == (ctx.attempt == 1) else 2)

    def summary(self, ctx: JobContext, page: str) -> Callable[[], Awaitable[str]]:
        return self._answers(ctx, f"summary of {page}", 2)

    def _answers(self, ctx: JobContext, question: str, seconds: float) -> Callable[[], Awaitable[str]]:
        async def answer() -> str:
            self.asked.append((ctx.attempt, question))
            await asyncio.sleep(seconds)
            return question

        return answer

    def paid(self, attempt: int) -> list[str]:
        """What was asked in an attempt."""
        return sorted(question for of, question in self.asked if of == attempt)


async def in_two_attempts(bench: Bench, behaves: Behaves) -> Any:
    """The job's result, whose first attempt ends after all its answers."""

    async def asks(ctx: JobContext) -> Any:
        result = await behaves(ctx)
        if ctx.attempt == 1:
            raise Retry("once more", after=0)
        return result

    async with running(bench, Asks(asks)):
        enqueue(bench)
        ended = await done(bench)
    assert ended["status"] == "completed", ended
    return ended["result"]


def as_recorded(bench: Bench) -> InMemoryHistory:
    """The same for a replay of the job's first attempt."""
    history = InMemoryHistory()
    for record in bench.cluster.topic_records(RECORDINGS):
        place = parse_recording_key(record.key)
        assert place is not None and record.value is not None
        history.recorded.setdefault(("a-job", place.attempt), {})[place.key] = record.value
    return history


RIGHT = {site: f"summary of page of {site}" for site in ("a", "b")}


def summaries(outside: Outside, *, with_key: bool = False, by_completion: bool = False, **options: Any) -> Behaves:
    """A job that asks for pages at a time, and for the summary of each as soon as it is there."""

    async def page_of(site: str, page: Awaitable[str]) -> tuple[str, str]:
        return site, await page

    async def summary_of(ctx: JobContext, site: str, page: str) -> tuple[str, str]:
        key = {"site": site} if with_key else None
        return site, await ctx.recorded("summary", outside.summary(ctx, page), key=key, **options)

    async def both(ctx: JobContext, site: str) -> tuple[str, str]:
        return await summary_of(ctx, site, await ctx.recorded("page", outside.page(ctx, site)))

    async def behaves(ctx: JobContext) -> Any:
        if by_completion:
            pages = [page_of(site, ctx.recorded("page", outside.page(ctx, site))) for site in RIGHT]
            return dict([await summary_of(ctx, *await page) for page in asyncio.as_completed(pages)])
        return dict(await asyncio.gather(*(both(ctx, site) for site in RIGHT)))

    return behaves


@pytest.mark.parametrize("by_completion", [False, True], ids=["tasks", "as-completed"])
@in_virtual_time
async def test_no_attempt_takes_the_answer_of_another_call(
    bench: Bench, by_completion: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_calls, "_warned", set())
    outside = Outside()
    with caplog.at_level(logging.WARNING, "headrace.recordings"):
        assert await in_two_attempts(bench, summaries(outside, by_completion=by_completion, reuse=True)) == RIGHT
    assert [question for question in outside.paid(2) if "summary" in question] == sorted(RIGHT.values())
    assert len([record for record in caplog.records if "key=" in record.getMessage()]) == 1


@in_virtual_time
async def test_with_a_key_each_call_gets_its_own_answer_again(bench: Bench) -> None:
    outside = Outside()
    assert await in_two_attempts(bench, summaries(outside, with_key=True, reuse=True)) == RIGHT
    assert outside.paid(2) == ["page of a", "page of b"]


@pytest.mark.parametrize("by_completion", [False, True], ids=["tasks", "as-completed"])
@pytest.mark.parametrize("with_key", [False, True], ids=["no-key", "key"])
@in_virtual_time
async def test_a_replay_hands_answers_out_in_the_order_in_which_they_came(
    bench: Bench, with_key: bool, by_completion: bool
) -> None:
    job = summaries(Outside(), with_key=with_key, by_completion=by_completion)

    async def again(args: dict[str, Any], ctx: JobContext) -> Any:
        return await job(ctx)

    async with running(bench, Asks(job)):
        enqueue(bench)
        assert (await done(bench))["result"] == RIGHT
    told = await rerun(Does(again), recorded_job("does", result=RIGHT), as_recorded(bench))
    assert (told.replayed.result, told.comparison.verdict) == (RIGHT, Verdict.SAME)


@in_virtual_time
async def test_what_one_task_asks_at_once_is_paid_once(bench: Bench) -> None:
    outside = Outside()

    async def behaves(ctx: JobContext) -> Any:
        answers = [await ctx.recorded("first", outside.page(ctx, "first"), reuse=True)]
        sites = ("a", "b", "c")
        return answers + await asyncio.gather(*(ctx.recorded("page", outside.page(ctx, each), reuse=True) for each in sites))

    assert await in_two_attempts(bench, behaves) == [f"page of {each}" for each in ("first", "a", "b", "c")]
    assert outside.paid(2) == []


@in_virtual_time
async def test_calls_within_another_are_counted_by_themselves(bench: Bench) -> None:
    outside = Outside()

    async def page(ctx: JobContext, site: str) -> str:
        token = await ctx.recorded("token", lambda: f"token of {site}", reuse=True)
        if ctx.attempt == 1 and site == "b":
            raise Retry("once more", after=0)
        return f"{site} by {token}"

    async def behaves(ctx: JobContext) -> Any:
        return [await ctx.recorded("page", partial(page, ctx, site), reuse=True) for site in ("a", "b")]

    assert await in_two_attempts(bench, behaves) == ["a by token of a", "b by token of b"]
    keys = [record.key for record in bench.cluster.topic_records(RECORDINGS)]
    assert keys.count(b"job/1/page%230%2Ftoken/0") == keys.count(b"job/1/page%231%2Ftoken/0") == 1
    assert b"job/2/page%231%2Ftoken/0" not in keys
    assert outside.asked == []


async def test_threads_have_no_order(bench: Bench) -> None:
    """The second attempt's threads come the other way round."""

    def asks(ctx: JobContext) -> Any:
        answers: dict[str, Any] = {}
        begun = threading.Barrier(2)

        def ask(site: str) -> None:
            def waits() -> str:
                begun.wait(10)
                return site

            answers[site] = ctx.recorded_from_thread("page", waits, reuse=True)

        threads = [threading.Thread(target=ask, args=(site,)) for site in ("ab" if ctx.attempt == 1 else "ba")]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if ctx.attempt == 1:
            raise Retry("once more", after=0)
        return answers

    async with running(bench, AsksInThread(asks)):
        enqueue(bench)
        assert (await done(bench))["result"] == {"a": "a", "b": "b"}


async def test_a_key_that_is_no_json_is_refused(bench: Bench) -> None:
    async def asks(ctx: JobContext) -> Any:
        return await ctx.recorded("page", lambda: 1, key=object())

    async with running(bench, Asks(asks)):
        enqueue(bench)
        assert "key is no JSON" in (await done(bench))["error"]["message"]


def test_the_workers_name_is_among_those_that_a_recording_may_have() -> None:
    digest = "0" * 32
    for recorded in ("page", "page[?]", f"page[{digest}]", f"x#1/page[{digest}]", f"x#1/page[{digest}][?]"):
        assert "page" in list(given_names(recorded)), recorded
    assert f"page[{digest}]" in list(given_names(f"page[{digest}]"))
