"""Decides what follows from an attempt, and writes it down: the job's end, another attempt, or that it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.core import snapshots
from headrace.core.snapshots import MostDeaths
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp
from headrace.engine.failure import after_failure, after_resistance, why
from headrace.engine.journal import Journal
from headrace.engine.outcome import describe_error, encode_result
from headrace.engine.partition import Phase, Work
from headrace.engine.states import State
from headrace.errors import EnqueueTimeout, JobFailed, WorkerProcessDied, is_outage

# One after another: a worker may ask a broker that never comes.
_MOST_OUTAGES = 60


class Outcomes:
    """What came of the attempts of one worker.

    Args:
        journal: in which it is written.
        clock: the time of day, in milliseconds since the Unix epoch.
        chance: any number from 0 up to, not including, 1, anew with each call.
        give_up: called with a job that took too many processes with it, which is to be made a dead letter, and then refused.
        most_deaths: how much may die with one job before it is given up.
    """

    def __init__(
        self,
        worker: AbstractWorker[Any],
        journal: Journal,
        clock: Callable[[], int],
        chance: Callable[[], float],
        give_up: Callable[[Work], None],
        most_deaths: MostDeaths,
    ) -> None:
        self._worker = worker
        self._journal = journal
        self._clock = clock
        self._chance = chance
        self._give_up = give_up
        self._most_deaths = most_deaths
        self._read = (0, "")

    def now(self) -> str:
        """The time as it is written; made anew once a millisecond."""
        now = self._clock()
        if now != self._read[0]:
            self._read = (now, format_timestamp(now))
        return self._read[1]

    def write(self, work: Work, result: Any, error: BaseException | None, late_after: float | None) -> None:
        """Writes what came of an attempt of a partition that is still held.

        Args:
            result: what it returned.
            error: what it raised; None if it returned.
            late_after: seconds that it might have taken, if it took more.
        """
        if work.cancelled:
            self.end_as_cancelled(work)
        elif error is None and late_after is None:
            self._complete(work, result)
        elif late_after is None and work.stopped:
            # Whatever it raised on its way out, it was the engine that stopped it: no failure.
            self.interrupt(work)
        else:
            self._fail(work, error, late_after)

    def interrupt(self, work: Work) -> None:
        """The attempt ended for no reason of its own: the job waits for another, unless somebody has cancelled it."""
        if work.cancelled:
            self.end_as_cancelled(work)
            return
        work.phase = Phase.INTERRUPTED
        self._journal.write(work, State(snapshots.interrupted(work.state.fields, self.now())))

    def end_as_cancelled(self, work: Work) -> None:
        """Ends a job of which nothing runs."""
        work.phase = Phase.ENDING
        self._journal.write(work, State(snapshots.cancelled(work.state.fields, work.partition.writer, self.now())))

    def refuse(self, work: Work, error: dict[str, Any]) -> None:
        """Ends a job as failed that cannot be started."""
        work.phase = Phase.ENDING
        self._journal.write(work, State(snapshots.refused(work.state.fields, work.partition.writer, error, self.now())))

    def took_too_many(self, work: Work) -> bool:
        """Whether so much died with a job that it is put at nobody's side any more."""
        return snapshots.is_poison(work.state.fields, self._most_deaths)

    def refuse_poison(self, work: Work) -> None:
        """Has a job given up that took too many processes with it."""
        work.phase = Phase.REFUSED
        self._give_up(work)

    def _complete(self, work: Work, result: Any) -> None:
        if result is None:
            state = work.state.complete(self.now())
        else:
            try:
                state = State(snapshots.completed(work.state.fields, encode_result(result), self.now()))
            except JobFailed as failure:
                self._fail(work, failure, None)
                return
        work.phase = Phase.ENDING
        self._journal.write(work, state)

    def _fail(self, work: Work, error: BaseException | None, late_after: float | None) -> None:
        """Writes what follows from an exception.

        To look at it runs code of the user's own, which may raise in its turn, wherever one looks. Then the job ends by that.
        """
        try:
            state = self._after(work, error, late_after)
        except BaseException as resistance:
            state = after_resistance(work, self._worker, error, resistance, self._clock())
        work.phase = Phase.ENDING if state.fields["status"] == JobStatus.FAILED else Phase.INTERRUPTED
        self._journal.write(work, state)

    def _after(self, work: Work, error: BaseException | None, late_after: float | None) -> State:
        """How the job stands after its attempt.

        The last death that a job may cause is written like the others (rule X1): whoever has its partition then gives it up.
        """
        if late_after is None and _is_outage(error) and snapshots.outages(work.state.fields) < _MOST_OUTAGES:
            return State(snapshots.cut_short(work.state.fields, self.now()))
        cause = why(error, late_after)
        if work.original is not None and isinstance(cause, WorkerProcessDied):
            return State(snapshots.died(work.state.fields, describe_error(cause), self.now()))
        return after_failure(work, self._worker, cause, self._clock(), self._chance())


def _is_outage(error: BaseException | None) -> bool:
    """Whether an attempt ended by what it wrote or read while brokers were away. Its repetition enqueues nothing twice."""
    return isinstance(error, EnqueueTimeout) or is_outage(error)
