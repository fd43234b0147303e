"""A replayed job that asks for much at a time gets its answers in the order in which they came then, and soon."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import JobContext
from headrace.core.comparison import Verdict
from headrace.ports import RecordingKey
from headrace.recordings.names import keyed
from headrace.replay.history import RecordedJob
from headrace.replay.rerunning.answers import PastAnswers
from headrace.replay.rerunning.effects import Effects
from headrace.replay.rerunning.waiting import WaitedHistory
from support.histories import InMemoryHistory, past_attempt, recorded_job
from support.memory_engines import Bench
from support.reruns import Does, DoesInThread, rerun
from support.virtual_time import in_virtual_time
from unit.recordings.test_live import Asks, done, enqueue, running
from unit.recordings.test_order import as_recorded

LONGEST_CPU_SECONDS = 3.0
"""What is done here takes less than a tenth of it; with work that grows as the square of what is asked for it takes minutes."""


def outside() -> Any:
    raise AssertionError("nobody asks outside")


async def test_to_hand_out_answers_takes_no_more_than_their_number_does() -> None:
    many = 2_000

    async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        return await asyncio.gather(*(ctx.recorded("page", outside) for _ in range(many)))

    history = InMemoryHistory()
    history.recorded["a-job", 1] = {RecordingKey("page", number): orjson.dumps(number) for number in range(many)}
    began = time.process_time()
    told = await rerun(Does(asks, timeout=60.0), recorded_job("does", result=list(range(many))), history)
    assert (told.comparison.verdict, told.replayed.error_message) == (Verdict.SAME, None)
    assert time.process_time() - began < LONGEST_CPU_SECONDS


async def test_while_one_job_waits_for_many_answers_the_others_go_on() -> None:
    """Of 20 jobs at a time each asks for 200 pages at once, and what one gets it gets in order."""
    began = time.process_time()

    async def one(number: int) -> Any:
        job_id, order = f"job-{number}", list(range(200))
        random.Random(number).shuffle(order)
        history = InMemoryHistory()
        history.recorded[job_id, 1] = {RecordingKey("page", each): orjson.dumps(each) for each in order}

        async def asks(args: dict[str, Any], ctx: JobContext) -> Any:
            pages = [ctx.recorded("page", outside) for _ in order]
            return [await page for page in asyncio.as_completed(pages)]

        return (await rerun(Does(asks), recorded_job("does", result=order, job_id=job_id), history)).comparison.verdict

    assert set(await asyncio.gather(*map(one, range(20)))) == {Verdict.SAME}
    assert time.process_time() - began < LONGEST_CPU_SECONDS


@pytest.mark.parametrize("seed", range(5))
@in_virtual_time
async def test_calls_that_follow_from_answers_get_their_own(tmp_path: Path, seed: int) -> None:
    """A dozen chains of three calls under one name, whose numbers hang on which of all answers was the next."""
    bench, sites = Bench(tmp_path), list(range(12))
    seconds = random.Random(seed)

    async def chain(ctx: JobContext, site: int) -> list[str]:
        async def answer(of: str) -> str:
            await asyncio.sleep(seconds.choice((1, 2, 3, 4, 5)) + site / 100)
            return f"{of} of {site}"

        # As one more task would have it: what follows from an answer takes some turns of the event loop.
        async def asked(of: str) -> str:
            return str(await asyncio.ensure_future(ctx.recorded("answer", lambda: answer(of))))

        return [await asked(of) for of in ("page", "summary", "title")]

    async def job(ctx: JobContext) -> Any:
        return await asyncio.gather(*(chain(ctx, site) for site in sites))

    async def again(args: dict[str, Any], ctx: JobContext) -> Any:
        return await job(ctx)

    right = [[f"{of} of {site}" for of in ("page", "summary", "title")] for site in sites]
    async with running(bench, Asks(job)):
        enqueue(bench)
        assert (await done(bench))["result"] == right
    told = await rerun(Does(again), recorded_job("does", result=right), as_recorded(bench))
    assert (told.replayed.result, told.comparison.verdict) == (right, Verdict.SAME)


class Held(InMemoryHistory):
    """What earlier attempts recorded is read when the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_for = asyncio.Event()
        self.released = asyncio.Event()

    async def recordings(self, job: RecordedJob, attempt: int) -> Mapping[RecordingKey, bytes]:
        self.asked_for.set()
        await self.released.wait()
        return await super().recordings(job, attempt)


async def in_order_of_answers(history: InMemoryHistory, attempt: int, numbers: list[int]) -> list[int]:
    """The numbers of what is asked for at a time, as the answers come."""
    past = PastAnswers(WaitedHistory(history), recorded_job("asks"), attempt, Effects(), live=False)
    came: list[int] = []

    async def ask(number: int) -> None:
        assert await past.find(RecordingKey("page", number), reuse=True) == b"%d" % number
        came.append(number)

    asking = [asyncio.create_task(ask(number)) for number in numbers]
    if isinstance(history, Held):
        await history.asked_for.wait()
        history.released.set()
    await asyncio.gather(*asking)
    return came


@pytest.mark.parametrize("of_attempt", [1, 2], ids=["earlier", "own"])
async def test_while_it_is_read_what_was_recorded_nobody_gets_an_answer_before_another(of_attempt: int) -> None:
    history, numbers = Held(), list(range(60))
    history.recorded["a-job", of_attempt] = {RecordingKey("page", each): b"%d" % each for each in numbers}
    assert await in_order_of_answers(history, 2, [*numbers[1:], numbers[0]]) == numbers


async def test_who_gives_up_holds_nobody_up() -> None:
    history = InMemoryHistory()
    history.record("a-job", 1, "page", *range(5))
    past = PastAnswers(WaitedHistory(history), recorded_job("asks"), 1, Effects(), live=False)
    asking = [asyncio.create_task(past.find(RecordingKey("page", number), reuse=False)) for number in range(5)]
    await asyncio.sleep(0)  # all of them wait
    for each in (asking[0], asking[3]):
        each.cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in answers] == [asyncio.CancelledError, bytes, bytes, asyncio.CancelledError, bytes]
    assert await past.find(RecordingKey("page", 0), reuse=False) == b"0"


async def test_threads_that_ask_at_a_time_all_get_their_own() -> None:
    """Sixteen threads each ask five times, one after the other; a key tells whose answer it is."""
    history, threads, times = InMemoryHistory(), 16, 5
    meeting = threading.Barrier(threads, timeout=30)

    def one(ctx: JobContext, number: int) -> list[str]:
        meeting.wait()
        return [ctx.recorded_from_thread("page", outside, key=[number, each]) for each in range(times)]

    def asks(args: dict[str, Any], ctx: JobContext) -> Any:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda number: one(ctx, number), range(threads)))

    right = [[f"{number}/{each}" for each in range(times)] for number in range(threads)]
    history.recorded["a-job", 1] = {
        RecordingKey(keyed("page", [number, each]), 0): orjson.dumps(f"{number}/{each}")
        for each in range(times)
        for number in reversed(range(threads))
    }
    job = recorded_job("does", result=right, attempts=[past_attempt(1, "completed")])
    told = await rerun(DoesInThread(asks, timeout=30.0), job, history)
    assert (told.replayed.result, told.comparison.verdict) == (right, Verdict.SAME)
