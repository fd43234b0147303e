"""Jobs that took too many processes with them (rule X1): they are made dead letters, and fail."""

from __future__ import annotations

from headrace.core.snapshots import crashes, engine_deaths
from headrace.engine.admission import NotAdmitted
from headrace.engine.partition import Work
from headrace.errors import WorkerProcessDied


def given_up(work: Work) -> NotAdmitted:
    """Why such a job is given up."""
    fields = work.state.fields
    beside = f", and {deaths} engines beside it" if (deaths := engine_deaths(fields)) else ""
    message = f"{crashes(fields)} processes died while the job ran in them{beside}, and no other is put at risk"
    return NotAdmitted("poison", message, work, WorkerProcessDied)
