"""The workers of a chaos run: each attempt ticks every 50 ms, for as long as its arguments say, into the ledger.

Engines load this module by its import path; the ledger's is in the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from chaos.ledger import Ledger, Poisoned, Tick, TickKind, now
from headrace import AbstractWorker
from headrace.job_context import JobContext
from headrace.models import Job

LEDGER_VARIABLE = "CHAOS_LEDGER"
TICK_SECONDS = 0.05


class Work(BaseModel):
    """Arguments of every worker here.

    Attributes:
        seconds: how long an attempt ticks.
        key: jobs of `keyed` with the same one run one after another.
        number: makes each job's arguments its own.
    """

    seconds: float
    number: int
    key: str = ""


@cache
def _ledger() -> Ledger:
    return Ledger(Path(os.environ[LEDGER_VARIABLE]))


def _note(kind: TickKind, ctx: JobContext) -> None:
    epoch, number = ctx.fencing_token
    _ledger().note(Tick(now(), kind, ctx.job.id, ctx.attempt, (epoch, number), os.getpid()))


class _Ticking(AbstractWorker[Work]):
    """Ticks in the event loop."""

    category = "chaos"

    async def run(self, args: Work, ctx: JobContext) -> int:
        _note("begin", ctx)
        ends = time.monotonic() + args.seconds
        while time.monotonic() < ends:
            await asyncio.sleep(TICK_SECONDS)
            _note("tick", ctx)
        _note("end", ctx)
        return args.number


class Short(_Ticking):
    """Jobs of a part of a second."""

    name = "short"


class Long(_Ticking):
    """Jobs of more than 40 seconds: longer than a lease, and than what a frozen engine may sleep unnoticed."""

    name = "long"


class Keyed(_Ticking):
    """Jobs that must keep their order among those of the same key."""

    name = "keyed"
    order_by = ("key",)


class Plain(AbstractWorker[Work]):
    """A plain function, which ticks in a thread."""

    name = "plain"
    category = "chaos"

    def run(self, args: Work, ctx: JobContext) -> int:
        _note("begin", ctx)
        ends = time.monotonic() + args.seconds
        while time.monotonic() < ends:
            time.sleep(TICK_SECONDS)
            _note("tick", ctx)
        _note("end", ctx)
        return args.number


class Poison(AbstractWorker[Work]):
    """Jobs that kill the process they run in, at every attempt."""

    name = "poison"
    category = "chaos"

    async def run(self, args: Work, ctx: JobContext) -> None:
        _note("begin", ctx)
        await asyncio.sleep(args.seconds)
        _ledger().note(Poisoned(now(), ctx.job.id, os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)


WORKERS: tuple[type[AbstractWorker[Work]], ...] = (Short, Long, Keyed, Plain, Poison)


def poison_jobs_end() -> bool:
    """Whether a job that kills its process again and again is taken out of the way by the engines of this version."""
    return "crashes" in Job.model_fields
