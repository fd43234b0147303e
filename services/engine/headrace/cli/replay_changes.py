"""What `--set` changes of a recorded job that is run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.engine.admission import NotAdmitted, admit_arguments
from headrace.replay.history import RecordedJob
from headrace.replay.rerunning.differences import Difference, differences, with_changes


@dataclass(frozen=True, slots=True)
class Changes:
    """Other arguments for a job.

    Attributes:
        job: with them.
        places: of arguments and context where it differs from what was recorded.
        idle: paths that were given, and with which the worker gets the same arguments as without.
        counts: whether the worker gets anything else.
    """

    job: RecordedJob
    places: Sequence[Difference] = ()
    idle: Sequence[str] = ()
    counts: bool = False


def changes_of(job: RecordedJob, given: Mapping[str, Any], worker: AbstractWorker[Any] | None) -> Changes:
    """The job with these values at their paths, and what that changes.

    Args:
        worker: that of the job, if there is one.

    Raises:
        ConfigurationError: a path leads nowhere.
    """
    changed = with_changes(job, given)
    places = [place for name in ("args", "ctx") for place in differences(job.record.get(name) or {}, changed.record[name], name)]
    idle = [] if worker is None else list(_idle(job, given, worker))
    return Changes(changed, places, idle, bool(places) and len(idle) < len(given))


def _idle(job: RecordedJob, given: Mapping[str, Any], worker: AbstractWorker[Any]) -> Iterator[str]:
    """One after another: a path may lead through what the one before it has made."""
    for path, value in given.items():
        before, job = job, with_changes(job, {path: value})
        if (
            path.startswith("args.")
            and (admitted := _admitted(worker, before)) is not None
            and admitted == _admitted(worker, job)
        ):
            yield path


def _admitted(worker: AbstractWorker[Any], job: RecordedJob) -> Any:
    """The arguments as the worker gets them; None where it refuses them."""
    try:
        return admit_arguments(worker, job.record["args"])
    except NotAdmitted:
        return None
