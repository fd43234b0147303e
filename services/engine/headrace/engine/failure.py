"""What follows from an attempt that failed: another attempt in a while, or the end of the job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Any, NamedTuple

import orjson

from headrace.abstract_worker import AbstractWorker
from headrace.core import snapshots
from headrace.core.retry import FOR_THOSE_WHO_ASK, RetryPolicy
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp
from headrace.engine.outcome import describe_error, encode_result, resisting, without_own_frames
from headrace.engine.partition import Work
from headrace.engine.states import State
from headrace.errors import JobFailed, JobTimeout
from headrace.models import RetryRules

_logger = logging.getLogger(__name__)


def why(error: BaseException | None, late_after: float | None) -> BaseException:
    """The failure that an attempt ended by.

    Args:
        error: what it raised; None if it returned, and too late.
        late_after: seconds that it might have taken, if it took more. Then that is what it failed by, whatever it raised.
    """
    if late_after is not None or error is None:
        timeout = JobTimeout(late_after or 0.0)
        # Where it stood when it was cancelled is what one wants to know of it.
        timeout.__cause__ = error and error.with_traceback(without_own_frames(error))
        return timeout
    if isinstance(error, asyncio.CancelledError):
        return JobFailed(f"The worker cancelled its own job: {error!r}.")
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return JobFailed(f"The worker tried to end the process: {error!r}.")
    return error


class Conclusion(NamedTuple):
    """How a job ends by its final attempt, as its snapshot has it.

    Attributes:
        result: the JSON of what it returned.
        error: why it failed; None if it did not.
        cause: the exception that this describes.
    """

    status: JobStatus
    result: orjson.Fragment | None = None
    error: dict[str, str] | None = None
    cause: BaseException | None = None


def conclude(result: Any, error: BaseException | None, late_after: float | None) -> Conclusion:
    """How a job ends by an attempt that no other follows.

    Args:
        result: what it returned.
        error: what it raised; None if it returned.
        late_after: seconds that it might have taken, if it took more.
    """
    if error is None and late_after is None:
        try:
            return Conclusion(JobStatus.COMPLETED, encode_result(result))
        except JobFailed as failure:
            error = failure
    try:
        cause = why(error, late_after)
        return Conclusion(JobStatus.FAILED, error=describe_error(cause), cause=cause)
    except BaseException as resistance:  # to look at it runs code of the user's own
        cause = resisting(error, resistance)
        return Conclusion(JobStatus.FAILED, error=describe_error(cause), cause=cause)


def after_failure(work: Work, worker: AbstractWorker[Any], error: BaseException, now: int, chance: float) -> State:
    """The state of a job whose attempt failed, by its own retry policy or its worker's.

    Args:
        now: milliseconds since the Unix epoch.
        chance: any number from 0 up to, not including, 1.
    """
    standing, described = work.state.fields, describe_error(error)
    wait = _policy(work, worker).next_wait(error, snapshots.failures(standing) + 1, chance)
    number, job_id = standing["attempt"], work.record["id"]
    if wait is None:
        _logger.warning("job %s of %s failed: %s: %s", job_id, worker.name, described["type"], described["message"])
        return State(snapshots.failed(standing, described, format_timestamp(now)))
    _logger.warning(
        "attempt %d of job %s of %s failed, and another follows in %.3g s: %s: %s",
        *(number, job_id, worker.name, wait, described["type"], described["message"]),
    )
    due = format_timestamp(now + math.ceil(wait * 1000))
    return State(snapshots.retried(standing, described, due, format_timestamp(now)))


def after_resistance(
    work: Work, worker: AbstractWorker[Any], error: BaseException | None, resistance: BaseException, now: int
) -> State:
    """The state of a job that has failed by an exception of which nothing can be told, nor whether it is worth another attempt.

    Args:
        resistance: what was raised when it was looked at.
        now: milliseconds since the Unix epoch.
    """
    failure = resisting(error, resistance)
    with contextlib.suppress(Exception):  # perhaps it was a filter or a handler of the program's own that raised
        _logger.error("job %s of %s failed: %s", work.record["id"], worker.name, failure)
    return State(snapshots.failed(work.state.fields, describe_error(failure), format_timestamp(now)))


def _policy(work: Work, worker: AbstractWorker[Any]) -> RetryPolicy:
    if (own := work.record.get("retry")) is not None:
        return RetryRules.model_validate(own).policy()
    return worker.retry or FOR_THOSE_WHO_ASK
