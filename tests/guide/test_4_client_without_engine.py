"""A program that only enqueues: it needs no engine, and no engine need be there."""

from __future__ import annotations

from headrace import Client, JobContext, Settings, WorkerEngine, worker
from support.engines import ended


@worker(name="water_plants", category="guide")
async def water_plants(args: dict[str, int], ctx: JobContext) -> str:
    """Waters the plants."""
    return f"{args['litres']} l"


async def test_jobs_wait_for_their_engine(settings: Settings) -> None:
    # Yesterday an engine ran, and said which workers it has. What it said outlives it.
    engine = WorkerEngine(settings)
    engine.register_worker(water_plants)
    async with engine:
        pass

    async with Client(settings) as client:
        (summary,) = await client.list_workers()
        assert (summary.name, summary.live_instances) == ("water_plants", 0)

        # So a job for the worker is accepted, and waits in the log.
        job = await client.enqueue("water_plants", {"litres": 2}, {"userId": "ada", "source": "guide"})
        (waiting,) = (await client.list_jobs(status="queued")).jobs
        assert waiting.id == job.id

    # Today another engine comes, and does it. By now the client that asked may be gone.
    engine = WorkerEngine(settings)
    engine.register_worker(water_plants)
    async with engine, Client(settings) as later:
        done = await ended(later, job)
        assert (done.status, done.result, done.ctx.source) == ("completed", "2 l", "guide")
