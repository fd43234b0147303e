"""A worker that does not know asyncio: a plain `def` runs in a thread, and holds nobody up."""

from __future__ import annotations

import threading
from typing import Any

from pydantic import BaseModel

from headrace import AbstractWorker, Client, JobContext, Settings, WorkerEngine, worker
from support.engines import ended

EVERYBODY_IS_HERE = threading.Barrier(3, timeout=20)


class MeetArgs(BaseModel):
    name: str


class Meet(AbstractWorker[MeetArgs]):
    """Blocks until three of its jobs run at the same time."""

    name = "meet"
    description = "Waits for two others."
    category = "guide"
    concurrency = 3  # so many of its jobs an engine runs side by side; HEADRACE_ENGINE_CONCURRENCY when left out

    def run(self, args: MeetArgs, ctx: JobContext) -> dict[str, Any]:
        EVERYBODY_IS_HERE.wait()
        return {"in_a_thread": threading.current_thread() is not threading.main_thread()}


async def test_plain_functions_block_a_thread_and_not_the_engine(settings: Settings) -> None:
    engine = WorkerEngine(settings)
    engine.register_worker(Meet)
    async with engine, Client(settings) as client:
        jobs = await client.enqueue_many("meet", [{"name": name} for name in ("Ada", "Grace", "Alan")])
        for job in jobs:
            assert (await ended(client, job)).result == {"in_a_thread": True}


async def test_jobs_with_one_ordering_key_take_turns(settings: Settings) -> None:
    seen: list[tuple[str, int]] = []

    # Jobs that agree in `account` run one after another, in the order in which they were accepted.
    @worker(name="book", category="guide", order_by=("account",))
    def book(args: dict[str, Any], ctx: JobContext) -> None:
        seen.append((args["account"], args["number"]))

    engine = WorkerEngine(settings)
    engine.register_worker(book)
    async with engine, Client(settings) as client:
        bookings = [{"account": account, "number": number} for number in range(20) for account in ("ada", "grace")]
        for job in await client.enqueue_many("book", bookings):
            await ended(client, job)

    for account in ("ada", "grace"):
        assert [number for name, number in seen if name == account] == list(range(20))
