"""Jobs that took too many processes with them (rule X1): they are made dead letters, and fail."""

from __future__ import annotations

from headrace.core.snapshots import crashes
from headrace.engine.admission import NotAdmitted
from headrace.engine.partition import Work
from headrace.errors import WorkerProcessDied


def given_up(work: Work) -> NotAdmitted:
    """Why such a job is given up."""
    count = crashes(work.state.fields)
    message = f"{count} processes died while the job ran in them, and no other is put at risk"
    return NotAdmitted("poison", message, work, WorkerProcessDied)
