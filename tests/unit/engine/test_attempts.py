"""Attempts share a task while none of them waits; to the code inside it looks as if each had one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from headrace.core.recovery import PartitionRecovery
from headrace.engine.attempts import Attempts
from headrace.engine.guarding import UNGUARDED
from headrace.engine.partition import OwnedPartition, Work
from headrace.ports import TopicPartition

SEEN: ContextVar[str] = ContextVar("SEEN", default="nothing")
PARTITION = OwnedPartition(TopicPartition("jobs", 0), 0, PartitionRecovery("w", 0, 0))


class Bench:
    """Attempts of jobs that do what the test says, by the offset of the job."""

    def __init__(self) -> None:
        self.told: dict[int, Any] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.over: asyncio.Queue[int] = asyncio.Queue()
        self.attempts = Attempts(self._run, lambda _: True, UNGUARDED)
        self._doings: dict[int, Coroutine[Any, Any, Any]] = {}

    def start(self, *doings: Coroutine[Any, Any, Any]) -> list[Work]:
        works = [Work(PARTITION, len(self._doings) + number, None, PARTITION.unbegun) for number in range(len(doings))]
        for work, doing in zip(works, doings, strict=True):
            self._doings[work.offset] = doing
            self.attempts.start(work)
        return works

    async def ended(self, count: int) -> list[int]:
        async with asyncio.timeout(10):
            return [await self.over.get() for _ in range(count)]

    async def _run(self, work: Work) -> None:
        try:
            self.told[work.offset] = await self._doings[work.offset]
        except BaseException as error:
            self.told[work.offset] = error
        self.over.put_nowait(work.offset)


async def set_variable(value: str, gate: asyncio.Event | None = None) -> tuple[str, str]:
    before = SEEN.get()
    SEEN.set(value)
    if gate is not None:
        await gate.wait()
    return before, SEEN.get()


async def test_what_an_attempt_sets_in_a_context_variable_no_other_sees() -> None:
    bench, gate = Bench(), asyncio.Event()
    bench.start(set_variable("a"), set_variable("b", gate), set_variable("c"))
    assert await bench.ended(2) == [0, 2]
    gate.set()
    assert await bench.ended(1) == [1]
    assert bench.told == {0: ("nothing", "a"), 1: ("nothing", "b"), 2: ("nothing", "c")}


async def test_an_attempt_has_one_task_from_its_first_step_to_its_last_and_those_that_wait_have_others() -> None:
    bench, gate = Bench(), asyncio.Event()

    async def tasks() -> tuple[Any, Any]:
        first = asyncio.current_task()
        await gate.wait()
        return first, asyncio.current_task()

    works = bench.start(tasks(), tasks(), set_variable("x"))
    assert await bench.ended(1) == [2], "what does not wait is not held up by what does"
    held = [work.task for work in works[:2]]
    assert works[2].task is None and held[0] is not held[1]
    gate.set()
    await bench.ended(2)
    assert [bench.told[0], bench.told[1]] == [(task, task) for task in held]


async def test_a_timeout_and_a_cancellation_meet_the_attempt_that_waits() -> None:
    bench, never = Bench(), asyncio.Event()

    async def in_time() -> str:
        try:
            async with asyncio.timeout(0.01):
                await never.wait()
        except TimeoutError:
            return "late"
        return "never"

    bench.start(in_time())
    await bench.ended(1)
    assert bench.told[0] == "late"
    [work, _] = bench.start(never.wait(), set_variable("x"))
    await bench.ended(1)
    assert work.task is not None
    work.task.cancel()
    await bench.ended(1)
    assert isinstance(bench.told[1], asyncio.CancelledError)


async def test_a_cancellation_that_an_attempt_leaves_behind_does_not_meet_the_next() -> None:
    bench, gate = Bench(), asyncio.Event()

    async def cancel_itself() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    gate.set()
    bench.start(cancel_itself(), set_variable("next", gate), asyncio.sleep(0, "after"))
    await bench.ended(3)
    assert bench.told == {0: "done", 1: ("nothing", "next"), 2: "after"}


async def test_an_attempt_of_which_nothing_has_run_can_be_taken_back_and_no_other() -> None:
    bench, gate = Bench(), asyncio.Event()
    waiting, due = bench.start(gate.wait(), unused := set_variable("x"))
    assert bench.attempts.withdraw(due)
    bench.start(set_variable("y"))
    assert await bench.ended(1) == [2]
    assert not bench.attempts.withdraw(waiting) and not bench.attempts.withdraw(due)
    gate.set()
    assert await bench.ended(1) == [0]
    unused.close()
