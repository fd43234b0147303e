"""Has the file of a view of jobs kept by a process of its own, and reads from it here.

This process does next to nothing for it: it notes how far the other one is. When that dies, another one takes its place and goes
on where the file stands, which can be read all the while; watchers are sent away, as some may not have been told of everything.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import orjson

from headrace.errors import HeadraceError
from headrace.models import Job
from headrace.ports import TopicPartition
from headrace.processes.logs import log_again
from headrace.views import accepted
from headrace.views.accepted import AcceptedJobs
from headrace.views.database import is_damage
from headrace.views.job_changes import JobChanges
from headrace.views.job_intake import MEND_SECONDS
from headrace.views.job_rows import SCHEMA
from headrace.views.process.asking import Asking, ChildGone, error_told
from headrace.views.process.child import Child, StartChild
from headrace.views.process.frames import Frame, Kind
from headrace.views.process.standing import Standing
from headrace.views.reading import Readers
from headrace.views.workers import WorkerDirectory

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

SILENT_SECONDS: Final = 5.0
"""A process that has said nothing for so long is not well: it says something every second. Who reads waits no longer for it."""
HUNG_SECONDS: Final = 60.0
"""One that has said nothing for so long is killed, and another takes its place."""
START_SECONDS: Final = 120.0
"""The same, of one that has not opened the file yet: it imports its modules first, on a machine that may be busy."""
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 10.0
END_SECONDS: Final = 15.0


class ProcessKeeper:
    """The `JobKeeper` that has a process of its own.

    Args:
        workers: says which workers there are.
        path: where the file is to be; a numbered one beside it is used if another process has it.
        start: starts the process.
    """

    def __init__(self, workers: WorkerDirectory, path: Path, start: StartChild) -> None:
        self._workers = workers
        self._start = start
        self._wanted_path = path
        self.changes = JobChanges()
        self._standing = Standing()
        self._accepted = AcceptedJobs()
        self._writing = asyncio.Lock()
        self._accepting: asyncio.Task[None] | None = None
        self._heard_at = float("-inf")
        self._said_silent = False
        self._readers = Readers(path, SCHEMA.name)
        self._asking: Asking | None = None
        self._opened = asyncio.Event()
        self._looked_for: set[str] = set()
        self._trouble: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def path(self) -> Path:
        """The file that is used."""
        return self._readers.path

    # --- how far it is ---

    @property
    def following(self) -> ProcessKeeper:
        """How far the file is."""
        return self

    @property
    def caught_up(self) -> bool:
        return self._opened.is_set() and self._standing.caught_up

    @property
    def behind(self) -> int:
        return self._standing.behind

    @property
    def trouble(self) -> str | None:
        if self._trouble is None and self._silent_for() >= SILENT_SECONDS:
            return f"the process that keeps it has said nothing for {self._silent_for():.0f} s"
        return self._trouble or self._standing.trouble

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        return self._standing.positions

    @property
    def undecodable(self) -> Counter[str]:
        return self._standing.undecodable

    async def wait_caught_up(self, timeout: float) -> None:
        await self._insist("wait_caught_up", timeout)

    async def catch_up(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._workers.catch_up(timeout)
            await self._insist("catch_up", timeout)

    async def read_on(self, timeout: float) -> None:
        await self._insist("read_on", timeout)

    async def ask(self) -> None:
        if self._asking is not None and self._opened.is_set():
            await self._asking.ask("ask")

    async def _insist(self, name: str, timeout: float) -> None:
        """Asks until there is an answer, whatever becomes of the process meanwhile."""
        async with asyncio.timeout(timeout):
            while True:
                with suppress(ChildGone):
                    return await (await self._opened_child()).ask(name, timeout)

    async def _opened_child(self) -> Asking:
        while self._asking is None or not self._opened.is_set():
            await self._opened.wait()
        return self._asking

    # --- reading ---

    async def accept(self, jobs: Sequence[Job]) -> None:
        """Takes jobs that were accepted here. Most are never written for this: soon the log was read past their records."""
        for job in jobs:
            if job.worker_name not in self._looked_for:
                self._looked_for.add(job.worker_name)
                if self._asking is not None and self._opened.is_set():
                    self._asking.send(Kind.LOOK_FOR, job.worker_name)
        self._accepted.add(jobs)
        if self._accepted.waiting > accepted.MOST_UNWRITTEN:
            await self._show_accepted()
            if self._accepted.waiting > accepted.MOST_UNWRITTEN:
                # Nobody writes them now: they come with the log.
                self._accepted.forget()
        elif self.changes.watched and (self._accepting is None or self._accepting.done()):
            self._accepting = asyncio.create_task(self._show_watchers(), name="headrace-view-watched")

    async def read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """What `work` finds in the file, once all accepted jobs have rows, if the process is well."""
        if self._accepted.owed:
            await self._show_accepted()
        try:
            return await self._readers.read(work)
        except sqlite3.DatabaseError as error:
            await self._mend(error)
        return await self._readers.read(work)

    async def _show_accepted(self) -> None:
        """Has the accepted jobs written, for as long as the process says that it is well: another one is given them later."""
        writing = asyncio.create_task(self._write_accepted(), name="headrace-view-accepted")
        try:
            while not writing.done() and (left := SILENT_SECONDS - self._silent_for()) > 0:
                await asyncio.wait({writing}, timeout=left)
            if not writing.done() and not self._said_silent:
                self._said_silent = True
                logger.warning(
                    "The process that keeps the jobs view says nothing: until it does, what is shown may lack jobs that were"
                    " accepted here a moment ago."
                )
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _show_watchers(self) -> None:
        """Has the jobs written that the log does not bring soon: that tells watchers of them."""
        while self.changes.watched and (oldest := self._accepted.oldest) is not None:
            await asyncio.sleep(accepted.ACCEPTED_SECONDS)
            if self._accepted.oldest is oldest:
                await self._show_accepted()

    async def _write_accepted(self) -> None:
        async with self._writing:
            while self._accepted.waiting:
                child = await self._opened_child()
                try:
                    with self._accepted.hand_over() as jobs:
                        await child.ask("accept", [job.to_wire() for job in jobs])
                    return  # what came meanwhile is for whoever comes next: under load there would be no end to it
                except ChildGone:
                    continue
                except (HeadraceError, TimeoutError):
                    self._accepted.forget()
                    logger.warning("accepted jobs are not in the view yet; it will read them from the log", exc_info=True)

    def _silent_for(self) -> float:
        """For how many seconds no process has said anything."""
        return asyncio.get_running_loop().time() - self._heard_at

    async def _mend(self, error: sqlite3.DatabaseError) -> None:
        """Has a damaged file made anew; raises the error again if that cannot be done, or it is of another kind."""
        if not is_damage(error):
            raise error
        try:
            async with asyncio.timeout(MEND_SECONDS):
                await (await self._opened_child()).ask("mend", str(error), error.sqlite_errorcode)
        except (TimeoutError, HeadraceError):
            raise error from None

    # --- the process ---

    async def start(self) -> None:
        """Starts the process, and returns when the file can be read."""
        self._workers.on_change(self._tell_workers)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(begun), name="headrace-view-process")
        try:
            await begun
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Has it write the accepted jobs that have no row, and end."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        if not task.done() and self._accepted.owed:
            await self._show_accepted()
        await self._readers.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
        self.changes.interrupt("the view of jobs is closed")

    async def _run(self, begun: asyncio.Future[None]) -> None:
        pause = FIRST_PAUSE_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                how = await self._have_kept(begun)
                if not begun.done():
                    raise ChildGone(f"The process that keeps the view of jobs {how}.")
            except Exception as error:
                if not begun.done():
                    begun.set_exception(error)
                    return
                how = f"could not do it: {error!r}"
            self._trouble = f"the process that keeps it {how}"
            logger.warning("The process that keeps the jobs view %s; another is started", how)
            pause = FIRST_PAUSE_SECONDS if clock() - started >= HUNG_SECONDS else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _have_kept(self, begun: asyncio.Future[None]) -> str:
        """Has a process keep the file for as long as it lives; returns how it ended."""
        child = await self._start()
        self._asking = asking = Asking(child)
        self._heard_at = asyncio.get_running_loop().time()
        tasks: list[asyncio.Task[None]] = []
        try:
            asking.send(Kind.BEGIN, str(self._wanted_path))
            self._tell_workers()
            tasks = [asyncio.create_task(self._tell_all_workers()), asyncio.create_task(self._look_after(asking))]
            while (frame := await child.connection.read()) is not None:
                await self._heard(asking, frame)
                if self._opened.is_set() and not begun.done():
                    begun.set_result(None)
        finally:
            self._opened.clear()
            self._asking = None
            for task in tasks:
                task.cancel()
            how = await self._end(asking)
        return how

    async def _end(self, asking: Asking) -> str:
        """Has it end, if it has not, and sends away who waits for it."""
        child = asking.child
        asking.send(Kind.END)
        patience = END_SECONDS if self._silent_for() < SILENT_SECONDS else 0.0
        killing = asyncio.get_running_loop().call_later(patience, child.kill)
        rest = asyncio.create_task(_log_rest(child), name="headrace-view-rest")
        try:
            how = await child.ended()
            await rest
        finally:
            killing.cancel()
            rest.cancel()
            await child.connection.close()
        asking.ended(how)
        # Of what it wrote last its watchers may not have been told.
        self.changes.interrupt("the process that keeps the view of jobs has ended")
        return how

    async def _heard(self, asking: Asking, frame: Frame) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._said_silent = False
        match frame.kind:
            case Kind.STANDING:
                self._accepted.passed(self._standing.take(frame.content, self.changes))
            case Kind.ANSWER:
                asking.answered(*frame.content)
            case Kind.LOG:
                log_again(orjson.loads(frame.content))
            case Kind.OPENED:
                await self._open(asking, Path(frame.content))
            case Kind.FAILED:
                raise error_told(*frame.content)
            case Kind.RELEASE:
                await self._readers.release()
                asking.send(Kind.RELEASED)
            case Kind.RESUME:
                self._readers.path = Path(frame.content)
                self._readers.resume()

    async def _open(self, asking: Asking, path: Path) -> None:
        """The process has opened the file: it takes requests from now on."""
        if path != self._readers.path or not self._readers.can_read:
            await self._readers.release()
            self._readers.path = path
            self._readers.resume()
        # Who has come since the last process ended stands at its positions, and was told of nothing that it wrote after these.
        self.changes.interrupt("another process keeps the view of jobs")
        for worker in self._looked_for:
            asking.send(Kind.LOOK_FOR, worker)
        if self._trouble is not None:
            logger.info("Another process keeps the jobs view now.")
        self._trouble = None
        self._opened.set()

    def _tell_workers(self) -> None:
        if self._asking is not None:
            self._asking.send(Kind.WORKERS, (list(self._workers.definitions), self._workers.ready))

    async def _tell_all_workers(self) -> None:
        await self._workers.wait_ready(math.inf)
        self._tell_workers()

    async def _look_after(self, asking: Asking) -> None:
        while (left := self._patience() - self._silent_for()) > 0:  # noqa: ASYNC110 - of silence nobody tells
            await asyncio.sleep(min(left, SILENT_SECONDS))
        logger.warning("The process that keeps the jobs view has said nothing for %g s, and is killed.", self._patience())
        asking.child.kill()

    def _patience(self) -> float:
        """How long the process may say nothing, in seconds."""
        return HUNG_SECONDS if self._opened.is_set() else START_SECONDS


async def _log_rest(child: Child) -> None:
    """Logs what it says while it ends."""
    while (frame := await child.connection.read()) is not None:
        if frame.kind is Kind.LOG:
            log_again(orjson.loads(frame.content))
