"""What happened from one state of a job to the next, and what changed by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from headrace.core.comparison import is_same_json
from headrace.core.status import JobStatus


class _Missing:
    """Takes the place of a value that is not there."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Change(NamedTuple):
    """A field that is other than before.

    Attributes:
        path: with points for what is inside; an attempt of the history goes by its number.
        before, after: `MISSING` where there is no such field.
    """

    path: str
    before: Any
    after: Any

    def to_wire(self) -> dict[str, Any]:
        """As JSON; of a field that came or went, one of the two is left out."""
        named = {"before": self.before, "after": self.after}
        return {"field": self.path, **{name: value for name, value in named.items() if value is not MISSING}}


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """All fields in which two states of a job differ, in the order of the later one."""
    changes: list[Change] = []
    # No call inside of a call: what somebody wrote may be nested deeper than Python's calls may be.
    pending = _inside("", _with_numbers(before), _with_numbers(after))
    while pending:
        path, old, new = pending.pop()
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            pending += _inside(f"{path}.", old, new)
        elif _differ(old, new):
            changes.append(Change(path, old, new))
    return changes


def _inside(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Each field of either with its path, the last one first."""
    names = [*new, *(name for name in old if name not in new)]
    return [(f"{prefix}{name}", old.get(name, MISSING), new.get(name, MISSING)) for name in reversed(names)]


def _differ(old: Any, new: Any) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return not is_same_json(old, new)
    return old is MISSING or new is MISSING or old != new or isinstance(old, bool) != isinstance(new, bool)


def _with_numbers(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the attempts of the history by their numbers."""
    attempts = state.get("attempts")
    by_number = {str(each["attempt"]): each for each in attempts} if isinstance(attempts, list) else {}
    return {**state, "attempts": by_number}


def event_of(state: Mapping[str, Any]) -> str:
    """What has just happened to a job that stands so: `started`, `progressed`, `retrying`, `interrupted` or how it ended."""
    status = state["status"]
    if status == JobStatus.RUNNING:
        return "started" if state.get("sequence") == 1 else "progressed"
    if status != JobStatus.QUEUED:
        return str(status)
    attempts = state.get("attempts") or ()
    if not attempts:
        return "queued"
    return "retrying" if attempts[-1]["status"] == "failed" else str(attempts[-1]["status"])
