"""Watches jobs change: one job to its end, or all that a filter lets through, from now on or from where a watcher was before.

What a watcher has missed is found in the log, from the offsets in its token on: which jobs were written about since. Then it is
told how each of them stands now. So it does not matter which view it watched before, whether that one was made anew since, or
what the log's compaction removed in between: of each job that has changed it is told the newest state, at least once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from headrace.core.ownership import Version
from headrace.core.records import CHECKPOINT_PREFIX, LEASE_PREFIX
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.topics import Topics
from headrace.errors import BrokerUnreachable, ChangesGone, JobUnknown
from headrace.models import Job
from headrace.ports import Log, TopicPartition
from headrace.views.change_token import decode_token, encode_token
from headrace.views.job_queries import JobFilter
from headrace.views.job_rows import JobKey, Origin, job_key
from headrace.views.jobs import JobView

IDLE_SECONDS: Final = 10.0
"""How long a watcher to whom nothing happens goes without a newer token."""
MOST_MISSED_RECORDS: Final = 100_000
"""Of `job-state`; to read them takes some seconds, and 100 MB as a rule."""
MOST_MISSED_ACCEPTED: Final = 10_000
_AT_ONCE: Final = 200
_REMEMBERED: Final = 4_096
_READ_RECORDS: Final = 1_000
_READ_SECONDS: Final = 60.0

Positions = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class JobsChanged:
    """What a watcher of jobs is told at once.

    Attributes:
        jobs: those that have changed, as they stand now and as `list_jobs` shows them. There may be none.
        token: given to `watch_jobs`, it goes on after all that was told up to here, in this process or in another one.
    """

    jobs: Sequence[Job]
    token: str


class JobWatching:
    """Watches the jobs of one view.

    Args:
        log: the cluster, in which is read what a watcher has missed.
        seconds: how long the view may take to read up to the end of the log.
    """

    def __init__(self, log: Log, topics: Topics, seconds: float = _READ_SECONDS) -> None:
        self._log = log
        self._topics = topics
        self._seconds = seconds
        # Each reads the log over connections of its own: when a gateway is started anew, all that watched it come at once.
        self._catching_up = asyncio.Semaphore(4)

    async def watch_job(self, view: JobView, job_id: str, tenant: str) -> AsyncGenerator[Job]:
        """See `Client.watch_job`."""
        with view.changes.watch(tenant=tenant, job_id=job_id) as watcher:
            job = await view.get_job(job_id, tenant=tenant)
            if job is None:
                await self._up_to_now(view)
                job = await view.get_job(job_id, tenant=tenant)
            if job is None:
                raise JobUnknown(f"There is no job {job_id!r}.")
            told: Job | None = None
            while job is not None:
                if job != told:
                    yield job
                    told = job
                if job.status in TERMINAL:
                    return
                await watcher.wait(None)
                watcher.take()
                job = await view.get_job(job_id, tenant=tenant)

    async def watch_jobs(self, view: JobView, wanted: JobFilter, after: str | None) -> AsyncGenerator[JobsChanged]:
        """See `Client.watch_jobs`. The view has caught up."""
        since = None if after is None else decode_token(self._topics, after)
        if since is not None:
            # What another view has read already, this one reads before it tells of anything: it never goes back.
            await self._up_to_now(view)
        told = _Told()
        with view.changes.watch(tenant=wanted.tenant) as watcher:
            until = dict(view.positions)
            if since is None or after is None:
                token = encode_token(self._topics, until)
            else:
                _check_reach(self._topics, since, until)
                # At once, though it says nothing new: whoever asked knows by it that they are listened to.
                yield JobsChanged((), after)
                async with self._catching_up, aclosing(self._missed(view, wanted.tenant, since, until)) as missed:
                    async for keys in missed:
                        async with aclosing(_standing(view, wanted, keys, told)) as parts:
                            async for jobs in parts:
                                # Until the end there may be more, so that this is where to go on.
                                yield JobsChanged(jobs, after)
                until = {**since, **until}
                token = encode_token(self._topics, until)
            yield JobsChanged((), token)
            while True:
                await watcher.wait(IDLE_SECONDS)
                keys = watcher.take()
                until.update(view.positions)
                before, token = token, encode_token(self._topics, until)
                last: Sequence[Job] = ()
                async with aclosing(_standing(view, wanted, keys, told)) as parts:
                    async for jobs in parts:
                        if last:
                            yield JobsChanged(last, before)
                        last = jobs
                if last or token != before:
                    yield JobsChanged(last, token)

    async def _up_to_now(self, view: JobView) -> None:
        try:
            await view.catch_up(self._seconds)
        except TimeoutError:
            raise BrokerUnreachable(
                f"The log of jobs could not be read to its end within {self._seconds:g} s "
                f"({view.trouble or f'{view.behind} records are left'}): try again in a while."
            ) from None

    async def _missed(self, view: JobView, tenant: str, since: Positions, until: Positions) -> AsyncGenerator[Sequence[JobKey]]:
        """The jobs, of any tenant, of which something may have been written between two places in the log."""
        origins = [
            Origin(worker, partition.partition, since.get(partition, 0))
            for partition in until
            if (worker := self._topics.worker_of(partition.topic)) is not None
        ]
        # What was begun meanwhile stands in `job-state`, and is met there.
        accepted = await view.accepted_since(tenant, origins, MOST_MISSED_ACCEPTED + 1)
        if len(accepted) > MOST_MISSED_ACCEPTED:
            raise _gone(f"more than {MOST_MISSED_ACCEPTED:,} jobs were accepted since")
        yield accepted
        state = self._topics.job_state.name
        gaps = {
            partition: (since[partition], end)
            for partition, end in until.items()
            if partition.topic == state and since[partition] < end
        }
        if gaps:
            async with aclosing(self._written(gaps)) as written:
                async for keys in written:
                    yield keys

    async def _written(self, gaps: Mapping[TopicPartition, tuple[int, int]]) -> AsyncGenerator[Sequence[JobKey]]:
        """The jobs of the snapshots that stand in these stretches of `job-state`, the void ones included."""
        reader = self._log.reader()
        await reader.start()
        try:
            await reader.assign({partition: begin for partition, (begin, _) in gaps.items()})
            deadline = asyncio.get_running_loop().time() + self._seconds
            at: Positions = {}
            while any(at.get(partition, 0) < end for partition, (_, end) in gaps.items()):
                if asyncio.get_running_loop().time() > deadline:
                    raise BrokerUnreachable(
                        f"What was missed could not be read within {self._seconds:g} s: try again in a while."
                    )
                fetched = await reader.fetch(timeout=0.25, maximum=_READ_RECORDS)
                at = await reader.positions()
                keys = {
                    job_key(record.key.decode(errors="replace")): None
                    for records in fetched.values()
                    for record in records
                    if record.key and not record.key.startswith((LEASE_PREFIX, CHECKPOINT_PREFIX))
                }
                yield list(keys)
        finally:
            await reader.stop()


class _Told:
    """In which version a watcher was last told of a job, of the jobs that it was told of lately."""

    def __init__(self) -> None:
        self._versions: dict[JobKey, tuple[Version, JobStatus]] = {}

    def is_new(self, key: JobKey, version: Version, status: JobStatus) -> bool:
        """Whether this has not been told. From now on it has."""
        if self._versions.pop(key, None) == (version, status):
            self._versions[key] = (version, status)
            return False
        self._versions[key] = (version, status)
        if len(self._versions) > _REMEMBERED:
            del self._versions[next(iter(self._versions))]
        return True


async def _standing(view: JobView, wanted: JobFilter, keys: Sequence[JobKey], told: _Told) -> AsyncGenerator[Sequence[Job]]:
    """How these jobs stand, some at a time, without those that were told so before."""
    for start in range(0, len(keys), _AT_ONCE):
        found = await view.standing(keys[start : start + _AT_ONCE], wanted)
        jobs = [job for each, job in found if told.is_new(each.id, each.version, each.status)]
        if jobs:
            yield jobs


def _check_reach(topics: Topics, since: Positions, until: Positions) -> None:
    state = [partition for partition in until if partition.topic == topics.job_state.name]
    if _states(since, topics) != set(state) or any(since[known] > until.get(known, since[known]) for known in since):
        raise _gone("the log is another one than the id is of")
    missed = sum(until[partition] - since[partition] for partition in state)
    if missed > MOST_MISSED_RECORDS:
        raise _gone(f"{missed:,} records were written since")


def _states(positions: Iterable[TopicPartition], topics: Topics) -> set[TopicPartition]:
    return {partition for partition in positions if partition.topic == topics.job_state.name}


def _gone(reason: str) -> ChangesGone:
    return ChangesGone(f"What has changed since cannot be told any more, for {reason}: list the jobs, and go on without an id.")
