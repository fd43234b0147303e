"""When recorded jobs run again: in which order, how many at a time, and how fast beside the time in which they came."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from headrace.core.lanes import Lanes
from headrace.models import DEFAULT_TENANT
from headrace.replay.history import RecordedJob

_MOST_WAITING: Final = 10_000
_UNBROKEN: Final = 50
"""So many jobs may follow each other in a task before others get their turn: jobs that never wait would hold up all else."""


class Order(StrEnum):
    """`key`: as engines do, jobs with the same ordering key one after another, all others side by side. `log`: jobs of all
    partitions start in the order in which they were accepted, and those with the same key wait for each other, too.
    """

    KEY = "key"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """How recorded jobs follow each other.

    Attributes:
        concurrency: how many run at a time; of a worker with a `concurrency` of its own no more than that.
        speed: how many times as fast as they were accepted; None for as fast as they can be run.
    """

    concurrency: int = 100
    order: Order = Order.KEY
    speed: float | None = None

    @property
    def by_time(self) -> bool:
        """Whether all jobs have to be known before the first starts, as those of one partition come before those of another."""
        return self.order is Order.LOG or self.speed is not None


Batches = AsyncGenerator[Sequence[RecordedJob]]


@dataclass(frozen=True, slots=True)
class _Turn:
    job: RecordedJob
    lane: Hashable | None

    @property
    def worker(self) -> str:
        return str(self.job.record["workerName"])


class _Waiting(Protocol):
    def add(self, job: _Turn) -> Any: ...
    def take(self) -> _Turn | None: ...
    def end(self, turn: _Turn) -> None: ...


class _Shares:
    """How many more jobs of a worker may run, where its code says how many run at a time."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._left = dict(limits)

    def has_one(self, worker: str) -> bool:
        return self._left.get(worker, 1) > 0

    def change(self, worker: str, by: int) -> None:
        if worker in self._left:
            self._left[worker] += by


class _ByKey(Lanes[_Turn]):
    """A job whose worker has no share left keeps its lane, takes no slot, and holds up no other worker's."""

    def __init__(self, slots: int, limits: Mapping[str, int]) -> None:
        super().__init__(slots)
        self._shares = _Shares(limits)
        self._held: defaultdict[str, deque[_Turn]] = defaultdict(deque)

    def take(self) -> _Turn | None:
        while (turn := super().take()) is not None:
            if self._shares.has_one(turn.worker):
                self._shares.change(turn.worker, -1)
                return turn
            self.free_slot()
            self._held[turn.worker].append(turn)
        return None

    def end(self, turn: _Turn) -> None:
        self.free_slot()
        self.leave_lane(turn)
        self._shares.change(turn.worker, 1)
        if held := self._held[turn.worker]:
            self.put_back(held.popleft())


class _InOrder:
    """Jobs that start in the order of their arrival: one whose lane is taken, or whose worker has no share left, holds up those
    behind it.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._queue: deque[_Turn] = deque()
        self._taken: set[Hashable] = set()
        self._shares = _Shares(limits)

    def add(self, job: _Turn) -> None:
        self._queue.append(job)

    def take(self) -> _Turn | None:
        if not self._queue or self._queue[0].lane in self._taken or not self._shares.has_one(self._queue[0].worker):
            return None
        turn = self._queue.popleft()
        self._shares.change(turn.worker, -1)
        if turn.lane is not None:
            self._taken.add(turn.lane)
        return turn

    def end(self, turn: _Turn) -> None:
        self._taken.discard(turn.lane)
        self._shares.change(turn.worker, 1)


def lane_of(job: RecordedJob) -> Hashable | None:
    """What the jobs have in common that are to run one after another; None for a job that waits for no other."""
    key = job.record.get("orderingKey")
    return None if key is None else (job.source, job.record.get("tenant", DEFAULT_TENANT), key)


async def run_paced(
    batches: Batches, run: Callable[[RecordedJob], Awaitable[object]], pacing: Pacing, limits: Mapping[str, int] | None = None
) -> None:
    """Runs every job of the batches once, as the pacing says, and returns when the last has ended.

    What `run` raises, or the batches, ends all of it.

    Args:
        limits: how many jobs of a worker run at a time at most, by its name.
    """
    await _Paced(run, pacing, limits or {}).run(ordered(batches, pacing))


async def ordered(batches: Batches, pacing: Pacing) -> Batches:
    """The same jobs, in the order and at the times at which they are to start."""
    async with aclosing(batches):
        if not pacing.by_time:
            async for batch in batches:
                yield batch
            return
        every = [job async for batch in batches for job in batch]
    every.sort(key=lambda job: (job.accepted_at, job.source, job.offset))
    if pacing.speed is None:
        yield every
        return
    loop = asyncio.get_running_loop()
    began = loop.time()
    for job in every:
        due = began + (job.accepted_at - every[0].accepted_at) / 1000 / pacing.speed
        if (seconds := due - loop.time()) > 0:
            await asyncio.sleep(seconds)
        yield (job,)


class _Paced:
    """Tasks, as many as jobs may run at a time, that take what may start; most jobs cost no task of their own."""

    def __init__(self, run: Callable[[RecordedJob], Awaitable[object]], pacing: Pacing, limits: Mapping[str, int]) -> None:
        self._run = run
        self._tasks = pacing.concurrency
        self._limits = limits
        self._waiting: _Waiting = _InOrder(limits) if pacing.order is Order.LOG else _ByKey(pacing.concurrency, limits)
        self._open = 0
        self._fed = False
        self._idle: deque[asyncio.Future[None]] = deque()
        self._room = asyncio.Event()

    async def run(self, batches: Batches) -> None:
        tasks = [asyncio.create_task(self._feed(batches)), *(asyncio.create_task(self._work()) for _ in range(self._tasks))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, batches: Batches) -> None:
        async with aclosing(batches):
            async for batch in batches:
                for job in batch:
                    self._waiting.add(_Turn(job, lane_of(job)))
                self._open += len(batch)
                self._wake(len(batch))
                while self._open > _MOST_WAITING:
                    self._room.clear()
                    await self._room.wait()
        self._fed = True
        self._wake(len(self._idle))

    async def _work(self) -> None:
        unbroken, woken = 0, False
        while not (self._fed and not self._open):
            turn = self._waiting.take()
            if turn is None:
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
                woken = True
                continue
            if woken:  # where one may start, another may
                self._wake(1)
            await self._run(turn.job)
            self._ended(turn)
            woken = turn.lane is not None or turn.worker in self._limits
            unbroken += 1
            if unbroken % _UNBROKEN == 0:
                await asyncio.sleep(0)

    def _ended(self, turn: _Turn) -> None:
        self._open -= 1
        self._waiting.end(turn)
        if self._open <= _MOST_WAITING // 2:
            self._room.set()
        if self._fed and not self._open:
            self._wake(len(self._idle))

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
