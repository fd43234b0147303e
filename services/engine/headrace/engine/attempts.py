"""Runs attempts in the event loop, and makes a task only for one that waits for something.

A task costs as much as the rest of a job's bookkeeping. So one task runs the attempts that are due one after another, for as
long as they end without waiting; the first that waits keeps the task for itself, and a new task goes on with the rest. To the
code inside it looks as if each attempt had a task of its own: `asyncio.current_task()` stays the same from its first step to its
last, can be cancelled, and what it sets in a context variable is not seen by another.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from headrace.engine.guarding import Guard
from headrace.engine.partition import OwnedPartition, Work

_MOST_IN_A_TURN = 128


class Attempts:
    """The attempts of one worker that are due, and those that wait.

    Args:
        attempt: makes the coroutine of an attempt, which writes down what came of it. What it raises is a fault of ours.
        may_start: asked just before each start whether the partition's lease is held still (rule H2), since others may have taken
            their time after the start was acknowledged. If it is not, its attempts are withdrawn.
        guard: ends the engine by such a fault: the job would stay as it is for ever.
    """

    def __init__(
        self,
        attempt: Callable[[Work], Coroutine[Any, Any, None]],
        may_start: Callable[[OwnedPartition], bool],
        guard: Guard,
    ) -> None:
        self._attempt = attempt
        self._may_start = may_start
        self._guard = guard
        self._due: deque[Work] = deque()
        self._runner: asyncio.Task[None] | None = None

    def start(self, work: Work) -> None:
        """Runs an attempt soon, after those that were started before it."""
        work.task = None
        self._due.append(work)
        if self._runner is None:
            self._go_on()

    def withdraw(self, work: Work) -> bool:
        """Takes back an attempt of which nothing has run; tells whether it was so."""
        if work.task is not None or work not in self._due:
            return False
        self._due.remove(work)
        return True

    def _go_on(self) -> None:
        # Made directly: the loop's own `create_task` costs as much again, and adds a name that nobody reads.
        self._runner = asyncio.Task(self._run_due(), loop=asyncio.get_running_loop())

    async def _run_due(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            for _ in range(_MOST_IN_A_TURN):
                if not self._due:
                    break
                work = self._due[0]
                if not self._may_start(work.partition):
                    self.withdraw(work)
                    continue
                self._due.popleft()
                coroutine = self._attempt(work)
                run = contextvars.copy_context().run
                try:
                    awaited = run(coroutine.send, None)
                except StopIteration:
                    # A cancellation that an attempt left behind must not meet the next one.
                    if task.cancelling():
                        break
                else:
                    self._keep(work, task)
                    await _Rest(coroutine, awaited, run)
                    break
        except GeneratorExit:
            raise  # the event loop is closed
        except BaseException as error:
            self._guard.tell("an attempt", error)
        finally:
            if self._runner is task:
                self._runner = None
                if self._due:
                    self._go_on()

    def _keep(self, work: Work, task: asyncio.Task[None]) -> None:
        """The attempt waits: the task is its own from now on."""
        work.task = task
        self._runner = None
        if self._due:
            self._go_on()


class _Rest:
    """Awaits what is left of a coroutine that was begun in a context of its own, and stays in it.

    Args:
        awaited: what the coroutine waits for, as its first step gave it.
        run: runs a function in the context.
    """

    __slots__ = ("_awaited", "_coroutine", "_run")

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any, run: Callable[..., Any]) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._run = run

    def __await__(self) -> Generator[Any, Any, None]:
        coroutine, awaited, run = self._coroutine, self._awaited, self._run
        try:
            while True:
                try:
                    value = yield awaited
                except GeneratorExit:
                    run(coroutine.close)
                    raise
                except BaseException as error:
                    awaited = run(coroutine.throw, error)
                else:
                    awaited = run(coroutine.send, value)
        except StopIteration:
            return
