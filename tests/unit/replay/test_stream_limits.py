"""How many jobs of a replay of many run at a time, and how many its progress bar says there will be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from headrace import AbstractWorker, JobContext
from headrace.cli.replay_stream import _progress
from headrace.replay.exports.export_format import ExportHeader, ExportWriter
from headrace.replay.facade import MOST_THREADS, StreamRequest, replay_stream
from headrace.replay.history import Span
from headrace.replay.rerunning.rerun import Rerunner
from headrace.replay.streams.pacing import Pacing
from headrace.replay.streams.stream import StreamReplay
from support.log import PATIENCE_SECONDS, eventually
from support.recorded import ListedHistory, Today, everything, recorded_job


class Waits(AbstractWorker[dict[str, Any]]):
    """A plain function that goes on when all may."""

    name = "count"

    def __init__(self) -> None:
        self.running = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def run(self, args: dict[str, Any], ctx: JobContext) -> int:
        with self._lock:
            self.running += 1
        assert self.go_on.wait(2 * PATIENCE_SECONDS)
        return int(args["number"])


async def test_no_more_than_200_plain_functions_run_at_a_time_however_many_jobs_may(tmp_path: Path) -> None:
    count, waits, seen = MOST_THREADS + 20, Waits(), list[Rerunner]()
    with ExportWriter(tmp_path / "jobs.gz") as writer:
        for job in map(recorded_job, range(count)):
            place = {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset}
            writer.add("job", **place, acceptedAt=job.accepted_at, record=job.record, snapshot=job.snapshot)
        writer.finish(ExportHeader(namespace="headrace", span=Span(0, 10_000), counts=writer.counts))

    @asynccontextmanager
    async def watch(replay: StreamReplay, total: int | None) -> AsyncIterator[None]:
        assert isinstance(replay.reruns, Rerunner)
        seen.append(replay.reruns)
        yield

    request = StreamRequest(code=[waits], span=None, file=tmp_path / "jobs.gz", pacing=Pacing(concurrency=count))
    replaying = asyncio.create_task(replay_stream(request, watch=watch))
    try:
        # Each job either runs or waits for its place.
        await eventually(
            lambda: bool(seen) and waits.running + len(seen[0]._places._waiters or ()) == count, "all jobs have begun"
        )
        assert waits.running == MOST_THREADS == 200
    finally:
        waits.go_on.set()
        summary = await replaying
    assert (summary.jobs, waits.running) == (count, count)


async def test_the_bar_says_how_many_jobs_with_these_fields_there_will_be() -> None:
    statuses = ["failed", "completed", "completed", "completed"], ["completed"] * 2, ["failed"] * 2
    numbers = iter(range(8))
    batches = [[recorded_job(next(numbers), status=status) for status in batch] for batch in statuses]
    wanted = replace(everything(batches), fields={"status": "failed"})
    replay, bar = StreamReplay(ListedHistory(batches), Today(lambda _: 1), wanted), Progress(disable=True)
    async with aclosing(replay.jobs()) as chosen, _progress(bar, replay, 8):
        assert len(await anext(chosen)) == 1
        await eventually(lambda: bar.tasks[0].total == 2, "one in four has the fields")
        assert [len(batch) async for batch in chosen] == [2]
        await eventually(lambda: bar.tasks[0].total == 3, "all are found")
