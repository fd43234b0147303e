"""When recorded jobs start in a replay, beside when they came: the real broker's order and times."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from headrace import AbstractWorker, Client, JobContext, Settings
from headrace.replay import Pacing, Span, StreamRequest, Wanted, open_history, replay_stream
from headrace.replay.history import RecordedJob
from headrace.replay.streams.pacing import Order
from support.engines import ended, engine_with, with_engine

EVER = Span(0, 2**42)
SEATS = 4
REPLAYED_SECONDS = 2.0
"""Longer than a replay of so few jobs takes without a speed."""


class Seated(AbstractWorker[dict[str, Any]]):
    """Notes when its replayed jobs start, and how many of one seat run at a time."""

    name = "seated"
    description = "Takes a seat, which only one can have."
    order_by = ("seat",)

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[tuple[str, float]] = []
        self.on_seats: Counter[int] = Counter()
        self.most_on_a_seat = 0

    async def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        self.starts.append((ctx.job.id, asyncio.get_running_loop().time()))
        self.on_seats[args["seat"]] += 1
        self.most_on_a_seat = max(self.most_on_a_seat, *self.on_seats.values())
        for _ in range(5):
            await asyncio.sleep(0)
        self.on_seats[args["seat"]] -= 1
        return int(args["number"])


@dataclass(frozen=True)
class Recorded:
    """What stands in the log, in the order in which it was accepted."""

    settings: Settings
    jobs: list[RecordedJob]

    async def replay(self, pacing: Pacing) -> Seated:
        worker = Seated()
        summary = await replay_stream(StreamRequest(code=[worker], span=EVER, pacing=pacing), self.settings)
        assert summary.counts["same"] == len(self.jobs) == len(worker.starts)
        return worker

    def by_seat(self) -> dict[int, list[str]]:
        seats = defaultdict(list)
        for job in sorted(self.jobs, key=lambda job: (job.source, job.offset)):
            seats[job.record["args"]["seat"]].append(job.id)
        return seats


@pytest.fixture
async def recorded(settings: Settings) -> AsyncIterator[Recorded]:
    async with engine_with(with_engine(settings, janitor=False), Seated), Client(settings) as client:
        # One after another, so that each has a time of its own.
        jobs = [await client.enqueue("seated", {"number": number, "seat": number % SEATS}) for number in range(60)]
        for job in jobs:
            await ended(client, job)
    async with open_history(settings) as history:
        found = [job async for batch in history.jobs(Wanted(span=EVER)) for job in batch]
    found.sort(key=lambda job: (job.accepted_at, job.source, job.offset))
    assert len({job.source for job in found}) > 1, "a partition alone has but one order"
    yield Recorded(settings, found)


@pytest.mark.parametrize("concurrency", [1, 20])
async def test_in_the_order_of_the_log_jobs_of_all_partitions_start_as_they_were_accepted(
    recorded: Recorded, concurrency: int
) -> None:
    worker = await recorded.replay(Pacing(order=Order.LOG, concurrency=concurrency))
    assert [job_id for job_id, _ in worker.starts] == [job.id for job in recorded.jobs]
    assert worker.most_on_a_seat == 1


async def test_in_the_order_of_keys_those_of_one_key_follow_each_other(recorded: Recorded) -> None:
    worker = await recorded.replay(Pacing(order=Order.KEY, concurrency=20))
    for ids in recorded.by_seat().values():
        assert [job_id for job_id, _ in worker.starts if job_id in ids] == ids
    assert worker.most_on_a_seat == 1


@pytest.mark.parametrize("order", Order)
async def test_no_job_starts_before_its_time(recorded: Recorded, order: Order) -> None:
    first, last = recorded.jobs[0].accepted_at, recorded.jobs[-1].accepted_at
    speed = (last - first) / 1000 / REPLAYED_SECONDS
    called_at = asyncio.get_running_loop().time()
    worker = await recorded.replay(Pacing(order=order, speed=speed))
    started_at = dict(worker.starts)
    # Counted from the call, which is sooner than the replay's beginning: so none can be early but by a fault.
    assert all(started_at[job.id] - called_at >= (job.accepted_at - first) / 1000 / speed for job in recorded.jobs)
