"""A view that a process of its own keeps, without the process: what goes over its connection, and what if that ends."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import BrokerUnreachable, HeadraceError, JobUnknown, WatchInterrupted
from headrace.models import Job
from headrace.views import accepted
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.process import keeper as keeper_module
from headrace.views.process.asking import Asking, error_told
from headrace.views.process.frames import Connection, Kind
from headrace.views.process.keeper import ProcessKeeper
from headrace.views.watching import JobWatching
from headrace.views.workers import WorkerDirectory
from support.job_views import PATIENCE, eventually, statuses, until
from support.view_children import ChildHere
from support.written_jobs import TOPICS, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick", "soon")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_PAUSE_SECONDS", 0.01)


class Kept:
    """A view and the children that kept it, the newest last."""

    def __init__(self, log: WrittenLog, path: Path) -> None:
        self.log = log
        self.children: list[ChildHere] = []
        self.directory = WorkerDirectory(log, TOPICS)
        self.view = JobView(log, TOPICS, self.directory, path, process=self._start)
        self.may_start = asyncio.Event()
        self.may_start.set()

    @property
    def keeper(self) -> ProcessKeeper:
        keeper = self.view._keeper
        assert isinstance(keeper, ProcessKeeper)
        return keeper

    async def end_child(self) -> None:
        """Ends the child, and returns when the parent knows."""
        child = self.children[-1]
        child.kill()
        await child.ended()
        await until(lambda: not self.keeper._opened.is_set())

    async def _start(self) -> ChildHere:
        await self.may_start.wait()
        child = ChildHere(self.log, TOPICS)
        await child.start()
        self.children.append(child)
        return child


@asynccontextmanager
async def kept(log: WrittenLog, path: Path, *, wait: bool = True) -> AsyncIterator[Kept]:
    made = Kept(log, path)
    await made.directory.start()
    await made.view.start()
    try:
        if wait:
            await made.view.wait_caught_up(PATIENCE)
        yield made
    finally:
        made.may_start.set()
        await made.view.stop()
        await made.directory.stop()


def open_files() -> list[str]:
    found: list[str] = []
    for file in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # the folder's own, which is closed by now
            found.append(str(file.readlink()))
    assert found
    return found


def job_of(engines: Engines, job_id: str) -> Job:
    return Job.model_validate(engines.snapshots[job_id])


def withhold(log: WrittenLog, engines: Engines) -> None:
    """From now on nothing of the topic of jobs is given out."""
    log.cluster.withhold(*(engines.jobs(number) for number in range(8)))


async def test_what_was_written_and_not_told_before_the_end_is_told_to_whoever_goes_on(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, lost = Connection.send, asyncio.Event()

    def loses(connection: Connection, kind: Kind, content: Any = None) -> None:
        if kind is Kind.STANDING and lost.is_set():
            return
        send(connection, kind, content)

    async with kept(log, path) as made:
        watching = JobWatching(log, TOPICS, PATIENCE)
        changes = watching.watch_jobs(made.view, JobFilter(), None)
        token = (await anext(changes)).token
        monkeypatch.setattr(Connection, "send", loses)
        lost.set()
        engines.enqueue("a")
        await eventually(made.view, {"a": "queued"})
        made.may_start.clear()
        await made.end_child()
        lost.clear()
        with pytest.raises(WatchInterrupted):
            async with asyncio.timeout(PATIENCE):
                await anext(changes)
        # Who comes now stands where the last process was known to be.
        with made.view.changes.watch(tenant="default") as late:
            made.may_start.set()
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(WatchInterrupted):
                    await late.wait(None)
        await made.view.wait_caught_up(PATIENCE)
        async with asyncio.timeout(PATIENCE):
            async for changed in watching.watch_jobs(made.view, JobFilter(), token):
                if changed.jobs:
                    break
        assert [job.id for job in changed.jobs] == ["a"]


async def test_positions_and_what_is_below_them_are_told_at_once(log: WrittenLog, engines: Engines, path: Path) -> None:
    """In whatever moment somebody begins to watch: either the job is below the positions, or it is told."""
    async with kept(log, path) as made:
        for number in range(50):
            with made.view.changes.watch(tenant="default") as watcher:
                before = made.view.positions.get(engines.jobs(0), 0)
                engines.enqueue(f"j{number}")
                await until(lambda before=before: made.view.positions[engines.jobs(0)] > before)  # type: ignore[misc]
                assert watcher.take()


async def test_accepted_jobs_are_forgotten_when_the_log_was_read_past_them(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with kept(log, path) as made:
        withhold(log, engines)
        engines.enqueue("a")
        await made.view.add_accepted(job_of(engines, "a"))
        assert made.keeper._accepted.owed
        log.cluster.give_out()
        await until(lambda: not made.keeper._accepted.owed)
        assert made.keeper._accepted.hand_overs == 0
        assert await statuses(made.view) == {"a": "queued"}


async def test_not_many_accepted_jobs_wait(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted, "MOST_UNWRITTEN", 3)
    async with kept(log, path) as made:
        withhold(log, engines)
        for number in range(5):
            engines.enqueue(f"j{number}")
            await made.view.add_accepted(job_of(engines, f"j{number}"))
            assert made.keeper._accepted.waiting <= 3
        assert made.keeper._accepted.hand_overs == 1
        monkeypatch.setattr(keeper_module, "SILENT_SECONDS", 0.0)
        for number in range(5, 9):
            engines.enqueue(f"j{number}")
            await made.view.add_accepted(job_of(engines, f"j{number}"))
            assert made.keeper._accepted.waiting <= 3
        assert made.keeper._accepted.hand_overs == 1


async def test_who_reads_does_not_wait_for_jobs_that_are_accepted_meanwhile(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load there would be no end to it, and each job would be written by way of this process."""
    ask, numbers = Asking.ask, itertools.count()

    async def accepted_meanwhile(asking: Asking, name: str, *arguments: Any) -> None:
        await ask(asking, name, *arguments)
        if name == "accept":
            job_id = f"j{next(numbers)}"
            engines.enqueue(job_id)
            await made.view.add_accepted(job_of(engines, job_id))

    async with kept(log, path) as made:
        monkeypatch.setattr(Asking, "ask", accepted_meanwhile)
        withhold(log, engines)
        engines.enqueue("a")
        await made.view.add_accepted(job_of(engines, "a"))
        async with asyncio.timeout(PATIENCE):
            assert await statuses(made.view) == {"a": "queued"}
        assert made.keeper._accepted.hand_overs == 1
        monkeypatch.undo()
        assert await statuses(made.view) == {"a": "queued", "j0": "queued"}


async def test_a_stop_writes_the_accepted_jobs(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with kept(log, path) as made:
        withhold(log, engines)
        engines.enqueue("a")
        await made.view.add_accepted(job_of(engines, "a"))
    async with kept(log, path, wait=False) as made:
        assert await statuses(made.view) == {"a": "queued"}


async def test_accepted_jobs_outlive_the_process_that_was_to_write_them(log: WrittenLog, engines: Engines, path: Path) -> None:
    async with kept(log, path) as made:
        withhold(log, engines)
        engines.enqueue("a")
        made.may_start.clear()
        await made.end_child()
        await made.view.add_accepted(job_of(engines, "a"))
        reading = asyncio.create_task(statuses(made.view))
        done, _ = await asyncio.wait([reading], timeout=0.1)
        assert not done
        made.may_start.set()
        async with asyncio.timeout(PATIENCE):
            assert await reading == {"a": "queued"}
        assert len(made.children) == 2


async def test_who_waits_for_the_log_goes_on_waiting_over_the_end_of_the_process(
    log: WrittenLog, engines: Engines, path: Path
) -> None:
    async with kept(log, path) as made:
        withhold(log, engines)
        engines.enqueue("a")
        waiting = [asyncio.create_task(made.view.read_on(PATIENCE)), asyncio.create_task(made.view.catch_up(PATIENCE))]
        await made.end_child()
        log.cluster.give_out()
        await asyncio.gather(*waiting)
        assert await statuses(made.view) == {"a": "queued"}
        assert len(made.children) == 2


async def test_who_asks_the_brokers_is_told_that_the_process_has_ended(log: WrittenLog, path: Path) -> None:
    async with kept(log, path) as made:
        await made.view.ask()
        log.go_away()
        with pytest.raises(BrokerUnreachable):
            await made.view.ask()
        log.accept_requests()
        made.may_start.clear()
        await made.end_child()
        await until(lambda: "ended" in (made.view.trouble or ""))
        made.may_start.set()
        await until(lambda: made.view.trouble is None)


async def test_a_process_that_ends_at_once_fails_the_start(log: WrittenLog, path: Path) -> None:
    async def start() -> ChildHere:
        child = ChildHere(log, TOPICS)
        await child.start()
        child.kill()
        return child

    view = JobView(log, TOPICS, WorkerDirectory(log, TOPICS), path, process=start)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(HeadraceError, match="ended"):
            await view.start()
    await view.stop()


async def test_a_file_that_is_made_anew_is_let_go_here(
    log: WrittenLog, engines: Engines, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines.enqueue("a")
    async with kept(log, path) as made:
        assert await statuses(made.view) == {"a": "queued"}
        damage = sqlite3.DatabaseError("malformed")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        asked = 0

        def look(connection: sqlite3.Connection) -> list[tuple[str]]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise damage
            return connection.execute("SELECT id FROM jobs").fetchall()

        with made.view.changes.watch(tenant="default") as watcher:
            await made.view._read(look)
            await eventually(made.view, {"a": "queued"})
            with pytest.raises(WatchInterrupted):
                watcher.take()
        assert not [file for file in await asyncio.to_thread(open_files) if str(path) in file and "deleted" in file]
    assert "made anew" in caplog.text


def test_errors_that_go_over_the_connection() -> None:
    assert isinstance(error_told("TimeoutError", "late"), TimeoutError)
    gone = error_told("BrokerUnreachable", "nobody is there")
    assert isinstance(gone, BrokerUnreachable) and str(gone) == "nobody is there"
    assert type(error_told("OperationalError", "the disk is full")) is HeadraceError
    assert isinstance(error_told("JobUnknown", "none"), JobUnknown)
