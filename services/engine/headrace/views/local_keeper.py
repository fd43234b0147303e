"""Keeps the file of a view of jobs in this process: it follows the log in the event loop, and writes in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from headrace.core.topics import Topics
from headrace.models import Job
from headrace.ports import Log
from headrace.views import accepted
from headrace.views.database import Database
from headrace.views.job_changes import JobChanges
from headrace.views.job_intake import JobIntake
from headrace.views.job_rows import SCHEMA
from headrace.views.keeping import Following, WorkersKnown

ResultT = TypeVar("ResultT")


class LocalKeeper:
    """The `JobKeeper` of this process."""

    def __init__(self, log: Log, topics: Topics, workers: WorkersKnown, path: Path) -> None:
        self._log = log
        self._topics = topics
        self._workers = workers
        self.path = path
        self.changes = JobChanges()
        self._database: Database
        self._intake: JobIntake
        self._accepting: asyncio.Task[None] | None = None

    @property
    def following(self) -> Following:
        """How far the file is."""
        return self._intake

    async def start(self) -> None:
        """Opens the file, and begins to follow the log."""
        self._database = await Database.open(self.path, SCHEMA, identity=self._topics.namespace)
        self.path = self._database.path
        self._intake = JobIntake(self._log, self._topics, self._workers, self._database, self.changes)
        self._intake.start()

    async def stop(self) -> None:
        """Writes the accepted jobs that have no row, and ends."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        await self._intake.show_accepted()
        await self._intake.stop()
        await self._database.close()

    async def accept(self, jobs: Sequence[Job]) -> None:
        """Takes jobs that were accepted here."""
        intake = self._intake
        for job in jobs:
            intake.look_for(job.worker_name)
        intake.accepted.add(jobs)
        if intake.accepted.waiting > accepted.MOST_UNWRITTEN:
            await intake.show_accepted()
        elif self._accepting is None or self._accepting.done():
            self._accepting = asyncio.create_task(self._write_accepted(), name="headrace-view-accepted")

    async def read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """What `work` finds in the file, once all accepted jobs have rows."""
        if self._intake.accepted.owed:
            await self._intake.show_accepted()
        return await self._intake.mended(lambda: self._database.read(work))

    async def _write_accepted(self) -> None:
        """Writes what no batch of the log took with it, again and again until nothing waits."""
        jobs = self._intake.accepted
        while jobs.waiting:
            before = jobs.hand_overs
            await asyncio.sleep(accepted.ACCEPTED_SECONDS)
            if jobs.hand_overs == before:
                await self._intake.show_accepted()
