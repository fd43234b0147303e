"""How what came of a job when it was run again compares with what was recorded: one place, for all kinds of replay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from headrace.core.status import JobStatus

SLOWER_FACTOR: Final = 2.0
SLOWER_SECONDS: Final = 0.1
"""A replay is slower where it took more than twice as long as what was recorded, and more than so many seconds in all."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the final attempt of a job.

    Attributes:
        result: as JSON has it, decoded.
        error_type, error_message: of why it failed; None where it did not.
        seconds: how long it took; None where that is not known.
    """

    status: JobStatus
    result: Any = None
    error_type: str | None = None
    error_message: str | None = None
    seconds: float | None = None


class Verdict(StrEnum):
    """How a replay compares with what was recorded.

    `not_comparable`: what was recorded is not what the worker's code made of the job (it was cancelled, or its process died), it
    had not ended, or today's code asks for what was not recorded.
    """

    SAME = "same"
    DIFFERENT = "different"
    NEWLY_FAILING = "newly-failing"
    NEWLY_FIXED = "newly-fixed"
    ARGUMENTS_REFUSED = "arguments-refused"
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verdict, and whether the replay was slower; that is told where both ended with the same status.

    Attributes:
        reason: why it cannot be compared, where what was recorded does not tell that.
    """

    verdict: Verdict
    slower: bool = False
    reason: str = ""


def compare(recorded: Outcome | None, replayed: Outcome) -> Comparison:
    """Compares status, result, and type and message of the error, of the final attempt.

    Args:
        recorded: None where the job had not ended.
    """
    if recorded is None or not can_be_compared(recorded.status, recorded.error_type) or replayed.status not in _COMPARABLE:
        return Comparison(Verdict.NOT_COMPARABLE)
    # What fails early and what goes on to its end are not the same work.
    slower = recorded.status is replayed.status and is_slower(recorded.seconds, replayed.seconds)
    return Comparison(_verdict(recorded, replayed), slower)


def can_be_compared(status: str, error_type: str | None) -> bool:
    """Whether a job was ended by what its worker's code made of it: else nothing that the code makes of it now says anything."""
    return status in _COMPARABLE and error_type not in NOT_OF_THE_CODE


_OUTAGES: Final = frozenset(
    f"headrace.errors.{name}" for name in ("BrokerError", "BrokerUnreachable", "AppendTimeout", "EnqueueTimeout")
)

NOT_OF_THE_CODE: Final = frozenset({"headrace.errors.WorkerProcessDied", "poison", "undecodable", "worker_unknown"}) | _OUTAGES
"""Types of errors by which a job failed that say nothing of what its worker's code makes of it."""

_COMPARABLE: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


def _verdict(recorded: Outcome, replayed: Outcome) -> Verdict:
    if recorded.status != replayed.status:
        return Verdict.NEWLY_FAILING if replayed.status == JobStatus.FAILED else Verdict.NEWLY_FIXED
    same_error = (recorded.error_type, recorded.error_message) == (replayed.error_type, replayed.error_message)
    return Verdict.SAME if same_error and is_same_json(recorded.result, replayed.result) else Verdict.DIFFERENT


def is_slower(recorded: float | None, replayed: float | None) -> bool:
    """Whether the second took more than `SLOWER_FACTOR` times as long as the first, and more than `SLOWER_SECONDS`."""
    if recorded is None or replayed is None:
        return False
    return replayed > SLOWER_FACTOR * recorded and replayed > SLOWER_SECONDS


def is_same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same as JSON: an object's names have no order, 1 is 1.0, and true is no number."""
    # No call inside of a call: what somebody wrote may be nested deeper than Python's calls may be.
    pending = [(one, other)]
    while pending:
        one, other = pending.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pending += [(value, other[name]) for name, value in one.items()]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pending += zip(one, other, strict=True)
        elif not _is_same_scalar(one, other):
            return False
    return True


def _is_same_scalar(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and bool(one == other)
