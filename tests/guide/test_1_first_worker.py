"""A worker, an engine that runs it, and a job.

Read these files in the order of their numbers: together they are a tour of headrace. `settings` names the broker that all tests
share, and a namespace of the test's own; a program leaves it out, and is configured by its environment.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from headrace import AbstractWorker, Client, Job, JobContext, JobStatus, Settings, WorkerEngine, worker
from support.engines import ended


class GreetArgs(BaseModel):
    name: str
    times: int = 1


class Greet(AbstractWorker[GreetArgs]):
    """A worker is a name, a model of its arguments, and `run`."""

    name = "greet"
    description = "Greets somebody."
    category = "guide"

    async def run(self, args: GreetArgs, ctx: JobContext) -> dict[str, Any]:
        # `args` has been checked. `ctx` knows the job, and who asked for it.
        return {"greeting": f"Hello, {args.name}! " * args.times, "for": ctx.job.ctx.user_id, "attempt": ctx.attempt}


@worker(category="guide")
async def shout(args: GreetArgs, ctx: JobContext) -> str:
    """Greets somebody loudly."""
    return args.name.upper()


async def test_an_engine_runs_a_job(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Greet)
    async with engine, Client(settings) as client:
        # `enqueue` returns when the job's record is in the log: from here on it cannot be lost.
        job = await client.enqueue("greet", {"name": "Ada", "times": 2}, {"userId": "ada"})
        assert job.status == "queued"

        job = await ended(client, job)
        assert job.status == "completed"
        assert job.result == {"greeting": "Hello, Ada! Hello, Ada! ", "for": "ada", "attempt": 1}
        assert [attempt.status for attempt in job.attempts] == ["completed"]


async def test_a_decorated_function_is_a_worker_too(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(shout)
    async with engine, Client(settings) as client:
        # In place of its name, the worker itself can be given, and in place of a JSON object, the model.
        job = await ended(client, await client.enqueue(shout, GreetArgs(name="Ada")))
        assert job.result == "ADA"


async def test_workers_and_jobs_can_be_listed(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Greet)
    engine.register_worker(shout)
    async with engine:
        # An engine can enqueue as well, for its own workers and for those of others.
        first = await engine.enqueue("greet", {"name": "Ada"}, {"userId": "ada"})
        second = await engine.enqueue("shout", {"name": "Grace"}, {"userId": "grace"})

        summaries = {summary.name: summary for summary in await engine.list_workers()}
        assert summaries["shout"].description == "Greets somebody loudly."
        assert summaries["greet"].arguments_schema["required"] == ["name"]

        # Newest first; and a page can be narrowed down.
        assert [job.id for job in (await engine.list_jobs()).jobs] == [second.id, first.id]
        assert [job.id for job in (await engine.list_jobs(user_id="ada")).jobs] == [first.id]


async def test_a_worker_can_be_tried_without_an_engine() -> None:
    now = datetime.now(UTC)
    job = Job(id="job-1", worker_name="greet", status=JobStatus.QUEUED, created_at=now, updated_at=now, args={"name": "Ada"})
    # `run` is the worker's own affair; `process_job` is the way in, for an engine and for a test.
    result = await Greet().process_job(job, JobContext(job, attempt=3))
    assert result == {"greeting": "Hello, Ada! ", "for": None, "attempt": 3}
