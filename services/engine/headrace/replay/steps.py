"""What happened from one state of a job to the next, and what changed by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

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
    return list(_changes("", before, after))


def _changes(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name, MISSING), after.get(name, MISSING)
        if prefix == "" and name == "attempts":
            old, new = _by_number(old), _by_number(new)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(f"{prefix}{name}.", old, new)
        elif old is MISSING or new is MISSING or old != new or isinstance(old, bool) != isinstance(new, bool):
            yield Change(f"{prefix}{name}", old, new)


def _by_number(attempts: Any) -> dict[str, Any]:
    return {str(each["attempt"]): each for each in attempts} if isinstance(attempts, list) else {}


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
