"""Watching a worker: what is told at once, what at most once in a while, and for how many that watch it is counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from headrace.codec import encode
from headrace.core.records import definition_key, instance_key
from headrace.core.timestamps import from_milliseconds
from headrace.errors import WatchInterrupted, WorkerUnknown
from headrace.models import PauseRequest, WorkerSummary
from headrace.ports import TopicPartition
from headrace.views.jobs import JobView
from headrace.views.worker_watching import WorkerWatching
from headrace.views.workers import WorkerDirectory
from support.access import Clock
from support.job_views import PATIENCE
from support.written_jobs import TOPICS, WORKER, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick", "both_keepers")

SECONDS = 0.25
"""How far apart counts are in these tests."""
PAUSE = encode(PauseRequest(worker_name=WORKER, requested_at=from_milliseconds(0)))
WORKERS = TopicPartition(TOPICS.workers.name, 0)
CONTROL = TopicPartition(TOPICS.control.name, 0)


class CountedView(JobView):
    """A view that knows when it has counted, by the event loop's clock."""

    counted: list[float]

    async def count_of_workers(self, *arguments: object, **values: object) -> dict[str, object]:  # type: ignore[override]
        self.counted.append(asyncio.get_running_loop().time())
        return await super().count_of_workers(*arguments, **values)  # type: ignore[arg-type, return-value]


@dataclass
class World:
    """A view, and watchers of workers over it."""

    view: CountedView
    watching: WorkerWatching

    @contextlib.asynccontextmanager
    async def watch(self, tenant: str = "default", user_id: str | None = None, name: str = WORKER) -> AsyncIterator[Watch]:
        async with contextlib.aclosing(self.watching.watch(self.view, name, tenant, user_id)) as summaries:
            yield Watch(summaries)


class Watch:
    """What one watcher is told."""

    def __init__(self, summaries: AsyncGenerator[WorkerSummary]) -> None:
        self._summaries = summaries

    async def next(self) -> WorkerSummary:
        async with asyncio.timeout(PATIENCE):
            return await anext(self._summaries)


@contextlib.asynccontextmanager
async def world(
    log: WrittenLog, path: Path, seconds: float = SECONDS, clock: Callable[[], float] = time.time
) -> AsyncIterator[World]:
    directory = WorkerDirectory(log, TOPICS, clock=clock)
    view = CountedView(log, TOPICS, directory, path)
    view.counted = []
    await directory.start()
    await view.start()
    try:
        await view.wait_caught_up(PATIENCE)
        yield World(view, WorkerWatching(directory, seconds))
    finally:
        await view.stop()
        await directory.stop()


def now() -> int:
    return time.time_ns() // 1_000_000


def counts(summary: WorkerSummary) -> tuple[int | None, int | None, int | None]:
    return summary.backlog, summary.running, summary.failed


async def test_what_a_worker_is_and_who_runs_it_is_told_at_once(log: WrittenLog, engines: Engines, path: Path) -> None:
    # Nothing is counted meanwhile: what is told is told for what it is about.
    async with world(log, path, seconds=PATIENCE * 2) as made, made.watch() as watch:
        first = await watch.next()
        assert (first.name, first.live_instances, first.paused, counts(first)) == (WORKER, 0, False, (0, 0, 0))
        engines.live("one", timestamp=now())
        assert (await watch.next()).live_instances == 1
        log.put(CONTROL, f"worker/{WORKER}".encode(), PAUSE)
        assert (await watch.next()).paused
        log.put(CONTROL, f"worker/{WORKER}".encode(), None)
        assert not (await watch.next()).paused
        engines.define(kind="digest")
        assert (await watch.next()).kind == "digest"
        log.put(WORKERS, instance_key("one"), None)
        assert (await watch.next()).live_instances == 0
        assert len(made.view.counted) == 1


async def test_signs_of_life_and_what_is_said_again_change_nothing(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with world(log, path) as made, made.watch() as watch:
        await watch.next()
        engines.live("one", timestamp=now())
        assert (await watch.next()).live_instances == 1
        for _ in range(5):
            engines.live("one", timestamp=now())
            engines.define()
        engines.live("two", timestamp=now())
        assert (await watch.next()).live_instances == 2


async def test_an_engine_that_falls_silent_is_missed_without_any_record(log: WrittenLog, engines: Engines, path: Path) -> None:
    # Its last sign of life is so old that it counts for a moment yet, by a clock that stands until it is told otherwise.
    clock = Clock(float(now() // 1_000))
    engines.live("one", timestamp=int(clock.at * 1_000) - 2_000 - 3_000 + 100, presenceIntervalSeconds=1.0)
    # No count leads anybody to look.
    async with world(log, path, seconds=PATIENCE * 2, clock=clock) as made, made.watch() as watch:
        assert (await watch.next()).live_instances == 1
        missed = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        clock.at += 0.2
        assert (await missed).live_instances == 0


async def test_an_engine_that_falls_silent_while_who_watches_is_busy_is_missed(
    log: WrittenLog, engines: Engines, path: Path
) -> None:
    clock = Clock(float(now() // 1_000))
    engines.live("one", timestamp=int(clock.at * 1_000) - 2_000 - 3_000 + 100, presenceIntervalSeconds=1.0)
    async with world(log, path, seconds=PATIENCE * 2, clock=clock) as made, made.watch() as watch:
        assert (await watch.next()).live_instances == 1
        clock.at += 0.2
        assert (await watch.next()).live_instances == 0


async def test_counts_are_told_and_at_most_once_in_a_while(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with world(log, path) as made, made.watch() as watch:
        await watch.next()
        epoch = engines.claim("one", -1, 0)
        told: list[tuple[int | None, ...]] = []
        for number in range(40):
            engines.enqueue(f"job-{number}")
            await asyncio.sleep(0.01)
        engines.run("job-0", epoch)
        engines.fail("job-0")
        engines.run("job-1", epoch)
        while not told or told[-1] != (38, 1, 1):
            told.append(counts(await watch.next()))
    gaps = [later - earlier for earlier, later in zip(made.view.counted, made.view.counted[1:], strict=False)]
    assert gaps and min(gaps) >= SECONDS * 0.8, gaps
    # Forty jobs came in about half a second.
    assert len(told) < 10


async def test_what_came_and_went_between_two_counts_is_told(log: WrittenLog, engines: Engines, path: Path) -> None:
    """Whoever read the worker in between has seen a state of which it was never told that it is over."""
    epoch = engines.claim("one", -1, 0)
    async with world(log, path) as made, made.watch() as watch:
        assert counts(await watch.next()) == (0, 0, 0)
        engines.enqueue("a")
        engines.run("a", epoch)
        engines.complete("a")
        assert counts(await watch.next()) == (0, 0, 0)


async def test_the_progress_of_a_job_is_no_change_of_its_worker(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    engines.run("a", engines.claim("one", -1, 0))
    async with world(log, path, seconds=0.05) as made, made.watch() as watch:
        assert counts(await watch.next()) == (0, 1, 0)
        running = engines.snapshots["a"]
        told: list[WorkerSummary] = []

        async def listen() -> None:
            while not told or not told[-1].live_instances:
                told.append(await watch.next())

        listening = asyncio.create_task(listen())
        for step in range(1, 40):
            engines.write({**running, "sequence": running["sequence"] + step, "progress": {"fraction": step / 40}})
            await asyncio.sleep(0.01)
        engines.live("one", timestamp=now())
        await listening
        # The first record that is met of a job tells nothing of what was before.
        assert len(told) <= 2


async def test_a_job_that_is_removed_is_counted_no_more(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    engines.run("a", engines.claim("one", -1, 0))
    engines.fail("a")
    async with world(log, path) as made, made.watch() as watch:
        assert counts(await watch.next()) == (0, 0, 1)
        engines.forget("a")
        assert counts(await watch.next()) == (0, 0, 0)


async def test_many_watchers_cost_one_count(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with world(log, path) as made, contextlib.AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(made.watch()) for _ in range(20)]
        await asyncio.gather(*(watch.next() for watch in watches))
        assert len(made.view.counted) <= 2
        before = len(made.view.counted)
        engines.enqueue("a")
        told = await asyncio.gather(*(watch.next() for watch in watches))
        assert {counts(each) for each in told} == {(1, 0, 0)}
        assert len(made.view.counted) - before <= 2
        await stack.aclose()
        assert made.watching._counting == {}
        assert not made.view.changes.watched


async def test_only_whose_it_is_is_counted(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with (
        world(log, path) as made,
        made.watch("acme") as acme,
        made.watch("acme", "ann") as ann,
        made.watch("rival") as rival,
    ):
        for watch in (acme, ann, rival):
            assert counts(await watch.next()) == (0, 0, 0)
        # Each is told first of what is its own, though it came last.
        engines.enqueue("one", tenant="rival", ctx={"userId": "ann"})
        engines.enqueue("two", tenant="rival", ctx={"userId": "ann"})
        assert counts(await rival.next())[0] in (1, 2)
        waiting = asyncio.create_task(ann.next())
        for number in (1, 2, 3):
            engines.enqueue(f"of-bob-{number}", tenant="acme", ctx={"userId": "bob"})
            assert counts(await acme.next()) == (number, 0, 0)
        assert not waiting.done(), "that others have more to do is not even told"
        engines.enqueue("of-ann", tenant="acme", ctx={"userId": "ann"})
        assert counts(await waiting) == (1, 0, 0)
        assert counts(await acme.next()) == (4, 0, 0)


async def test_what_there_is_not_cannot_be_watched(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with world(log, path) as made:
        async with made.watch(name="nobody") as watch:
            with pytest.raises(WorkerUnknown, match="nobody"):
                await watch.next()
        async with made.watch() as watch:
            await watch.next()
            log.put(WORKERS, definition_key(WORKER), None)
            with pytest.raises(WorkerUnknown, match=WORKER):
                await watch.next()


async def test_a_view_that_is_closed_sends_its_watchers_away(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with world(log, path) as made, made.watch() as watch:
        await watch.next()
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        made.view.changes.interrupt("the view of jobs is closed")
        with pytest.raises(WatchInterrupted):
            await waiting


async def test_a_damaged_pause_changes_nothing(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with world(log, path) as made, made.watch() as watch:
        await watch.next()
        log.put(CONTROL, b"worker/other", orjson.dumps({"nothing": 1}))
        engines.live("one", timestamp=now())
        shown = await watch.next()
        assert (shown.paused, shown.live_instances) == (False, 1)
