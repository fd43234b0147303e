"""The lanes at work: starts jobs when they may start, runs them, and writes down what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from headrace.core import snapshots
from headrace.core.lanes import Lanes
from headrace.core.timestamps import format_timestamp
from headrace.engine.admission import job_of
from headrace.engine.attempts import Attempts
from headrace.engine.journal import Journal
from headrace.engine.outcome import describe_error, encode_result
from headrace.engine.partition import LEFT_AS_THEY_ARE, OwnedPartition, Phase, Statistics, Work
from headrace.engine.states import State
from headrace.errors import BrokerUnreachable, JobFailed, LeaseLost
from headrace.ports import LogWriter
from headrace.worker import AbstractWorker, JobContext, JobServices

_logger = logging.getLogger(__name__)

_SETTLE_SECONDS = 5.0
_CANCEL_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
_MOST_OUTAGES = 60


class Dispatcher:
    """Runs the jobs of one worker, from all its partitions.

    A job's life here: `waiting` in a lane -> `starting` (its `running` snapshot is under way) -> `running` -> `ending` (its last
    snapshot is under way) -> gone. Only an acknowledgement moves a job on.

    Args:
        claim_lost: called when nothing more may be written about a partition.
    """

    def __init__(
        self,
        worker: AbstractWorker[Any],
        slots: int,
        services: JobServices,
        journal: tuple[LogWriter, str],
        claim_lost: Callable[[OwnedPartition, Exception], None],
    ) -> None:
        self._worker = worker
        # A Job is made for those alone who look at it.
        self._overridden = type(worker).process_job is not AbstractWorker.process_job
        # What `process_job` does with a coroutine function, without a coroutine around it.
        self._in_loop = worker._runs_in_loop
        self._services = services
        self._lanes: Lanes[Work] = Lanes(slots)
        self._claim_lost = claim_lost
        self._journal = Journal(*journal, self._acknowledged, claim_lost)
        self._scheduled = False
        self._open = True
        self._draining = False
        self._held: list[Work] = []
        self._attempts = Attempts(self._attempt)
        self._running: set[Work] = set()
        self._none_runs = asyncio.Event()
        self._clock = (0, "")
        self.progressed = asyncio.Event()
        self.statistics = Statistics()

    @property
    def worker_name(self) -> str:
        """Name of the worker whose jobs it runs."""
        return self._worker.name

    def covers(self, state_partition: int) -> int:
        """One past the last offset of a partition of `job-state` whose acknowledgement has come back here; 0 before the first."""
        return self._journal.covers.get(state_partition, 0)

    @property
    def waiting(self) -> int:
        """How many jobs wait for their start."""
        return len(self._lanes)

    @property
    def running(self) -> int:
        """How many attempts run."""
        return len(self._running)

    def admit(self, work: Work) -> None:
        """Takes in a job; those of one lane in the order of the log."""
        work.partition.hold(work)
        self._lanes.add(work)
        if not self.statistics.fetched:
            self.statistics.first_fetched_at = time.perf_counter()
        self.statistics.fetched += 1
        self._schedule()

    def refuse(self, work: Work, error: dict[str, Any]) -> None:
        """Writes a job as failed that cannot be started. It waits for nobody."""
        work.lane = None
        work.phase = Phase.ENDING
        work.partition.hold(work)
        refused = snapshots.refused(work.state.fields, work.partition.writer, error, self._now())
        self._journal.write(work, State(refused))

    def suspend(self) -> None:
        """Until `resume`, nothing starts; what runs goes on. So it is while a group deals out its partitions anew."""
        self._open = False

    def resume(self) -> None:
        """Jobs may start again, those first whose start was acknowledged meanwhile."""
        if self._draining:
            return
        self._open = True
        held, self._held = self._held, []
        for work in held:
            if self._may_go_on(work.partition):
                self._run(work)
        self._schedule()

    def hand_over(self, partition: OwnedPartition) -> None:
        """Starts nothing more of a partition, and interrupts what runs. It is vacated when nothing of it is left in hand."""
        self._lanes.drop(lambda work: work.partition is partition)
        acknowledged = [work for work in self._held if work.partition is partition]
        self._held = [work for work in self._held if work.partition is not partition]
        partition.leaving = True
        for work in list(partition.works.values()):
            if work.phase is Phase.RUNNING:
                self._stop(work)
            elif work.phase is Phase.RESTING:
                self._lanes.leave_lane(work)
            if work.phase in LEFT_AS_THEY_ARE:
                partition.leave_to_others(work)
        for work in acknowledged:
            self._never_ran(work)
        partition.leave()

    def drop(self, partition: OwnedPartition) -> list[asyncio.Task[Any]]:
        """Forgets a partition that is lost, and stops its attempts: returns those that are being stopped."""
        partition.live = False
        self._lanes.drop(lambda work: work.partition is partition)
        stopped = []
        for work in list(partition.works.values()):
            if work.phase is Phase.STARTING:
                self._lanes.free_slot()
            elif work.phase is Phase.RUNNING:
                task = work.task
                self._stop(work)
                if task is not None:
                    stopped.append(task)
            if work.phase is not Phase.WAITING and work.phase is not Phase.RUNNING:
                self._lanes.leave_lane(work)
        partition.works.clear()
        self._held = [work for work in self._held if work.partition is not partition]
        self._schedule()
        return stopped

    async def drain(self, seconds: float) -> bool:
        """Lets running attempts go on for so long, then interrupts them, and waits for their records.

        Returns False when an attempt would not stop: a plain function in a thread.
        """
        self._open = False
        self._draining = True
        held, self._held = self._held, []
        for work in held:
            self._never_ran(work)
        await self._wait_for_attempts(seconds)
        for work in sorted(self._running, key=lambda work: (work.partition.source, work.offset)):
            self._stop(work)
        await self._wait_for_attempts(_CANCEL_SECONDS)
        with contextlib.suppress(TimeoutError):
            # The brokers may be away: then what was written last is void, and the next owner runs those jobs again.
            await asyncio.wait_for(self._journal.settled(), _SETTLE_SECONDS)
        return not self._running

    async def _wait_for_attempts(self, seconds: float) -> None:
        self._none_runs.clear()
        if self._running and seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_runs.wait(), seconds)

    def _stop(self, work: Work) -> None:
        work.stopped = True
        if work.task is not None:
            work.task.cancel()
        elif self._attempts.withdraw(work):
            self._over(work, None, asyncio.CancelledError())

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start_all)

    def _start_all(self) -> None:
        self._scheduled = False
        if not self._open:
            return
        now = self._now()
        write = self._journal.write
        while (work := self._lanes.take()) is not None:
            work.phase = Phase.STARTING
            write(work, work.state.begin(work.partition.writer, now))

    def _acknowledged(self, works: list[Work]) -> None:
        checked: OwnedPartition | None = None
        for work in works:
            partition = work.partition
            if partition is not checked:
                checked = partition
                self._may_go_on(partition)
            if not partition.live:
                continue
            work.acknowledged = work.state
            if work.phase is Phase.STARTING:
                self._run(work)
            elif work.phase is Phase.ENDING:
                self._ended(work)
            elif self._draining or partition.leaving:
                self._lanes.leave_lane(work)
                partition.leave_to_others(work)
            else:
                work.phase = Phase.RESTING
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._start_again, work)
        self.statistics.last_ended_at = time.perf_counter()
        self.progressed.set()

    def _may_go_on(self, partition: OwnedPartition) -> bool:
        """Rules H2 and F3: what is acknowledged after the lease counts for nothing, and starts nothing."""
        if partition.live and not partition.is_held():
            self._claim_lost(partition, LeaseLost("its lease was not renewed in time"))
        return partition.live

    def _run(self, work: Work) -> None:
        if self._draining or work.partition.leaving:
            self._never_ran(work)
            return
        if not self._open:
            self._held.append(work)
            return
        work.phase = Phase.RUNNING
        self._running.add(work)
        self._attempts.start(work)

    def _context(self, work: Work) -> JobContext:
        number = work.state.fields["attempt"]
        token = (work.partition.writer.epoch, number)
        ctx = JobContext(partial(job_of, work), attempt=number, services=self._services, fencing_token=token)
        ctx._arguments = work.arguments
        return ctx

    async def _attempt(self, work: Work) -> None:
        """Runs a job to its end. What it raises is written down, also an attempt to end the process: it costs that job alone."""
        result: Any = None
        error: BaseException | None = None
        try:
            ctx = self._context(work)
            if self._overridden:
                result = await self._worker.process_job(ctx.job, ctx)
            elif self._in_loop:
                result = await self._worker.run(work.arguments, ctx)
            else:
                result = await self._worker._process(ctx)
        except asyncio.CancelledError as cancelled:
            error = JobFailed(f"The worker cancelled its own job: {cancelled!r}.")
        except (SystemExit, KeyboardInterrupt) as ending:
            error = JobFailed(f"The worker tried to end the process: {ending!r}.")
        except GeneratorExit:
            raise  # the event loop is closed, and nothing can be written any more
        except BaseException as raised:
            error = raised
        self._over(work, result, error)

    def _never_ran(self, work: Work) -> None:
        """The start was acknowledged when nothing was to start any more: the attempt is over before it began."""
        self._lanes.free_slot()
        self._schedule()
        self._interrupt(work)

    def _over(self, work: Work, result: Any, error: BaseException | None) -> None:
        self._lanes.free_slot()
        self._running.discard(work)
        if not self._running:
            self._none_runs.set()
        self._schedule()
        if not work.partition.live:
            self._lanes.leave_lane(work)  # a lost partition's outcome is void
        elif error is not None and (work.stopped or _is_outage(error, work)):
            # Whatever it raised on its way out, it was the engine that stopped it, or a broker that was away: no failure.
            self._interrupt(work)
        else:
            work.phase = Phase.ENDING
            self._journal.write(work, self._outcome(work, result, error))

    def _outcome(self, work: Work, result: Any, error: BaseException | None) -> State:
        if error is None:
            if result is None:
                return work.state.complete(self._now())
            try:
                return State(snapshots.completed(work.state.fields, encode_result(result), self._now()))
            except JobFailed as failure:
                error = failure
        described = describe_error(error)
        _logger.warning(
            "job %s of %s failed: %s: %s", work.record["id"], self._worker.name, described["type"], described["message"]
        )
        return State(snapshots.failed(work.state.fields, described, self._now()))

    def _interrupt(self, work: Work) -> None:
        work.phase = Phase.INTERRUPTED
        self._journal.write(work, State(snapshots.interrupted(work.state.fields, self._now())))

    def _start_again(self, work: Work) -> None:
        """What a broker that was away has interrupted runs again, here and before the others of its key."""
        if work.phase is Phase.RESTING and work.partition.live and not work.partition.leaving and not self._draining:
            work.phase = Phase.WAITING
            self._lanes.put_back(work)
            self._schedule()

    def _ended(self, work: Work) -> None:
        work.partition.let_go(work.offset)
        self.statistics.ended += 1
        if work.lane is not None:
            self._lanes.leave_lane(work)
            self._schedule()

    def _now(self) -> str:
        """The time as it is written; made anew once a millisecond."""
        now = self._services.now()
        if now != self._clock[0]:
            self._clock = (now, format_timestamp(now))
        return self._clock[1]


def _is_outage(error: BaseException, work: Work) -> bool:
    """Whether a broker that was away ended the attempt; not again and again: a worker may ask a broker that never comes."""
    return isinstance(error, BrokerUnreachable) and work.state.fields["attempt"] < _MOST_OUTAGES
