"""Accepting the jobs that running jobs enqueue: each once, however many attempts its parent takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.client import Client
from headrace.core.timestamps import to_milliseconds
from headrace.idempotency import Child
from headrace.job_context import ChildRequest
from headrace.models import Job
from headrace.submission import plain_context, retry_fields

# Of the window: well before the holder of its partition may have forgotten a child, it is looked for in the view of jobs.
_LATE = 0.5


async def enqueue_child(client: Client, request: ChildRequest) -> Job:
    """Accepts a job that another one enqueues. Raises as `Client.enqueue`.

    A child that an earlier attempt made is a duplicate, which its holder passes over. It does so for a window after the child's
    end only; a parent that was first started long ago looks itself whether there is such a job.
    """
    taken: list[Child] = []

    def identify(worker_name: str, args: Mapping[str, Any], ordering_key: str | None) -> str:
        taken.append(request.ids.take(worker_name, ordering_key, args))
        return taken[-1].id

    async def find(asked: Job) -> Job | None:
        view = await client._view.open_up_to_now()
        return await view.get_job(asked.id, tenant=asked.tenant)

    try:
        [job] = await client._acceptance.accept(
            request.worker,
            [request.args],
            child_fields(request),
            ordering_key=request.ordering_key,
            timeout=request.timeout,
            identify=identify,
            find=find if _is_late(client, request) else None,
        )
    except BaseException:
        for child in taken:
            request.ids.give_back(child)
        raise
    await client._views.show([job])
    return job


def child_fields(request: ChildRequest) -> dict[str, Any]:
    """The fields of a child's record that do not follow from its worker and its arguments. Raises ArgumentsInvalid."""
    parent = request.parent
    return {
        "tenant": parent.tenant,
        "ctx": plain_context(request.ctx) if request.ctx is not None else parent.ctx.to_wire(),
        "parentId": parent.id,
        **retry_fields(request.retry, request.attempt_timeout),
    }


def _is_late(client: Client, request: ChildRequest) -> bool:
    started_at = request.parent.started_at
    if request.attempt == 1 or started_at is None:
        return False
    milliseconds = client._now() - to_milliseconds(started_at)
    return milliseconds >= _LATE * 1000 * client.settings.engine.idempotency_window_seconds
