"""Tells a client how far a job is for which it waits."""

from __future__ import annotations

from headrace import Job
from headrace_gateway.mcp.callers import RequestContext
from headrace_gateway.operations import Told


def progress_listener(request: RequestContext) -> Told | None:
    """Sends the progress of a job that is waited for as notifications, if the client asked for them."""
    if request.meta is None or request.meta.get("progress_token") is None:
        return None
    last = -1.0

    async def tell(job: Job) -> None:
        nonlocal last
        fraction = job.progress.fraction if job.progress is not None else 0.0
        # The protocol wants every number to be greater than the one before; an attempt that begins anew falls back.
        if fraction <= last:
            return
        last = fraction
        text = job.progress.text if job.progress is not None else None
        await request.session.report_progress(fraction, 1.0, text or job.status.value)

    return tell
