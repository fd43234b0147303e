"""Traffic of three workers, with retries, failures and cancellations: what replays are tried on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from headrace import AbstractWorker, Client, GiveUp, Job, JobContext, RetryPolicy, Settings
from support.engines import engine_with, eventually, with_engine

_AT_ONCE = 1_000
_PATIENCE_SECONDS = 600.0


class TallyArgs(BaseModel):
    number: int
    prices: list[int]


class NumberArgs(BaseModel):
    number: int


class Tally(AbstractWorker[TallyArgs]):
    """Runs in the event loop; every 50th fails."""

    name = "tally"
    description = "Adds up prices."
    order_by = ("number",)

    async def run(self, args: TallyArgs, ctx: JobContext) -> dict[str, Any]:
        if args.number % 50 == 0:
            raise ValueError(f"order {args.number} is empty")
        return {"total": sum(args.prices), "at": ctx.now().isoformat(), "attempt": ctx.attempt}


class Fetch(AbstractWorker[NumberArgs]):
    """Every 5th fails at first and is tried again, every 30th does so until its attempts are over, and every 70th gives up."""

    name = "fetch"
    description = "Fetches what does not always come."
    retry = RetryPolicy(max_attempts=3, initial=0.05, factor=1.0)

    async def run(self, args: NumberArgs, ctx: JobContext) -> dict[str, Any]:
        ctx.progress(0.5, "connected")
        if args.number % 70 == 0:
            raise GiveUp(f"page {args.number} was deleted")
        if args.number % 30 == 0 or (args.number % 5 == 0 and ctx.attempt == 1):
            raise ConnectionError(f"no answer for {args.number}")
        answer = await ctx.recorded("page", lambda: {"page": args.number, "at": time.time_ns()}) if args.number % 9 == 0 else None
        return {"number": args.number, "answer": answer}


class Render(AbstractWorker[NumberArgs]):
    """A plain function; every 40th fails."""

    name = "render"
    description = "Renders a page."

    def run(self, args: NumberArgs, ctx: JobContext) -> str:
        if args.number % 40 == 0:
            raise KeyError(args.number)
        return f"<p>{args.number} of {ctx.job.ctx.user_id}</p>"


WORKERS: tuple[type[AbstractWorker[Any]], ...] = (Tally, Fetch, Render)


@dataclass(frozen=True)
class Traffic:
    """What was recorded.

    Attributes:
        jobs: as they were accepted, by worker.
        cancelled: the ids of those that were cancelled before they began.
    """

    jobs: dict[str, list[Job]]
    cancelled: frozenset[str]

    @property
    def count(self) -> int:
        return sum(map(len, self.jobs.values()))

    def ids(self, worker: str, *, every: int) -> set[str]:
        """The jobs of a worker whose number can be divided so, without those that were cancelled."""
        return {job.id for number, job in enumerate(self.jobs[worker]) if number % every == 0} - self.cancelled


def _args(worker: str, number: int) -> dict[str, Any]:
    return {"number": number, "prices": [number, 2 * number, 7]} if worker == "tally" else {"number": number}


async def record_traffic(settings: Settings, count: int, *, cancelled: int) -> Traffic:
    """Has an engine do so many jobs, of which some were cancelled before it came. No engine runs any more when it returns."""
    jobs: dict[str, list[Job]] = {worker.name: [] for worker in WORKERS}
    own = with_engine(settings, janitor=False)
    async with engine_with(own, *WORKERS):
        pass  # it has said which workers there are
    async with Client(settings) as client:
        for worker in WORKERS:
            of_worker = range(count // len(WORKERS) + (worker is Tally) * (count % len(WORKERS)))
            for first in range(0, len(of_worker), _AT_ONCE):
                args = [_args(worker.name, number) for number in of_worker[first : first + _AT_ONCE]]
                jobs[worker.name] += await client.enqueue_many(worker, args, {"userId": "ada"}, timeout=60)
        victims = _some(jobs, cancelled)
        for job in victims:
            await client.cancel_job(job.id)
    async with engine_with(own, *WORKERS) as engine:

        async def all_ended() -> bool:
            return sum(each.ended for each in engine.statistics.values()) >= count

        async with asyncio.timeout(_PATIENCE_SECONDS):
            await eventually(all_ended, within=_PATIENCE_SECONDS)
    return Traffic(jobs, frozenset(job.id for job in victims))


def _some(jobs: dict[str, list[Job]], count: int) -> Sequence[Job]:
    """So many jobs, of all workers alike; of those that fail not all."""
    every = [job for of_worker in jobs.values() for job in of_worker]
    return every[3 :: len(every) // count][:count] if count else []
