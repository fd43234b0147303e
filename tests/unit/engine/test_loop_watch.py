"""An event loop that is blocked, as a thread sees it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from headrace import JobContext, worker
from headrace.engine import loop_watch
from headrace.engine.loop_watch import LoopWatch


class _Heard(logging.Handler):
    """Sets an event at the first message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.heard.set()


@pytest.fixture
def heard() -> Iterator[_Heard]:
    handler = _Heard()
    logger = logging.getLogger("headrace.engine.loop_watch")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def _turns(watch: LoopWatch, count: int) -> None:
    for _ in range(1_000):
        if watch.blocks >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"blocked {watch.blocks} times")


async def test_a_blocked_loop_is_told_while_it_is_blocked_with_its_stack(heard: _Heard) -> None:
    watch = LoopWatch(limit=0.3)
    watch.start()
    try:
        await asyncio.sleep(0)
        assert heard.heard.wait(10), "told from the thread: this waits in the loop, and blocks it"
        assert watch.silence > 0.3
        await _turns(watch, 1)
    finally:
        watch.stop()
    first, *_ = heard.messages
    assert "by no job" in first
    assert "test_a_blocked_loop_is_told_while_it_is_blocked_with_its_stack" in first
    assert watch.longest >= 0.3
    assert sum("has been blocked" in message for message in heard.messages) == 1, "once for each time"


async def test_the_stack_of_a_job_begins_in_the_workers_own_code(heard: _Heard) -> None:
    def wait() -> None:
        assert heard.heard.wait(10)

    @worker(name="blocking")
    async def blocks(args: dict[str, Any], ctx: Any) -> None:
        wait()

    watch = LoopWatch(limit=0.3)
    watch.start()
    try:
        # A task of headrace's own, as in an engine.
        await asyncio.create_task(blocks.run({}, cast(JobContext, None)))
    finally:
        watch.stop()
    first, _, stack = heard.messages[0].partition("It stands at:\n")
    assert "has been blocked for" in first
    places = [line for line in stack.splitlines() if line.startswith("  File ")]
    assert [place.rpartition(" in ")[2] for place in places[:2]] == ["blocks", "wait"]
    assert all(Path(__file__).name in place for place in places[:2])


async def test_who_holds_the_interpreter_is_told_of_afterwards(heard: _Heard) -> None:
    watch = LoopWatch(limit=0.3)
    watch.start()
    try:
        await asyncio.sleep(0)
        ctypes.PyDLL(None).usleep(900_000)
        await _turns(watch, 1)
    finally:
        watch.stop()
    assert "this process could not see by what" in heard.messages[-1]


async def test_a_loop_that_runs_is_left_in_peace(heard: _Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """Takes the place of `time`: it goes on where the loop does, so that no pause of this process is one of the loop."""

        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(loop_watch, "time", Clock)
    watch = LoopWatch(limit=0.4)
    watch.start()
    try:
        # For longer than the limit: who took no notice of the beats would have warned by then.
        while Clock.now < 1.2:
            await asyncio.sleep(0.01)
            Clock.now += 0.01
    finally:
        watch.stop()
    assert (watch.blocks, heard.messages) == (0, [])
