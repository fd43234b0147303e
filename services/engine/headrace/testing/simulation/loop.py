"""An event loop for many processes at once: each may be frozen, may die, and has a clock of its own.

Whatever runs in it belongs to the process in whose context it was begun, or to none: the cluster, and what is done to it.
Callbacks of one process keep their order, as asyncio has it; which process goes first is drawn anew in every turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any, cast

from headrace.testing.virtual_time import VirtualTimeLoop

_A_LITTLE = 1e-6

_present: ContextVar[Confined | None] = ContextVar("headrace_simulated_process", default=None)


class Confined:
    """What happens in one process, as far as the loop is concerned.

    Attributes:
        runs: whether its callbacks are called; otherwise they pile up.
        suspended_seconds: how far its event loop's clock, which stands still while the machine sleeps, is behind.
        piled_up: what became due while it did not run.
        context: in which everything of it is begun.
    """

    def __init__(self) -> None:
        self.runs = True
        self.suspended_seconds = 0.0
        self.piled_up: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(_present.set, self)


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(_present)  # type: ignore[attr-defined]
        if process is None or process.runs:
            super()._run()
        else:
            process.piled_up.append(self)


class _Timer(asyncio.TimerHandle):
    __slots__ = ("_asleep_before", "_process")

    def __init__(self, when: float, callback: Callable[..., object], args: Any, loop: Any, context: Any) -> None:
        super().__init__(when, callback, args, loop, context)
        self._process: Confined | None = self._context.get(_present)  # type: ignore[attr-defined]
        self._asleep_before = 0.0 if self._process is None else self._process.suspended_seconds

    def cancel(self) -> None:
        # Nobody counts them: they leave the queue when their time comes.
        asyncio.Handle.cancel(self)

    def _run(self) -> None:
        process = self._process
        if process is None:
            super()._run()
        elif not process.runs:
            process.piled_up.append(self)
        elif process.suspended_seconds > self._asleep_before:
            self._when += process.suspended_seconds - self._asleep_before  # type: ignore[attr-defined]
            self._asleep_before = process.suspended_seconds
            cast("SimulationLoop", self._loop).set_timer(self)  # type: ignore[attr-defined]
        else:
            super()._run()


class SimulationLoop(VirtualTimeLoop):
    """Runs the processes of a simulation, in virtual time.

    Args:
        random: draws which process goes first.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._when_idle: dict[Confined, Callable[[], None]] = {}
        # By their time, and of one time in the order in which they were set.
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timers_set = 0

    @property
    def now(self) -> float:
        """The time of the whole simulation, whoever asks."""
        return self._virtual.now

    def time(self) -> float:
        """The time by the clock of the process that asks, which does not count how long its machine slept."""
        process = _present.get()
        return self._virtual.now if process is None else self._virtual.now - process.suspended_seconds

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As with any loop; `when` is by the clock of the process that asks."""
        asking = _present.get()
        timer = _Timer(when + (0.0 if asking is None else asking.suspended_seconds), callback, args, self, context)
        self.set_timer(timer)
        return timer

    def set_timer(self, timer: _Timer) -> None:
        """Has a timer called at its time."""
        self._timers_set += 1
        heapq.heappush(self._timers, (timer.when(), self._timers_set, timer))

    def _call_soon(self, callback: Callable[..., object], args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def when_idle(self, process: Confined, action: Callable[[], None]) -> None:
        """Calls `action` as soon as the process waits for something: no time passes before."""
        self._when_idle[process] = action

    def go_on(self, process: Confined, order: str) -> None:
        """Calls what has piled up.

        Args:
            order: `as-it-came`, `timers-first` or `messages-first`: a loop that was frozen finds them all at once.
        """
        process.runs = True
        waiting, process.piled_up = process.piled_up, []
        if order != "as-it-came":
            timers_first = order == "timers-first"
            waiting.sort(key=lambda handle: isinstance(handle, _Timer) is not timers_first)
        self._ready.extend(waiting)

    def _run_once(self) -> None:
        """One turn. It is asyncio's own, without what takes time there: sockets, and clocks that somebody else moves."""
        if self._when_idle:
            self._stop_those_that_idle()
        ready = self._ready
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            self._go_to_the_next_timer()
        if len(ready) > 1:
            self._draw_order()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _go_to_the_next_timer(self) -> None:
        """Time passes only when nothing is left to do."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise RuntimeError("nothing is under way: what is waited for will never happen")
        # A timer that was set for now comes later all the same: who waits by another clock may find that it is not time yet,
        # for a rounding, and wait for what is left.
        due = max(timers[0][0], self._virtual.now + _A_LITTLE)
        self._virtual.now = due
        while timers and timers[0][0] <= due:
            self._ready.append(heapq.heappop(timers)[2])

    def _stop_those_that_idle(self) -> None:
        busy = {handle._context.get(_present) for handle in self._ready}  # type: ignore[attr-defined]
        for process in [process for process in self._when_idle if process not in busy]:
            self._when_idle.pop(process)()

    def _draw_order(self) -> None:
        lanes: dict[Confined | None, list[asyncio.Handle]] = {}
        for handle in self._ready:
            lanes.setdefault(handle._context.get(_present), []).append(handle)  # type: ignore[attr-defined]
        if len(lanes) > 1:
            drawn = list(lanes.values())
            self._random.shuffle(drawn)
            self._ready.clear()
            for lane in drawn:
                self._ready.extend(lane)
