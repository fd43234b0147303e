"""What happens when something goes wrong: in the worker, or already before it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, model_validator

from headrace import (
    AbstractWorker,
    ArgumentsInvalid,
    Client,
    JobContext,
    Retry,
    RetryPolicy,
    Settings,
    WorkerEngine,
    WorkerUnknown,
)
from support.engines import ended


class DivideArgs(BaseModel):
    dividend: int
    divisor: int

    @model_validator(mode="after")
    def _gives_at_least_one(self) -> DivideArgs:
        if self.dividend < self.divisor:
            raise ValueError("the dividend is less than the divisor")
        return self


class FetchArgs(BaseModel):
    page: str


class Divide(AbstractWorker[DivideArgs]):
    name = "divide"
    description = "Divides whole numbers."
    category = "guide"

    async def run(self, args: DivideArgs, ctx: JobContext) -> int:
        return args.dividend // args.divisor


async def test_an_exception_makes_the_job_fail(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Divide)
    async with engine, Client(settings) as client:
        job = await ended(client, await client.enqueue("divide", {"dividend": 1, "divisor": 0}))

        # The job keeps why; the engine goes on.
        assert job.status == "failed"
        assert job.error is not None
        assert (job.error.type, job.error.message) == ("ZeroDivisionError", "integer division or modulo by zero")
        assert "args.dividend // args.divisor" in (job.error.traceback or "")

        after = await ended(client, await client.enqueue("divide", {"dividend": 6, "divisor": 3}))
        assert after.result == 2


class Fetch(AbstractWorker[FetchArgs]):
    """Asks somebody who does not always answer."""

    name = "fetch"
    description = "Fetches a page."
    category = "guide"
    # At most 3 attempts, half a second apart and then a whole one; a page that does not exist will not be there later.
    retry = RetryPolicy(max_attempts=3, initial=0.5, give_up_on=(LookupError,))
    # Seconds that each attempt may take.
    timeout = 20

    async def run(self, args: FetchArgs, ctx: JobContext) -> str:
        if args.page == "missing":
            raise LookupError("no such page")
        ctx.progress(0.5, "connected")
        if ctx.attempt == 1:
            raise ConnectionError("no answer")
        if ctx.attempt == 2:
            raise Retry("too many requests", after=0.1)  # they said when to come back
        return f"the page {args.page}"


async def test_a_job_that_failed_can_be_tried_again(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Fetch)
    async with engine, Client(settings) as client:
        job = await ended(client, await client.enqueue("fetch", {"page": "home"}))
        assert (job.status, job.result, job.failures) == ("completed", "the page home", 2)
        assert [attempt.status for attempt in job.attempts] == ["failed", "failed", "completed"]

        gone = await ended(client, await client.enqueue("fetch", {"page": "missing"}))
        assert (gone.status, gone.failures) == ("failed", 1)

        # A job can have a policy of its own.
        once = await ended(client, await client.enqueue("fetch", {"page": "home"}, retry=RetryPolicy(max_attempts=1)))
        assert (once.status, once.error and once.error.message) == ("failed", "no answer")
        assert once.progress is not None and (once.progress.fraction, once.progress.text) == (0.5, "connected")


async def test_arguments_that_do_not_fit_never_reach_the_worker(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Divide)
    async with engine, Client(settings) as client:
        # Who has the worker's class is told at once, and nothing is written.
        with pytest.raises(ArgumentsInvalid, match="divisor: Field required"):
            await client.enqueue(Divide, {"dividend": 1})
        # So is who has only its name: the engine has published the JSON Schema of the arguments.
        with pytest.raises(ArgumentsInvalid, match=r"args.dividend: 'one' is not of type 'integer'"):
            await client.enqueue("divide", {"dividend": "one", "divisor": 1})
        assert (await client.list_jobs()).jobs == []

        # What a schema cannot say, the engine finds. Such a job fails, and its record goes to dead-letters.
        job = await ended(client, await client.enqueue("divide", {"dividend": 1, "divisor": 2}))
        assert job.status == "failed"
        assert job.error is not None
        assert job.error.type == "arguments_invalid"
        assert "dividend" in job.error.message
        assert job.attempt == 0


async def test_a_job_for_nobody_is_refused(settings: Settings) -> None:
    async with Client(settings) as client:
        with pytest.raises(WorkerUnknown, match="No worker named 'divide' is defined"):
            await client.enqueue("divide", {"dividend": 6, "divisor": 3})
