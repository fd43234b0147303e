"""What came of each job, as its snapshots say it: whether it is what its worker did, and when its attempts were due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from headrace.core.snapshots import MostDeaths
from headrace.core.status import JobStatus
from headrace.core.timestamps import parse_timestamp
from headrace.testing.simulation.process import WALL_CLOCK_START
from headrace.testing.simulation.reading import JobPlace
from headrace.testing.simulation.workload import RETRY

MOST_CRASHES = 3
"""So many processes may die of a job."""

# Times are written down in milliseconds.
_MOMENT_SECONDS = 0.002


class Outcomes:
    """Compares what is written of jobs with what their arguments asked for.

    Args:
        clocks_agree: whether all engines have the same time of day, so that what one wrote down can be held against another.
    """

    def __init__(self, clocks_agree: bool) -> None:
        self._clocks_agree = clocks_agree
        self._due: dict[JobPlace, float] = {}

    def stated(self, place: JobPlace, status: str, value: bytes) -> Iterator[tuple[str, str]]:
        """A snapshot that counts; the promises that it breaks, each with what is wrong."""
        if status == JobStatus.RUNNING:
            return
        raw = orjson.loads(value)
        if status == JobStatus.QUEUED:
            if self._clocks_agree and "runAt" in raw:
                self._due[place] = parse_timestamp(raw["runAt"]) / 1000 - WALL_CLOCK_START
            return
        self._due.pop(place, None)
        expected, failures = _expected(raw["args"]), raw.get("failures", 0)
        if status == JobStatus.CANCELLED or is_given_up(raw):
            # Before its end or at it: of its attempts no more may have failed than should.
            if failures > expected[1]:
                yield "an interruption is no failure", f"it has {failures} failures, and not {expected[1]} at most"
        elif raw["args"].get("kills"):
            yield (
                "a poison job falls alone",
                f"it is {status} after {raw.get('crashes', 0)} deaths, and takes each process with it",
            )
        elif (status, failures) != expected:
            wanted = "{} with {} failures".format(*expected)
            yield "an interruption is no failure", f"it is {status} with {failures} failures, and not {wanted}"

    def started(self, at: float, place: JobPlace) -> Iterator[tuple[str, str]]:
        """An attempt begins to work."""
        due = self._due.pop(place, None)
        if due is not None and at < due - _MOMENT_SECONDS:
            yield "a retry waits for its time", f"it started {due - at:.3f} s before it was due"


def is_given_up(raw: dict[str, Any]) -> bool:
    """Whether a job failed since too many processes died while it ran in them, or beside it, be it by its own doing or not.

    Args:
        raw: its snapshot.
    """
    deaths = int(raw.get("crashes", 0)) >= MOST_CRASHES or int(raw.get("engineDeaths", 0)) >= MostDeaths().engines
    return raw["status"] == JobStatus.FAILED and deaths


def _expected(args: dict[str, Any]) -> tuple[JobStatus, int]:
    """How a job has to end, and how many of its attempts must have failed then."""
    if args["seconds"] < 0:
        return JobStatus.FAILED, 0  # no attempt can be made of it
    failures = min(args.get("failures", 0), RETRY.max_attempts)
    return JobStatus.FAILED if failures == RETRY.max_attempts else JobStatus.COMPLETED, failures
