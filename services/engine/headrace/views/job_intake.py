"""Keeps the table of jobs equal to the log: in which order topics are read, from where, and when all is begun anew.

`job-state` is read to its end first. Then come the topics of the workers, each from its watermark: what lies below has ended, and
what is still known of it stands in `job-state`. In this order a job that has ended is not shown as queued on the way.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from headrace.core.topics import Topics
from headrace.errors import BrokerError, HeadraceError
from headrace.ports import Log, TopicPartition
from headrace.views.accepted import AcceptedJobs
from headrace.views.database import Database, Position, Positions, is_damage
from headrace.views.follower import Batch, Follower, LogReplaced, Pace
from headrace.views.job_projection import JobProjection
from headrace.views.job_rows import LATE_INDEXES
from headrace.views.job_table import sweep
from headrace.views.keeping import ToldOfJobs, WorkersKnown

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

LOOK_SECONDS: Final = 0.5
"""How often the topic of a worker is looked for that is defined and has none yet."""
TOUCH_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.1
PACE: Final = Pace(least_seconds=0.05, most_seconds=0.3, records_per_second=2_500)
"""Where jobs come and end all the time most records of a job are in one batch, and it is written once."""
MEND_SECONDS: Final = 30.0
"""How long a call waits for a damaged file to be made anew, before it is told of the damage."""


class ViewDamaged(HeadraceError):
    """The file of a view is damaged."""


class JobIntake:
    """Follows the log into an open file, for as long as it runs. A file that proves wrong is made anew.

    Args:
        changes: is told of each batch that was taken in, before the positions move on.

    Attributes:
        accepted: the jobs that were accepted here, whose rows are written with the next batch, or by `write_accepted`.
    """

    def __init__(self, log: Log, topics: Topics, workers: WorkersKnown, database: Database, changes: ToldOfJobs) -> None:
        self._log = log
        self._topics = topics
        self._workers = workers
        self._database = database
        self._projection = JobProjection(topics)
        self._follower: Follower | None = None
        self._task: asyncio.Task[None] | None = None
        self._followed: set[str] = set()
        self._asked: set[str] = set()
        self._look = asyncio.Event()
        self._looks = self._looked = 0
        self._without_topic: set[str] = set()
        self._moved = asyncio.Event()
        self._complete = False
        self._damaged: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._remade = 0
        self._trouble: str | None = None
        self._writing = asyncio.Lock()
        self._changes = changes
        self.accepted = AcceptedJobs()

    def start(self) -> None:
        self._workers.on_change(self._look.set)
        self._task = asyncio.create_task(self._run(), name="headrace-view-jobs")

    async def stop(self) -> None:
        if self._task is not None:
            with suppress(sqlite3.Error):
                await self._touch()
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._changes.interrupt("the view of jobs is closed")

    @property
    def caught_up(self) -> bool:
        return self._complete and self._follower is not None and self._follower.caught_up

    @property
    def behind(self) -> int:
        return 0 if self._follower is None else self._follower.behind

    @property
    def trouble(self) -> str | None:
        return self._trouble or (None if self._follower is None else self._follower.trouble)

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The offset of the next record of each partition that was not yet taken in."""
        return {} if self._follower is None else self._follower.positions

    @property
    def undecodable(self) -> Counter[str]:
        return self._projection.undecodable.counts

    async def wait_caught_up(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not self.caught_up:
                # The positions move after `_moved` is set: what is followed tells of them.
                await (self._wait_moved() if self._follower is None or not self._complete else self._follower.wait_moved())

    async def catch_up(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._workers.catch_up(timeout)
            looks = self._looks
            while not self._complete or self._follower is None or self._unfollowed(looks):
                await self._wait_moved()
            await self._follower.catch_up(timeout)

    def _unfollowed(self, looks: int) -> bool:
        """Whether there may be a topic of a worker that is not followed yet. Of one that had none at a look after so many, no job
        had been accepted."""
        missing = set(self._workers.definitions) - self._followed
        if not missing or (self._looked > looks and missing <= self._without_topic):
            return False
        self._look.set()
        return True

    async def read_on(self, timeout: float) -> None:
        """Reads up to what stands now in the topics that are followed. Waits for no worker that has no topic yet."""
        async with asyncio.timeout(timeout):
            while self._follower is None or not self._complete:
                await self._wait_moved()
            await self._follower.catch_up(timeout)

    async def ask(self) -> None:
        """Returns when the brokers have answered, or the view is about to be followed anew. Raises BrokerError."""
        state = self._topics.job_state.name
        if self._follower is not None and (partitions := [each for each in self.positions if each.topic == state]):
            await self._follower.ask(partitions)

    def look_for(self, worker: str) -> None:
        """Follows the topic of a worker, too, whose definition was not read yet."""
        if worker not in self._followed:
            self._asked.add(worker)
            self._look.set()

    async def write_accepted(self) -> None:
        """Returns when all jobs that were accepted here have rows. What fails can be done again."""
        async with self._writing:
            if not self.accepted.waiting:
                return
            with self.accepted.hand_over() as jobs:
                await self._database.write(lambda connection: self._projection.accept(connection, jobs))
            self._projection.remember_accepted(jobs)
            self._changes.tell_accepted(jobs)

    async def show_accepted(self) -> None:
        """The same. They are accepted, whatever becomes of a table on this machine: if it cannot be written, they come with the
        log."""
        try:
            await self.mended(self.write_accepted)
        except Exception:
            self.accepted.forget()
            logger.warning("accepted jobs are not in the view yet; it will read them from the log", exc_info=True)

    async def mended(self, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Does something with the file; if it proves damaged, does it again with the new one."""
        try:
            return await work()
        except sqlite3.DatabaseError as error:
            await self.mend(error)
        return await work()

    async def mend(self, error: sqlite3.DatabaseError) -> None:
        """Has a damaged file made anew, and waits until it is.

        Raises the error again if it is of another kind, or the file could not be made anew within `MEND_SECONDS`.
        """
        if not is_damage(error):
            raise error
        before = self._remade
        if not self._damaged.done():
            self._damaged.set_result(f"it is damaged ({error}).")
        try:
            async with asyncio.timeout(MEND_SECONDS):
                while self._remade == before and self._task is not None and not self._task.done():
                    await self._wait_moved()
        except TimeoutError:
            raise error from None

    async def _wait_moved(self) -> None:
        self._moved.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._moved.wait()

    # --- the task ---

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (LogReplaced, ViewDamaged) as reason:
                await self._begin_anew(str(reason))
            except Exception as error:
                self._say(error)
                await asyncio.sleep(RETRY_SECONDS)

    def _say(self, error: Exception) -> None:
        told = str(error) or type(error).__name__
        if told != self._trouble:
            unexpected = None if isinstance(error, HeadraceError | OSError) else error
            logger.warning("The jobs view cannot be followed, and is tried again: %s", told, exc_info=unexpected)
        self._trouble = told

    async def _begin_anew(self, reason: str) -> None:
        self._changes.interrupt("the view of jobs is made anew")
        try:
            await self._database.discard(reason)
        except (sqlite3.Error, OSError) as error:
            self._say(error)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._damaged = asyncio.get_running_loop().create_future()
        self._remade += 1
        self._moved.set()

    async def _follow(self) -> None:
        """Follows until something ends it, and raises that."""
        self._followed.clear()
        self._complete = False
        self._projection.forget()
        self._follower = follower = Follower(self._log, self._take_in, name="jobs", fatal=(LogReplaced, ViewDamaged), pace=PACE)
        follower.expects_more = True
        try:
            await self._unless_damaged(follower.start())
            await self._unless_damaged(self._lead(follower), follower.ended())
        finally:
            await follower.stop()

    async def _unless_damaged(self, *works: Coroutine[Any, Any, None]) -> None:
        """Until one of these ends. Damage is looked for all the while: a broker that is away does not keep the file as it is."""
        tasks = [asyncio.ensure_future(work) for work in (*works, self._await_damage())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _await_damage(self) -> None:
        raise ViewDamaged(await asyncio.shield(self._damaged))

    async def _take_in(self, batch: Batch) -> None:
        async with self._writing:
            # Most jobs that were accepted here a moment ago have begun by now, or ended: so they are written once.
            try:
                with self.accepted.hand_over() as accepted:
                    facts = await self._database.write(lambda connection: self._projection.take_in(connection, batch, accepted))
            except BaseException as error:
                self._projection.forget()
                if is_damage(error):
                    raise ViewDamaged(f"it is damaged ({error}).") from error
                raise
            # Before the positions move on: whoever looks at them has been told of everything below them.
            self._changes.tell(facts)
        self._moved.set()

    async def _lead(self, follower: Follower) -> None:
        stored = await self._database.positions()
        state = self._topics.job_state.name
        partitions = [TopicPartition(state, number) for number in range(await self._log.partition_count(state))]
        follower.follow(_beginnings(stored, await self._floors(follower, stored, dict.fromkeys(partitions, 0))))
        await follower.wait_caught_up(math.inf)
        for statement in LATE_INDEXES:
            # One transaction for each: a job that is accepted meanwhile waits for one of them only.
            await self._database.write(lambda connection, statement=statement: connection.execute(statement))  # type: ignore[misc]
        await self._workers.wait_ready(math.inf)
        while True:
            # Before looking: a worker that comes while this is under way is looked for in the next round.
            self._look.clear()
            try:
                missing = await self._follow_workers(follower, partitions, stored)
            except BrokerError as error:
                # What is followed already goes on, and is as true as before.
                self._say(error)
                missing = True
            else:
                self._trouble = None
                self._complete = True
                follower.expects_more = False
                self._moved.set()
            await self._touch()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if missing else TOUCH_SECONDS):
                    await self._look.wait()

    async def _floors(
        self, follower: Follower, stored: Positions, watermarks: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """The offsets below which partitions need not be read: where the log begins, or the watermark if that is higher.

        Raises:
            LogReplaced: what was read before is not in this log.
        """
        starts, ends = await follower.bounds(list(watermarks))
        state = self._topics.job_state.name
        for partition in watermarks:
            known = stored.get(partition, Position(0)).next
            if known > ends[partition]:
                raise LogReplaced(f"it has read {partition.topic} up to offset {known}, and the log ends at {ends[partition]}.")
            # Job records are deleted when their jobs have ended; of `job-state` nothing is, but by compaction.
            if 0 < known < starts[partition] and partition.topic == state:
                raise LogReplaced(
                    f"it has read {partition.topic} up to offset {known}, and the log begins at {starts[partition]}."
                )
        return {
            # A group's offset beyond the end is left from a topic of the same name that was deleted.
            partition: max(starts[partition], watermark if watermark <= ends[partition] else 0)
            for partition, watermark in watermarks.items()
        }

    async def _follow_workers(self, follower: Follower, state: list[TopicPartition], stored: Positions) -> bool:
        """Follows the topics of workers that are new; returns whether one of them has no topic yet."""
        self._looks += 1
        look = self._looks
        new = (set(self._workers.definitions) | self._asked) - self._followed
        if not new:
            return False
        existing = await self._log.topic_names()
        found = sorted(worker for worker in new if self._topics.jobs_name(worker) in existing)
        watermarks = dict(zip(found, await asyncio.gather(*map(self._watermarks, found)), strict=True))
        together = {partition: offset for offsets in watermarks.values() for partition, offset in offsets.items()}
        floors = await self._floors(follower, stored, together)
        # Whatever lay below the watermarks when they were asked for has ended, and its end is read now.
        await follower.catch_up(math.inf, state)
        for worker in found:
            await self._sweep(worker, {partition.partition: floors[partition] for partition in watermarks[worker]})
        follower.follow(_beginnings(stored, floors))
        self._followed.update(found)
        self._without_topic, self._looked = new - self._followed, look
        self._moved.set()
        return bool(self._without_topic)

    async def _watermarks(self, worker: str) -> dict[TopicPartition, int]:
        topic = self._topics.jobs_name(worker)
        count = await self._log.partition_count(topic)
        committed = await self._log.committed_offsets(self._topics.group(worker))
        return {
            partition: committed.get(partition, 0) for partition in (TopicPartition(topic, number) for number in range(count))
        }

    async def _sweep(self, worker: str, ended: Mapping[int, int]) -> None:
        removed = await self._database.write(lambda connection: sweep(connection, worker, ended))
        if removed:
            logger.info(
                "The jobs view lets go of %d jobs of %s that have ended and of which the log has no more.", removed, worker
            )

    async def _touch(self) -> None:
        """Notes that the file is as new as the log, if it is."""
        if self.caught_up and self.trouble is None:
            await self._database.touch()


def _beginnings(stored: Positions, floors: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Where to begin to read. The last record that was read is read again, to see whether it is the same."""
    begin: dict[TopicPartition, int] = {}
    for partition, floor in floors.items():
        known = stored.get(partition, Position(0))
        begin[partition] = max(floor, known.last if known.last >= 0 else known.next)
    return begin
