"""The lanes at work: starts jobs when they may start, and runs them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.core import snapshots
from headrace.core.lanes import Lanes
from headrace.core.lease import Moment
from headrace.core.timestamps import parse_timestamp
from headrace.engine.attempts import Attempts
from headrace.engine.cancelling import Cancelling
from headrace.engine.closing import Closing
from headrace.engine.control import WorkerControl
from headrace.engine.endings import Endings
from headrace.engine.execution import Execution
from headrace.engine.journal import Journal
from headrace.engine.limiting import Limiting
from headrace.engine.means import Means
from headrace.engine.outcomes import Outcomes
from headrace.engine.partition import LEFT_AS_THEY_ARE, OwnedPartition, Phase, Statistics, Work
from headrace.engine.progress import ProgressReports
from headrace.engine.rests import Rests
from headrace.engine.running import Running
from headrace.engine.states import State
from headrace.errors import EngineStuck, LeaseLost
from headrace.job_context import JobServices
from headrace.ports import LogWriter

_SETTLE_SECONDS = 5.0
_CANCEL_SECONDS = 1.0
_AGAIN_SECONDS = 1.0


class Dispatcher:
    """Runs the jobs of one worker, from all its partitions.

    A job's life here: `waiting` in a lane -> `starting` (its `running` snapshot is under way) -> `running` -> `ending` (its last
    snapshot is under way) -> gone, or `telling` first if it may be asked for again; or `interrupted` (its `queued` snapshot is
    under way) -> `resting` until its next attempt is due -> `waiting`. Only an acknowledgement moves a job on.

    Args:
        claim_lost: called when nothing more may be written about a partition.
        clock: by which jobs wait for their next attempt.
        chance: any number from 0 up to, not including, 1, anew with each call.
        control: what was asked of the worker.
        give_up: called with a job that took too many processes with it, which is to be made a dead letter, and then refused.
        means: what executing attempts needs.
        ended_keys: by whom and where it is written which jobs have ended that may be asked for again.

    Attributes:
        cancelling: ends the jobs that somebody has cancelled.
        limiting: holds back jobs that may not start yet; None where the worker has no rate limit.
    """

    def __init__(
        self,
        worker: AbstractWorker[Any],
        slots: int,
        services: JobServices,
        journal: tuple[LogWriter, str],
        claim_lost: Callable[[OwnedPartition, Exception], None],
        clock: Callable[[], Moment],
        chance: Callable[[], float],
        control: WorkerControl,
        give_up: Callable[[Work], None],
        means: Means,
        ended_keys: tuple[LogWriter, str],
    ) -> None:
        self._worker, self.worker_name = worker, worker.name
        self._services = services
        guard = means.guard
        self._reports = ProgressReports(services.now, self._note_progress, guard)
        self._stuck = means.stuck
        means = replace(means, stuck=self._is_stuck)
        self._execution = Execution(worker, replace(services, report=self._reports.report), self._over, means)
        self._lanes: Lanes[Work] = Lanes(slots)
        self._claim_lost = claim_lost
        self._rests = Rests(clock, self._start_again, guard)
        self._journal = Journal(*journal, self._acknowledged, self._reports.acknowledged, claim_lost, guard)
        self._outcomes = Outcomes(worker, self._journal, services.now, chance, give_up, means.most_deaths)
        self._now = self._outcomes.now
        self.cancelling = Cancelling(control, self._withdraw, self._rests, self._stop, self._outcomes.end_as_cancelled)
        limit = worker.rate_limit
        self.limiting = None if limit is None else Limiting(limit, self._lanes, clock, self._schedule, guard)
        self._scheduled = False
        self._start_soon = guard(self._start_all)
        self._open = True
        self._paused = False
        self._draining = False
        self._held: list[Work] = []
        self._attempts = Attempts(self._execution.run, self._may_go_on, guard)
        self._running = Running(self._execution.is_stuck)
        self.progressed = asyncio.Event()
        self.endings = Endings(*ended_keys, services.now, claim_lost, self.progressed, guard)
        self.statistics = Statistics()

    @property
    def waiting(self) -> int:
        """How many jobs wait for their start, those among them whose time has not come."""
        return len(self._lanes) + len(self._rests) + (0 if self.limiting is None else len(self.limiting))

    @property
    def running(self) -> int:
        """How many attempts run, or begin when their start is acknowledged."""
        return len(self._running)

    @property
    def unacknowledged(self) -> bool:
        """Whether snapshots are under way."""
        return self._journal.is_busy

    def admit(self, work: Work) -> None:
        """Takes in a job; those of one lane in the order of the log."""
        work.partition.hold(work)
        if work.original is not None:
            self._execution.isolate(work)
        if self.cancelling.standing and self.cancelling.concerns(work):
            work.lane = None  # it waits for nobody
            self._outcomes.end_as_cancelled(work)
        elif work.acknowledged is not None and (seconds := self._seconds_left(work)) > 0 and self._lanes.reserve(work):
            self._rests.add(work, seconds)
        elif work.original is not None and self._outcomes.took_too_many(work) and self._lanes.reserve(work):
            self._outcomes.refuse_poison(work)
        else:
            self._add(work)
        if not self.statistics.fetched:
            self.statistics.first_fetched_at = time.perf_counter()
        self.statistics.fetched += 1
        self._schedule()

    def _add(self, work: Work) -> None:
        if not self._lanes.add(work):
            work.partition.held_back += 1

    def _leave_lane(self, work: Work) -> None:
        if (follower := self._lanes.leave_lane(work)) is not None:
            follower.partition.held_back -= 1

    def refuse(self, work: Work, error: dict[str, Any]) -> None:
        """Writes a job as failed that cannot be started. It waits for nobody; if it has its lane, it keeps that until then."""
        work.partition.hold(work)
        self._outcomes.refuse(work, error)

    def pause(self, paused: bool) -> None:
        """Whether the worker is paused: nothing starts, what runs goes on, and jobs are taken in as far as there is room."""
        self._paused = paused
        if not paused:
            self._schedule()

    def suspend(self) -> None:
        """Until `resume`, nothing starts; what runs goes on. So it is while a group deals out its partitions anew."""
        self._open = False

    def resume(self) -> None:
        """Jobs may start again, those first whose start was acknowledged meanwhile."""
        if not self._draining:
            self._open = True
            self._run_held()
            self._schedule()

    def _run_held(self) -> None:
        held, self._held = self._held, []
        for work in held:
            if self._may_go_on(work.partition):
                self._run(work)

    def hand_over(self, partition: OwnedPartition, *, interrupting: bool = True) -> None:
        """Starts nothing more of a partition, which is vacated when nothing of it is left in hand.

        Args:
            interrupting: whether what runs, or is about to, is stopped, and what only waits for its entry in `ended-keys` left to
                the next owner. Otherwise both go on to their ends.
        """
        self._forget_waiting(partition)
        acknowledged = [work for work in self._held if work.partition is partition]
        self._held = [work for work in self._held if work.partition is not partition]
        partition.leaving = True
        for work in list(partition.works.values()):
            if work.phase is Phase.RUNNING or work.phase is Phase.STARTING:
                if interrupting:
                    self._stop(work)
            elif work.phase is Phase.RESTING or work.phase is Phase.REFUSED:
                self._leave_lane(work)
            if work.phase in LEFT_AS_THEY_ARE and (interrupting or work.phase is not Phase.TELLING):
                partition.leave_to_others(work)
        for work in acknowledged:
            self._never_ran(work)
        partition.leave()

    def drop(self, partition: OwnedPartition) -> list[asyncio.Task[Any]]:
        """Forgets a partition that is lost, and stops its attempts: returns those that are being stopped."""
        partition.live = False
        self._forget_waiting(partition)
        stopped = []
        for work in list(partition.works.values()):
            if work.phase is Phase.STARTING:
                self._lanes.free_slot()
                self._running.remove(work)
            elif work.phase is Phase.RUNNING:
                task = work.task
                self._stop(work)
                if task is not None:
                    stopped.append(task)
            if work.phase is not Phase.WAITING and work.phase is not Phase.RUNNING:
                self._leave_lane(work)
        stopped += [work.task for work in partition.runaways if work.task is not None]
        partition.works.clear()
        self._held = [work for work in self._held if work.partition is not partition]
        self._schedule()
        return stopped

    def wind_up(self) -> None:
        """Starts nothing more, for good; what runs goes on, and what is written down as running begins."""
        self._open, self._draining = False, True
        self._rests.stop()
        if self.limiting is not None:
            self.limiting.stop()
        self._run_held()

    async def quiet(self, seconds: float) -> None:
        """Waits until no attempt runs, and then until what was written is acknowledged, but for neither any longer."""
        await self._running.wait(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._journal.settled()
                await self.endings.settled()

    async def drain(self, seconds: float, closing: Closing, away: Callable[[], bool]) -> bool:
        """Starts nothing more, lets running attempts go on for so long, then interrupts them, and waits for their records.

        Args:
            away: see `Running.wait_while`.

        Returns False when an attempt would not stop: a plain function in a thread.
        """
        self.wind_up()
        await self._running.wait_while(seconds, away)
        for work in self._running.in_order():
            self._stop(work)
        await self._running.wait(_CANCEL_SECONDS)
        self._write_off()
        with closing.step(_SETTLE_SECONDS) as most, contextlib.suppress(TimeoutError):
            # The brokers may be away: then what was written last is void, and the next owner runs those jobs again.
            async with asyncio.timeout(most):
                await self._journal.settled()
                await self.endings.settled()
        return not self._running

    def _is_stuck(self, error: EngineStuck) -> None:
        self._running.look()
        self._stuck(error)

    def _write_off(self) -> None:
        """Attempts that took too long and cannot be stopped end with the process: that they failed is the last thing it writes.

        Their partitions are kept. Whoever sees the process end releases them, or else the leases lapse; the next attempt begins
        elsewhere after that.
        """
        for work in self._running.in_order():
            late_after = self._execution.overrun(work)
            if late_after is not None and work.partition.live and work not in work.partition.runaways:
                work.partition.runaways.add(work)
                error = EngineStuck("It could not be stopped, and ended with the process of its engine.")
                self._write_down(work, None, error, late_after)

    def _stop(self, work: Work) -> None:
        work.stopped = True
        if work.phase is Phase.STARTING:
            self._running.remove(work)  # nobody waits for the acknowledgement of what will not begin
        elif work.task is not None:
            work.task.cancel()
        elif self._attempts.withdraw(work):
            self._over(work, None, asyncio.CancelledError())

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start_soon)

    def _start_all(self) -> None:
        self._scheduled = False
        if not self._open or self._paused:
            return
        now = self._now()
        write, limiting = self._journal.write, self.limiting
        while (work := self._lanes.take()) is not None:
            if limiting is not None and not limiting.may_start(work):
                continue
            work.phase = Phase.STARTING
            self._running.add(work)
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
            elif work.cancelled:
                self._outcomes.end_as_cancelled(work)
            elif self._draining or partition.leaving:
                self._leave_lane(work)
                partition.leave_to_others(work)
            elif work.original is not None and self._outcomes.took_too_many(work):
                self._outcomes.refuse_poison(work)
            else:
                self._rests.add(work, self._seconds_left(work) if "runAt" in work.state.fields else _AGAIN_SECONDS)
        self.statistics.last_ended_at = time.perf_counter()
        self.progressed.set()

    def _may_go_on(self, partition: OwnedPartition) -> bool:
        """Rules H2 and F3: what is acknowledged after the lease counts for nothing, and starts nothing."""
        if partition.live and not partition.is_held():
            self._claim_lost(partition, LeaseLost("its lease was not renewed in time"))
        return partition.live

    def _run(self, work: Work) -> None:
        if work.cancelled or work.stopped:
            self._never_ran(work)
        elif not (self._open or self._draining):
            self._held.append(work)
        else:
            work.phase = Phase.RUNNING
            self._attempts.start(work)

    def _never_ran(self, work: Work) -> None:
        """The start was acknowledged when nothing was to start any more: the attempt is over before it began."""
        self._lanes.free_slot()
        self._running.remove(work)
        self._schedule()
        self._outcomes.interrupt(work)

    def _over(self, work: Work, result: Any, error: BaseException | None) -> None:
        late_after = self._execution.late_after(work)
        self._lanes.free_slot()
        self._running.remove(work)
        self._schedule()
        if work.partition.runaways and work.partition.has_stopped(work):
            return  # what came of it is written
        self._write_down(work, result, error, late_after)

    def _write_down(self, work: Work, result: Any, error: BaseException | None, late_after: float | None) -> None:
        unsaid = self._reports.end(work) if self._reports.told else None
        if not work.partition.live:
            self._leave_lane(work)  # a lost partition's outcome is void
            return
        if unsaid is not None:
            work.state = State({**work.state.fields, "progress": unsaid})
        self._outcomes.write(work, result, error, late_after)

    def _withdraw(self, work: Work) -> bool:
        return (self.limiting is not None and self.limiting.remove(work)) or self._lanes.remove(work)

    def _forget_waiting(self, partition: OwnedPartition) -> None:
        self._lanes.drop(lambda work: work.partition is partition)
        self._rests.forget(partition)
        if self.limiting is not None:
            self.limiting.forget(partition)

    def _start_again(self, work: Work) -> None:
        """A job whose time has come runs again, here and before the others of its key."""
        if work.phase is Phase.RESTING and work.partition.live and not work.partition.leaving and not self._draining:
            work.phase = Phase.WAITING
            self._lanes.put_back(work)
            self._schedule()

    def _seconds_left(self, work: Work) -> float:
        """How long it is, by the time of day, until the next attempt of a job is due; 0 for one that waits for no time."""
        due = work.state.fields.get("runAt")
        return 0.0 if due is None else (parse_timestamp(due) - self._services.now()) / 1000

    def _note_progress(self, work: Work, progress: Mapping[str, Any]) -> None:
        self._journal.note(work, State(snapshots.progressed(work.state.fields, progress, self._now())))

    def _ended(self, work: Work) -> None:
        if work.digest is None:
            work.partition.let_go(work.offset)
        self.statistics.ended += 1
        if self.cancelling.standing:
            self.cancelling.ended(work)
        if work.lane is not None:
            self._leave_lane(work)
            self._schedule()
        if work.digest is not None:
            self.endings.write(work)
