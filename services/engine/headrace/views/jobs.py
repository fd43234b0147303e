"""The view of jobs: what `list_jobs` and `get_job` read, kept equal to `job-state` and to the topics of queued jobs."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from headrace.codec import describe_problems
from headrace.core.status import JobStatus
from headrace.core.topics import Topics
from headrace.models import DEFAULT_TENANT, Job
from headrace.ports import Log, TopicPartition
from headrace.sandbox_refusal import provide_topics
from headrace.tool_models import JobList
from headrace.views.job_changes import JobChanges
from headrace.views.job_queries import (
    Cursor,
    JobFilter,
    Standing,
    WorkerCounts,
    accepted_since,
    check_limit,
    count,
    count_of_worker,
    count_unfinished,
    matches,
    page,
    several,
    single,
)
from headrace.views.job_rows import JobKey, Origin, listed, whole
from headrace.views.keeping import Following, JobKeeper
from headrace.views.local_keeper import LocalKeeper
from headrace.views.process.child import StartChild
from headrace.views.process.keeper import ProcessKeeper
from headrace.views.workers import WorkerDirectory

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class JobView:
    """All jobs of a namespace, in a SQLite file. `start` it; it answers at once, and truly when `caught_up`.

    Args:
        log: the cluster.
        topics: of the namespace that is viewed.
        workers: says which workers there are; it is started and stopped by the caller.
        path: the file. Where another process has it, a numbered one beside it is used: see `headrace.views.database`.
        process: starts the process that follows the log and writes the file; this one does when left out.
    """

    def __init__(
        self, log: Log, topics: Topics, workers: WorkerDirectory, path: Path, *, process: StartChild | None = None
    ) -> None:
        self._log = log
        self._topics = topics
        self._workers = workers
        self._path = path
        self._process = process
        self._started: JobKeeper | None = None
        self._invalid = 0

    async def start(self) -> None:
        """Opens the file, and begins to follow the log from where the file stands.

        Raises:
            BrokerError: no broker can be reached.
            ConfigurationError: the file cannot be written.
        """
        await provide_topics(self._log, self._topics, [self._topics.job_state])
        keeper: JobKeeper
        if self._process is None:
            keeper = LocalKeeper(self._log, self._topics, self._workers, self._path)
        else:
            keeper = ProcessKeeper(self._workers, self._path, self._process)
        await keeper.start()
        self._started = keeper

    async def stop(self) -> None:
        """Ends the following and closes the file. Jobs that `add_accepted` was given are written first."""
        if self._started is not None:
            keeper, self._started = self._started, None
            await keeper.stop()

    # --- how far it is ---

    @property
    def path(self) -> Path:
        """The file that is used."""
        return self._keeper.path

    @property
    def caught_up(self) -> bool:
        """Whether everything is read that stood in the log at the start."""
        return self._following.caught_up

    @property
    def behind(self) -> int:
        """How many records, at most, are still to be read of those that stood in the log at the start."""
        return self._following.behind

    @property
    def trouble(self) -> str | None:
        """Why the log cannot be read at the moment, or None."""
        return self._following.trouble

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The offset of the next record of each partition that was not yet taken in."""
        return self._following.positions

    @property
    def changes(self) -> JobChanges:
        """Tells watchers which jobs have changed."""
        return self._keeper.changes

    @property
    def undecodable(self) -> Counter[str]:
        """How many records were passed over, by kind."""
        return self._following.undecodable

    async def wait_caught_up(self, timeout: float) -> None:
        """Waits until `caught_up`.

        Raises:
            TimeoutError: that took longer than `timeout` seconds.
        """
        await self._following.wait_caught_up(timeout)

    async def catch_up(self, timeout: float) -> None:
        """Reads up to what stands in the log at the time of the call, in the topics of all workers that are defined by then.

        Raises:
            TimeoutError: that took longer than `timeout` seconds.
        """
        await self._following.catch_up(timeout)

    async def read_on(self, timeout: float) -> None:
        """Reads up to what stands in the log at the time of the call, in the topics that are read already.

        Raises:
            TimeoutError: that took longer than `timeout` seconds.
        """
        await self._following.read_on(timeout)

    async def ask(self) -> None:
        """Returns when the brokers have answered a question about what is read. Raises BrokerError."""
        await self._following.ask()

    # --- what it knows ---

    async def add_accepted(self, *jobs: Job) -> None:
        """Shows jobs from now on that were just accepted here: whoever reads waits until they have rows. What the log says of
        them, now or later, goes before this.

        Args:
            jobs: as they were accepted; their `source` says where their records stand.
        """
        await self._keeper.accept(jobs)

    async def list_jobs(self, wanted: JobFilter, *, limit: int = 20, cursor: str | None = None) -> JobList:
        """The newest jobs first, by `createdAt` and then by id.

        Results and tracebacks are left out, and so are arguments and contexts above 4 KB: `argsOmitted` and `ctxOmitted` are true
        then.

        Args:
            wanted: which jobs.
            limit: the most that are answered, up to 1,000.
            cursor: `next_cursor` of the page before.

        Raises:
            ArgumentsInvalid: the cursor is none, or the limit is out of range.
        """
        check_limit(limit)
        after = None if cursor is None else Cursor.decode(cursor)

        def work(connection: sqlite3.Connection) -> JobList:
            found = page(connection, wanted, limit, after)
            raws = (listed(body) for body in found.bodies)
            jobs = [job for raw in raws if matches(raw, wanted) and (job := self._job(raw)) is not None]
            return JobList(jobs=jobs, next_cursor=None if found.next is None else found.next.encode())

        return await self._read(work)

    async def count_of_workers(
        self, workers: Collection[str], *, tenant: str = DEFAULT_TENANT, user_id: str | None = None
    ) -> dict[str, WorkerCounts]:
        """How many jobs of each worker wait, run and have failed, of a tenant or of one user of it.

        Of each at most 10,000 are counted.
        """
        return await self._read(
            lambda connection: {worker: count_of_worker(connection, tenant, worker, user_id) for worker in workers}
        )

    async def count_unfinished(self, worker: str, partitions: int) -> tuple[int, int]:
        """How many jobs of a worker, whose queue has so many partitions, wait, and how many run, of all tenants."""
        return await self._read(lambda connection: count_unfinished(connection, worker, partitions))

    async def get_job(self, job_id: str, *, tenant: str = DEFAULT_TENANT) -> Job | None:
        """A job with all that is known of it, or None if the tenant has none of that id."""

        def work(connection: sqlite3.Connection) -> Job | None:
            found = single(connection, job_id, tenant)
            return None if found is None else self._job(whole(*found))

        return await self._read(work)

    async def standing(self, keys: Sequence[JobKey], wanted: JobFilter) -> list[tuple[Standing, Job]]:
        """Those of the jobs that the filter lets through, as `list_jobs` shows them, in the order of the keys."""

        def work(connection: sqlite3.Connection) -> list[tuple[Standing, Job]]:
            found = ((each, listed(each.body)) for each in several(connection, keys, wanted))
            return [(each, job) for each, raw in found if matches(raw, wanted) and (job := self._job(raw)) is not None]

        return await self._read(work)

    async def accepted_since(self, tenant: str, origins: Sequence[Origin], limit: int) -> list[JobKey]:
        """At most so many jobs of a tenant of which no engine has written, and whose records stand at or above these places."""
        return await self._read(lambda connection: accepted_since(connection, tenant, origins, limit))

    async def counts(self, *, tenant: str = DEFAULT_TENANT) -> dict[JobStatus, int]:
        """How many jobs a tenant has, by status."""
        return await self._read(lambda connection: count(connection, tenant))

    def _job(self, raw: dict[str, Any]) -> Job | None:
        """The job, or None for one that is not what the contract says: it must not take its whole page with it."""
        try:
            return Job.model_validate(raw)
        except ValidationError as error:
            self._invalid += 1
            if self._invalid == 1:
                # Without what stands in the job: that is nobody's to read in a log.
                wrong = describe_problems(error)
                logger.warning("The jobs view leaves out a job that is no valid one: %s. Further ones are only counted.", wrong)
            return None

    async def _read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        return await self._keeper.read(work)

    @property
    def _following(self) -> Following:
        return self._keeper.following

    @property
    def _keeper(self) -> JobKeeper:
        if self._started is None:
            raise RuntimeError("the view of jobs was not started")
        return self._started
