"""What `recorded` says to whoever gives it no function, or one of the wrong kind, and that Python adds nothing to it."""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from headrace import Job, JobContext
from headrace.job_context import JobServices
from headrace.ports import RecordingKey
from headrace.threads import DaemonThreads

JOB = {
    **{"id": "j", "workerName": "asks", "status": "running"},
    **{"createdAt": "2026-03-02T09:30:00.000Z", "updatedAt": "2026-03-02T09:30:00.000Z"},
}


class Written:
    """A `Recorder` that keeps what it is given."""

    def __init__(self) -> None:
        self.records: dict[RecordingKey, Any] = {}

    async def find(self, key: RecordingKey, *, reuse: bool) -> bytes | None:
        return None

    async def write(self, key: RecordingKey, value: bytes) -> None:
        self.records[key] = orjson.loads(value)


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
async def ctx(written: Written) -> JobContext:
    job = Job.model_validate(JOB)
    return JobContext(job, services=JobServices(recordings=lambda *_: written, loop=asyncio.get_running_loop()))


@pytest.fixture
async def in_thread() -> AsyncIterator[Callable[[Callable[[], Any]], Any]]:
    threads = DaemonThreads("asks")
    yield functools.partial(asyncio.get_running_loop().run_in_executor, threads)
    threads.shutdown()


@contextmanager
def refused(what: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(TypeError, match=re.escape(what)):
            yield
        gc.collect()
    assert [str(each.message) for each in warned] == []


async def ask(question: str = "?") -> str:
    return question


class Asker:
    async def __call__(self) -> str:
        return "!"


async def test_a_coroutine_is_no_function(ctx: JobContext, written: Written, in_thread: Callable[..., Any]) -> None:
    with refused("was given a coroutine in place of a function"):
        await ctx.recorded("model", ask("why?"))  # type: ignore[arg-type]
    with refused("recorded('model', lambda: ask(question))"):
        await in_thread(lambda: ctx.recorded("model", ask("why?")))  # type: ignore[arg-type]
    with refused("was given a coroutine in place of a function"):
        await in_thread(lambda: ctx.recorded_from_thread("model", ask("why?")))  # type: ignore[arg-type]
    assert await ctx.recorded("model", ask) == "?"
    assert written.records == {RecordingKey("model", 0): "?"}


@pytest.mark.parametrize("value", [5, None, {"text": "yes"}], ids=["number", "nothing", "object"])
async def test_nor_is_a_value(ctx: JobContext, value: Any) -> None:
    with refused(f"was given {type(value)} in place of a function"):
        await ctx.recorded("model", value)
    with refused(f"was given {type(value)} in place of a function"):
        ctx.recorded_from_thread("model", value)


async def test_a_thread_awaits_nothing(ctx: JobContext, written: Written, in_thread: Callable[..., Any]) -> None:
    for fn in (ask, functools.partial(ask, "why?"), lambda: ask("why?"), Asker()):
        with refused("recorded_from_thread('model') was given a coroutine function, which a thread cannot await"):
            await in_thread(functools.partial(ctx.recorded_from_thread, "model", fn))
    assert await in_thread(lambda: ctx.recorded_from_thread("model", lambda: 1)) == 1
    assert written.records == {RecordingKey("model", 0): 1}, "a mistake is no answer: the mended code is replayed without it"


async def test_a_thread_that_outlives_its_loop_is_told_so() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    services = JobServices(recordings=lambda *_: Written(), loop=loop)
    ctx = JobContext(Job.model_validate(JOB), services=services)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="closed"):
            ctx.recorded_from_thread("model", lambda: 1)
        gc.collect()
    assert [str(each.message) for each in warned] == []
