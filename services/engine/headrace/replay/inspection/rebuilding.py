"""What a job was in between, where compaction has removed the records: rebuilt from the history that a later snapshot carries.

A snapshot has of the last 20 attempts when each began and ended, and how. So every begin and every end can be told again, with
the engine's times in place of the log's; what an attempt said of its progress cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from headrace.core.status import JobStatus
from headrace.core.timestamps import parse_timestamp

Origin = Literal["log", "snapshot"]
"""Whether something is told by a record that is there, or rebuilt from a later one."""


class Known(NamedTuple):
    """A state of a job, and the time of it in milliseconds since the Unix epoch.

    Attributes:
        origin: of what a janitor repeated the record itself may be gone.
    """

    at: int
    state: Mapping[str, Any]
    origin: Origin = "log"


@dataclass(frozen=True, slots=True)
class StateAt:
    """How a job stood at a moment."""

    state: Mapping[str, Any]
    origin: Origin


def state_at(accepted: Mapping[str, Any], known: Sequence[Known], at: int) -> StateAt:
    """How a job stood at a moment, by what is left of its records.

    Compaction takes away the older records of a job and leaves the newer. So where any record up to the moment is left, the last
    of these is the one that counted.

    Args:
        accepted: the job as it was accepted.
        known: its valid snapshots that are left, in the order of the log; none that another one outdid.
        at: not before it was accepted.
    """
    until = [each for each in known if each.at <= at]
    if until:
        return StateAt(until[-1].state, until[-1].origin)
    if not known or not is_gap(accepted, known[0].state):
        return StateAt(accepted, "log")
    rebuilt = [each for each in rebuilt_between(accepted, known[0].state) if each.at <= at]
    return StateAt(rebuilt[-1].state if rebuilt else accepted, "snapshot")


def known_from(state: Mapping[str, Any], written_at: int, *, repeated: bool) -> Known:
    """A state that a valid record tells, whose original is not there if it is repeated.

    Args:
        written_at: the log's time of the record.
    """
    if not repeated:
        return Known(written_at, state)
    return Known(min(written_at, parse_timestamp(state["updatedAt"])), state, "snapshot")


def is_gap(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether records between two states are missing, as far as the later one tells."""
    return bool(missing_records(before, after) or rebuilt_between(before, after))


def missing_records(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """How many records between two states of one attempt are missing at least; those of other attempts are not counted."""
    first = before["sequence"] + 1 if after["attempt"] == before["attempt"] and "sequence" in before else 1
    return max(0, after["sequence"] - first) if "sequence" in after else 0


def untold_attempts(before: Mapping[str, Any], after: Mapping[str, Any]) -> range:
    """The attempts between two states of which nothing is known any more: a snapshot has the last 20."""
    attempts = after.get("attempts") or ()
    return range(before["attempt"] + 1, attempts[0]["attempt"] if attempts else after["attempt"] + 1)


def rebuilt_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Known]:
    """The begins and ends of attempts between two states, oldest first, that had records of their own."""
    found: list[Known] = []
    attempts: Sequence[Mapping[str, Any]] = after.get("attempts") or ()
    if untold_attempts(before, after) and before["attempt"] == 0 and (started := after.get("startedAt")) is not None:
        # Of the first attempt it is known when it began, however many follow.
        first = _state(before, after, {"attempt": 1, "status": "running", "startedAt": started}, ())
        found.append(Known(parse_timestamp(started), first))
    for index, attempt in enumerate(attempts):
        number, earlier = attempt["attempt"], attempts[:index]
        if number > before["attempt"] and not (number == after["attempt"] and after.get("sequence") == 1):
            begun = {name: attempt[name] for name in ("attempt", "epoch", "instanceId", "startedAt") if name in attempt}
            state = _state(before, after, {**begun, "status": "running"}, earlier)
            found.append(Known(parse_timestamp(attempt["startedAt"]), state))
        if _ended_apart(before, after, attempts, index):
            found.append(Known(parse_timestamp(attempt["finishedAt"]), _state(before, after, attempt, earlier)))
    return found


def _ended_apart(before: Mapping[str, Any], after: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]], index: int) -> bool:
    """Whether a record of its own, between the two states, told of an attempt's end."""
    attempt = attempts[index]
    ended_at = attempt.get("finishedAt")
    if ended_at is None or attempt["attempt"] < before["attempt"]:
        return False
    if attempt["attempt"] == before["attempt"] and before["status"] != JobStatus.RUNNING:
        return False
    if index + 1 < len(attempts):
        # One that its engine left running was written off when the next one began.
        return not (attempt["status"] == "interrupted" and attempts[index + 1]["startedAt"] == ended_at)
    return bool(ended_at != after.get("updatedAt"))


def _state(
    before: Mapping[str, Any], after: Mapping[str, Any], attempt: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The job when an attempt had just begun or ended; `sequence` is left out where it is not known."""
    running = attempt["status"] == "running"
    kept = {name: value for name, value in before.items() if name not in _CHANGING}
    state = {
        **kept,
        "status": JobStatus.RUNNING if running else JobStatus.QUEUED,
        "updatedAt": attempt["startedAt" if running else "finishedAt"],
        "startedAt": after.get("startedAt") or attempt["startedAt"],
        "attempt": attempt["attempt"],
        "attempts": [*earlier, attempt],
        **({"sequence": 1} if running else {}),
        **{name: attempt[name] for name in ("epoch", "instanceId") if name in attempt},
    }
    if "failures" in after:
        later = [
            each
            for each in after["attempts"]
            if each["attempt"] > attempt["attempt"] or (running and each["attempt"] == attempt["attempt"])
        ]
        state["failures"] = after["failures"] - sum(each["status"] == "failed" for each in later)
    return state


_CHANGING = frozenset({"runAt", "progress", "sequence", "epoch", "instanceId", "failures"})
