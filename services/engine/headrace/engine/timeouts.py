"""Attempts that may not take longer than a given time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from headrace.engine.means import Means
from headrace.engine.partition import Work
from headrace.errors import EngineStuck

_logger = logging.getLogger(__name__)

_STUBBORN_SECONDS = 10.0


@dataclass(slots=True)
class _Limit:
    seconds: float
    cancels: bool
    timer: asyncio.TimerHandle
    passed: bool = False
    is_stuck: bool = False


class Timeouts:
    """The limits of those attempts of one worker that have one.

    Args:
        worker_name: for what is logged.
        means: how long an attempt may go on all the same, and who is told then.

    Attributes:
        limits: of the attempts that run; empty where neither the worker nor a job has a timeout.
    """

    def __init__(self, worker_name: str, means: Means) -> None:
        self._worker_name = worker_name
        self._means = means
        self._pass_soon = means.guard(self._pass)
        self._report_soon = means.guard(self._report)
        self._give_up = means.guard(self._is_stuck)
        self.limits: dict[Work, _Limit] = {}

    def begin(self, work: Work, seconds: float, *, cancels: bool) -> None:
        """An attempt begins that may take so long.

        Args:
            cancels: whether it is cancelled then. One in a thread cannot be stopped: it is reported, and keeps its slot, its key
                and its partition until it ends.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._pass_soon, work)
        self.limits[work] = _Limit(seconds, cancels, timer)

    def overrun(self, work: Work) -> float | None:
        """The seconds that a running attempt should have taken at most, if it takes more; asked from any thread."""
        limit = self.limits.get(work)
        return limit.seconds if limit is not None and limit.passed else None

    def is_stuck(self, work: Work) -> bool:
        """Whether a running attempt was reported as one that only the end of the process ends."""
        limit = self.limits.get(work)
        return limit is not None and limit.is_stuck

    def end(self, work: Work) -> float | None:
        """An attempt is over: the seconds that it should have taken at most, if it took more."""
        limit = self.limits.pop(work, None)
        if limit is None:
            return None
        limit.timer.cancel()
        return limit.seconds if limit.passed else None

    def _pass(self, work: Work) -> None:
        limit = self.limits[work]
        if work.stopped:
            # It is being interrupted, which is no failure. Should it not end by that, nothing else would ever end it.
            limit.timer = asyncio.get_running_loop().call_later(self._means.stuck_seconds, self._give_up, work, limit)
            return
        limit.passed = True
        number = work.state.fields["attempt"]
        if limit.cancels and work.task is not None:
            work.task.cancel()
            limit.timer = asyncio.get_running_loop().call_later(_STUBBORN_SECONDS, self._report_soon, work, limit)
        else:
            _logger.warning(
                "attempt %d of job %s of %s takes longer than %g s, and cannot be stopped: it keeps its slot until it ends",
                *(number, work.record["id"], self._worker_name, limit.seconds),
            )
            limit.timer = asyncio.get_running_loop().call_later(self._means.stuck_seconds, self._give_up, work, limit)

    def _report(self, work: Work, limit: _Limit) -> None:
        _logger.warning(
            "attempt %d of job %s of %s was cancelled after %g s, and goes on all the same: it keeps its slot until it ends",
            *(work.state.fields["attempt"], work.record["id"], self._worker_name, limit.seconds),
        )
        seconds = max(self._means.stuck_seconds - _STUBBORN_SECONDS, 0.0)
        limit.timer = asyncio.get_running_loop().call_later(seconds, self._give_up, work, limit)

    def _is_stuck(self, work: Work, limit: _Limit) -> None:
        limit.is_stuck = True
        number, job_id = work.state.fields["attempt"], work.record["id"]
        self._means.stuck(
            EngineStuck(
                f"Attempt {number} of job {job_id} of {self._worker_name} should have taken {limit.seconds:g} s at most, and goes"
                f" on {self._means.stuck_seconds:g} s later: the engine ends, so that the job can run elsewhere."
            )
        )
