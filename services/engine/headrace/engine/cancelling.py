"""Ends the jobs that somebody has cancelled, wherever they stand.

One that waits ends at once and never starts. One that starts in the same moment, and one that is being interrupted, ends when
its record is acknowledged, without another start. One that runs is stopped; whatever it then returns or raises, it was
cancelled. One whose last record is under way has ended before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headrace.core.control import Cancellation
from headrace.core.records import cancellation_key
from headrace.engine.control import WorkerControl
from headrace.engine.partition import OwnedPartition, Phase, Work
from headrace.engine.rests import Rests
from headrace.models import DEFAULT_TENANT

_logger = logging.getLogger(__name__)

_STUBBORN_SECONDS = 10.0


class Cancelling:
    """The cancellations of one worker's jobs.

    Args:
        control: what stands for the worker.
        withdraw: has a job that waits start no more; tells whether it has its lane, which it then keeps.
        stop: stops an attempt that runs.
        end: writes down that a job of which nothing runs was cancelled.

    Attributes:
        standing: the requests whose jobs have not ended, by key. It is empty as a rule, and looked at for every job.
    """

    def __init__(
        self,
        control: WorkerControl,
        withdraw: Callable[[Work], bool],
        rests: Rests,
        stop: Callable[[Work], None],
        end: Callable[[Work], None],
    ) -> None:
        self.standing = control.cancellations
        self._settle = control.settle
        self._withdraw = withdraw
        self._rests = rests
        self._stop = stop
        self._end = end

    def concerns(self, work: Work) -> bool:
        """Whether somebody wants this job cancelled; whoever asks has looked whether anything stands at all.

        A later record with the same id, of a request that was made again after its window, is another job.
        """
        standing = self.standing.get(_key_of(work))
        return standing is not None and (standing.partition != work.partition.source.partition or work.offset <= standing.offset)

    def ended(self, work: Work) -> None:
        """The end of a job is acknowledged: the request goes, if there is one."""
        if self.concerns(work):
            self._settle(_key_of(work))

    def settle_ended(self, partition: OwnedPartition) -> None:
        """What was asked for jobs of a partition that have ended goes: they ended first, or their engine did."""
        for cancellation in list(self.standing.values()):
            if cancellation.partition == partition.source.partition and partition.has_ended(cancellation.offset):
                self._settle(cancellation.key)

    def take(self, partition: OwnedPartition, cancellation: Cancellation) -> None:
        """Somebody wants a job of a partition cancelled. One that was not fetched yet ends when it is admitted."""
        if (work := _find(partition, cancellation)) is not None:
            self.cancel(work)
        elif partition.has_ended(cancellation.offset):
            self._settle(cancellation.key)

    def cancel(self, work: Work) -> None:
        """Ends a job, or sees to it that it ends soon. To repeat it changes nothing."""
        if work.phase is Phase.TELLING:
            # It has ended, and its end is acknowledged: the request came too late, and nobody else would settle it.
            self.ended(work)
        if work.cancelled or work.phase in (Phase.ENDING, Phase.REFUSED, Phase.TELLING):
            return
        work.cancelled = True
        if work.phase is Phase.WAITING:
            if not self._withdraw(work):
                work.partition.held_back -= 1
                work.lane = None
            self._end(work)
        elif work.phase is Phase.RESTING:
            self._rests.remove(work)
            self._end(work)
        elif work.phase is Phase.RUNNING:
            asyncio.get_running_loop().call_later(_STUBBORN_SECONDS, self._report, work)
            if not work.stopped:  # another cancellation would meet it while it tidies up
                self._stop(work)

    def _report(self, work: Work) -> None:
        if work.phase is Phase.RUNNING and work.partition.live:
            _logger.warning(
                "attempt %d of job %s of %s was cancelled %g s ago, and goes on all the same: it keeps its slot until it ends",
                *(work.state.fields["attempt"], work.record["id"], work.record["workerName"], _STUBBORN_SECONDS),
            )


def _key_of(work: Work) -> bytes:
    return cancellation_key(work.record.get("tenant", DEFAULT_TENANT), work.record["id"])


def _find(partition: OwnedPartition, cancellation: Cancellation) -> Work | None:
    """The job in hand that is meant: as a rule where the request says; one that was written twice may stand elsewhere."""
    work = partition.works.get(cancellation.offset)
    candidates = partition.works.values() if work is None else [work, *partition.works.values()]
    job_id = cancellation.job_id.encode()
    return next((each for each in candidates if each.key == job_id and _key_of(each) == cancellation.key), None)
