"""Watching jobs change: from now on, from where one was, in another view, after compaction, and too slowly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.core.records import definition_key
from headrace.errors import ArgumentsInvalid, ChangesGone, JobUnknown, WatchInterrupted
from headrace.models import Job
from headrace.ports import TopicPartition
from headrace.views import job_changes, watching
from headrace.views.change_token import decode_token, encode_token
from headrace.views.database import Database
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.watching import JobsChanged, JobWatching
from support.job_views import PATIENCE, opened
from support.written_jobs import STATE_PARTITIONS, TOPICS, WORKER, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick", "both_keepers")

ANN = JobFilter()


class Watch:
    """A watcher in a test: what it was told, one look after the other."""

    def __init__(self, changes: AsyncIterator[JobsChanged]) -> None:
        self._changes = changes
        self.token = ""
        self.told: list[tuple[str, str]] = []

    async def look(self) -> JobsChanged:
        async with asyncio.timeout(PATIENCE):
            change = await anext(self._changes)
        self.token = change.token
        self.told += [(job.id, job.status.value) for job in change.jobs]
        return change

    async def until(self, *expected: tuple[str, str]) -> None:
        while self.told != list(expected):
            await self.look()
            assert self.told == list(expected)[: len(self.told)]

    async def until_has(self, *expected: tuple[str, str]) -> None:
        while not set(expected) <= set(self.told):
            await self.look()


@contextlib.asynccontextmanager
async def watching_jobs(
    log: WrittenLog, view: JobView, after: str | None = None, wanted: JobFilter = ANN
) -> AsyncIterator[Watch]:
    async with contextlib.aclosing(JobWatching(log, TOPICS, PATIENCE).watch_jobs(view, wanted, after)) as changes:
        watch = Watch(changes)
        await watch.look()
        yield watch


async def test_each_change_is_told_once(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("before")
    async with opened(log, path) as view, watching_jobs(log, view) as watch:
        assert watch.told == []
        engines.enqueue("a", 1)
        await watch.until(("a", "queued"))
        epoch = engines.claim("one", -1, 1)
        engines.run("a", epoch)
        await watch.until(("a", "queued"), ("a", "running"))
        engines.complete("a")
        await watch.until(("a", "queued"), ("a", "running"), ("a", "completed"))


async def test_a_job_that_was_accepted_here_is_told_at_once_and_not_again_when_it_is_read(
    log: WrittenLog, engines: Engines, path: Path
) -> None:
    async with opened(log, path) as view, watching_jobs(log, view) as watch:
        log.cluster.withhold(engines.jobs(0))
        made = engines.enqueue("a")
        accepted = Job.model_validate({**engines.snapshots["a"], "source": {**engines.snapshots["a"]["source"]}})
        await view.add_accepted(accepted)
        await watch.until(("a", "queued"))
        assert decode_token(TOPICS, watch.token)[engines.jobs(0)] == made.offset
        log.cluster.give_out()
        engines.enqueue("b", 1)
        await watch.until(("a", "queued"), ("b", "queued"))


async def test_filters(log: WrittenLog, engines: Engines, path: Path) -> None:
    others = Engines(log, "other_worker")
    others.define()
    wanted = JobFilter(tenant="acme", worker_name=WORKER, user_id="ann", conversation_id="trip", status=None)
    of_status = JobFilter(tenant="acme", status=None)
    async with (
        opened(log, path) as view,
        watching_jobs(log, view, wanted=wanted) as narrow,
        watching_jobs(log, view, wanted=of_status) as wide,
    ):
        engines.enqueue("foreign")
        engines.enqueue("of-bob", tenant="acme", ctx={"userId": "bob", "conversationId": "trip"})
        engines.enqueue("elsewhere", tenant="acme", ctx={"userId": "ann", "conversationId": "other"})
        others.enqueue("of-another-worker", tenant="acme")
        engines.enqueue("mine", tenant="acme")
        await narrow.until(("mine", "queued"))
        await wide.until_has(*((name, "queued") for name in ("of-bob", "elsewhere", "of-another-worker", "mine")))
        assert len(wide.told) == 4


async def test_what_was_missed_is_told_by_another_view(log: WrittenLog, engines: Engines, path: Path, tmp_path: Path) -> None:
    """The other one was made after everything happened, from a log that was compacted meanwhile."""
    async with opened(log, path) as view, watching_jobs(log, view) as watch:
        engines.enqueue("seen", 0)
        engines.enqueue("a", 0)
        engines.enqueue("b", 1)
        await watch.until_has(("seen", "queued"), ("a", "queued"), ("b", "queued"))
        token = watch.token
    first, second = engines.claim("one", -1, 0), engines.claim("one", -1, 1)
    engines.run("a", first)
    engines.run("b", second)
    engines.complete("a")
    engines.enqueue("c", 2)
    engines.enqueue("foreign", 2, tenant="acme")
    gone = [record.offset for record in log.cluster.records(engines.state(0)) if record.key == b"a"][:-1]
    log.cluster.remove_records(engines.state(0), gone)
    async with opened(log, tmp_path / "other.sqlite") as view, watching_jobs(log, view, token) as watch:
        await watch.until_has(("a", "completed"), ("b", "running"), ("c", "queued"))
        assert len(watch.told) == 3, "a job that has not changed, and a foreign one, are not told"
        engines.complete("b")
        await watch.until_has(("b", "completed"))
        assert len(watch.told) == 4


async def test_nothing_is_lost_between_what_was_missed_and_what_comes(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs change while what was missed is read."""
    async with opened(log, path) as view:
        async with watching_jobs(log, view) as watch:
            token = watch.token
        for number in range(5):
            engines.enqueue(f"j{number}", number)
        epochs = [engines.claim("one", -1, number) for number in range(5)]
        engines.run("j0", epochs[0])
        entered, go_on = asyncio.Event(), asyncio.Event()
        written = JobWatching._written

        async def held(self: JobWatching, gaps: object) -> AsyncIterator[object]:
            entered.set()
            await go_on.wait()
            async for keys in written(self, gaps):  # type: ignore[arg-type]
                yield keys

        monkeypatch.setattr(JobWatching, "_written", held)

        async def resume() -> dict[str, list[str]]:
            async with watching_jobs(log, view, token) as watch:
                await watch.until_has(("j0", "completed"), ("j4", "completed"), ("late", "queued"))
                return {name: [status for each, status in watch.told if each == name] for name, _ in watch.told}

        resuming = asyncio.create_task(resume())
        await entered.wait()
        engines.complete("j0")
        engines.run("j4", epochs[4])
        engines.complete("j4")
        engines.enqueue("late")
        await view.catch_up(PATIENCE)
        go_on.set()
        states = await resuming
        assert states["j0"][-1] == states["j4"][-1] == "completed"
        assert states.keys() == {"j0", "j1", "j2", "j3", "j4", "late"}


async def test_a_view_that_lags_never_tells_what_is_older_than_the_token(
    log: WrittenLog, engines: Engines, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(log, path) as ahead, opened(log, tmp_path / "lags.sqlite") as lagging:
        go_on, write, file = asyncio.Event(), Database.write, lagging.path

        async def held(database: Database, work: Any) -> Any:
            if database.path == file:
                await go_on.wait()
            return await write(database, work)

        monkeypatch.setattr(Database, "write", held)
        async with watching_jobs(log, ahead) as watch:
            engines.enqueue("a")
            epoch = engines.claim("one", -1)
            engines.run("a", epoch)
            engines.complete("a")
            await watch.until_has(("a", "completed"))
            await ahead.catch_up(PATIENCE)
            while watch.token != encode_token(TOPICS, ahead.positions):
                engines.enqueue(f"b{len(watch.told)}", 1)
                await watch.look()
            token = watch.token
        engines.enqueue("c", 2)

        async def resume() -> None:
            async with watching_jobs(log, lagging, token) as watch:
                await watch.until(("c", "queued"))

        resuming = asyncio.create_task(resume())
        await asyncio.sleep(0)
        go_on.set()
        await resuming


async def test_whoever_is_too_slow_is_sent_away_and_goes_on(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_changes, "MOST_WAITING", 3)
    async with opened(log, path) as view:
        async with watching_jobs(log, view) as watch:
            for number in range(4):
                engines.enqueue(f"j{number}", number)
            await view.catch_up(PATIENCE)
            with pytest.raises(WatchInterrupted, match="more than 3 changed jobs waited"):
                await watch.look()
            token = watch.token
        monkeypatch.setattr(job_changes, "MOST_WAITING", 100)
        async with watching_jobs(log, view, token) as watch:
            await watch.until_has(*((f"j{number}", "queued") for number in range(4)))
        assert not view.changes.watched


async def test_a_worker_without_a_queue_holds_up_nobody(log: WrittenLog, engines: Engines, path: Path) -> None:
    """It was defined, and nobody has given it a job: there is no topic to read."""
    name = "never_asked"
    definition = {"schemaVersion": 1, "name": name, "description": "Waits.", "category": "tool"}
    log.put(TopicPartition(TOPICS.workers.name, 0), definition_key(name), orjson.dumps(definition))
    async with opened(log, path) as view:
        async with watching_jobs(log, view) as watch:
            token = watch.token
        engines.enqueue("a")
        async with watching_jobs(log, view, token) as watch:
            await watch.until(("a", "queued"))
        with pytest.raises(JobUnknown):
            await anext(JobWatching(log, TOPICS, PATIENCE).watch_job(view, "b", "default"))


async def test_one_job_changing_often_is_no_reason_to_be_sent_away(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_changes, "MOST_WAITING", 2)
    async with opened(log, path) as view, watching_jobs(log, view) as watch:
        engines.enqueue("a")
        epoch = engines.claim("one", -1)
        for _ in range(5):
            engines.run("a", epoch)
            await view.catch_up(PATIENCE)
        engines.complete("a")
        await view.catch_up(PATIENCE)
        await watch.until(("a", "completed"))


async def test_too_much_was_missed(log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(log, path) as view:
        async with watching_jobs(log, view) as watch:
            token = watch.token
        engines.enqueue("a")
        engines.enqueue("b")
        engines.run("a", engines.claim("one", -1))
        monkeypatch.setattr(watching, "MOST_MISSED_RECORDS", 1)
        with pytest.raises(ChangesGone, match="2 records were written since: list the jobs"):
            async with watching_jobs(log, view, token):
                pass
        monkeypatch.setattr(watching, "MOST_MISSED_RECORDS", 2)
        monkeypatch.setattr(watching, "MOST_MISSED_JOBS", 0)
        with pytest.raises(ChangesGone, match="more than 0 jobs have changed since"):
            async with watching_jobs(log, view, token) as watch:
                await watch.look()


async def test_tokens_of_another_log(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    async with opened(log, path) as view:
        beyond = {partition: offset + 1 for partition, offset in view.positions.items()}
        fewer = {partition: 0 for partition in view.positions if partition.partition < STATE_PARTITIONS - 1}
        for positions in (beyond, fewer):
            with pytest.raises(ChangesGone, match="another one"):
                async with watching_jobs(log, view, encode_token(TOPICS, positions)):
                    pass
        with pytest.raises(ArgumentsInvalid):
            async with watching_jobs(log, view, "nonsense"):
                pass


async def test_a_watcher_is_sent_away_when_the_view_is_closed(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with opened(log, path) as view, contextlib.AsyncExitStack() as stack:
        watch = await stack.enter_async_context(watching_jobs(log, view))
        looking = asyncio.create_task(watch.look())
        await asyncio.sleep(0)
        view.changes.interrupt("the view of jobs is closed")
        with pytest.raises(WatchInterrupted, match="closed"):
            await looking


async def test_a_job_is_watched_to_its_end(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    async with opened(log, path) as view:
        watch = JobWatching(log, TOPICS, PATIENCE)
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(watch.watch_job(view, "a", "default")) as jobs:
            assert (await anext(jobs)).status == "queued"
            epoch = engines.claim("one", -1)
            engines.enqueue("other", 1)
            engines.run("a", epoch)
            assert (await anext(jobs)).status == "running"
            engines.complete("a", {"n": 1})
            ended = await anext(jobs)
            assert (ended.status, ended.result) == ("completed", {"n": 1})
            with pytest.raises(StopAsyncIteration):
                await anext(jobs)
            assert not view.changes.watched
        assert [job.status async for job in watch.watch_job(view, "a", "default")] == ["completed"]
        with pytest.raises(JobUnknown):
            await anext(watch.watch_job(view, "a", "acme"))


async def test_a_job_that_was_accepted_elsewhere_a_moment_ago_is_found(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with opened(log, path) as view:
        log.cluster.withhold(engines.jobs(0))
        engines.enqueue("a")
        jobs = JobWatching(log, TOPICS, PATIENCE).watch_job(view, "a", "default")
        looking = asyncio.create_task(anext(jobs))
        await asyncio.sleep(0)
        log.cluster.give_out()
        async with asyncio.timeout(PATIENCE):
            assert (await looking).status == "queued"
        await jobs.aclose()


def test_tokens() -> None:
    positions = {
        **{TopicPartition(TOPICS.job_state.name, number): 300 * number for number in range(16)},
        **{TopicPartition(TOPICS.jobs_name("e" * 5), number): 2**40 + number for number in range(8)},
    }
    token = encode_token(TOPICS, positions)
    assert decode_token(TOPICS, token) == positions
    assert token.isascii()
    assert len(token) < 200
    for wrong in ("", "x", token[:-1], token[1:], token + "A", token * 300, "é", "A" * 8):
        with pytest.raises(ArgumentsInvalid, match="none that this stream gave"):
            decode_token(TOPICS, wrong)
