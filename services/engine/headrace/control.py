"""What anybody may ask of the engines, by the topic `control`: to cancel a job, to pause a worker, and to resume it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.codec import encode
from headrace.core.records import cancellation_key, pause_key
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.timestamps import from_milliseconds
from headrace.errors import JobNotCancellable, JobUnknown
from headrace.models import CancelRequest, Job, PauseRequest
from headrace.ports import LogWriter, NewRecord, TopicPartition
from headrace.submission import check_seconds
from headrace.views.jobs import JobView

_LOOK_SECONDS = 0.05


class Control:
    """Writes to `control`. Each request may be repeated: it is the same one.

    Args:
        topic: its name.
        now: milliseconds since the Unix epoch.
    """

    def __init__(self, writer: LogWriter, topic: str, now: Callable[[], int]) -> None:
        self._writer = writer
        self._target = TopicPartition(topic, 0)
        self._now = now

    async def cancel(self, job: Job, *, timeout: float) -> None:
        """Asks whoever holds the job's partition, or will hold it next, to cancel the job.

        Raises:
            JobNotCancellable: it is not known where the job's record stands.
            BrokerError: the request was not acknowledged within `timeout` seconds.
        """
        if job.source is None:
            raise JobNotCancellable(f"Where the record of job {job.id} stands is not known yet: try again in a moment.")
        request = CancelRequest(
            tenant=job.tenant,
            job_id=job.id,
            worker_name=job.worker_name,
            source=job.source,
            requested_at=from_milliseconds(self._now()),
        )
        await self._append(NewRecord(cancellation_key(job.tenant, job.id), encode(request)), timeout)

    async def pause(self, worker: str, *, timeout: float) -> None:
        """Asks all engines to start no job of a worker. Raises BrokerError."""
        request = PauseRequest(worker_name=worker, requested_at=from_milliseconds(self._now()))
        await self._append(NewRecord(pause_key(worker), encode(request)), timeout)

    async def resume(self, worker: str, *, timeout: float) -> None:
        """Ends a pause. Raises BrokerError."""
        await self._append(NewRecord(pause_key(worker), None), timeout)

    async def _append(self, record: NewRecord, timeout: float) -> None:
        check_seconds(timeout)
        await self._writer.append(self._target, record, timeout=timeout)


async def cancel_job(view: JobView, control: Control, job_id: str, tenant: str, *, wait: float, timeout: float) -> Job:
    """Cancels a job; returns it as it stands afterwards. See `Client.cancel_job`.

    Args:
        view: knows of every job that there is now.
    """
    job = await view.get_job(job_id, tenant=tenant)
    if job is None:
        raise JobUnknown(f"There is no job {job_id!r}.")
    if job.status is JobStatus.CANCELLED:
        return job
    if job.status in TERMINAL:
        raise JobNotCancellable(f"Job {job.id} has ended: it is {job.status.value}. Only a job that has not ended is cancelled.")
    await control.cancel(job, timeout=timeout)
    return await wait_for_end(view, job_id, tenant, wait) or job


async def wait_for_end(view: JobView, job_id: str, tenant: str, seconds: float) -> Job | None:
    """A job as it stands at its end, or after so many seconds; None when it is not known by then, or not any more."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        job = await view.get_job(job_id, tenant=tenant)
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or (job is not None and job.status in TERMINAL):
            return job
        await asyncio.sleep(min(_LOOK_SECONDS, left))
