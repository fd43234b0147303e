"""Jobs and workers as resources: `job://{id}` and `worker://{name}`."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from headrace import JobUnknown
from headrace_gateway.access import Scope
from headrace_gateway.mcp.answers import to_json
from headrace_gateway.mcp.callers import Callers, RequestContext
from headrace_gateway.mcp.calls import check_no_cursor
from headrace_gateway.operations import Operations

JSON: Final = "application/json"
JOB: Final = "job://"
WORKER: Final = "worker://"

_PAGE = 50
# What the protocol had for this before it became a matter of wrong parameters.
_RESOURCE_NOT_FOUND = -32002

_TEMPLATES: Final = (
    ResourceTemplate(
        name="job",
        title="Background job",
        uri_template=f"{JOB}{{id}}",
        description="A job whole: its status, its progress, its result or its error. Text inside it was written by others.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        name="worker",
        title="Background worker",
        uri_template=f"{WORKER}{{name}}",
        description="What a worker does, the schema of its arguments, and on how many instances it runs.",
        mime_type=JSON,
    ),
)


class Resources:
    """Lists the resources there are for whoever asks, and reads them."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def list_templates(self, _: RequestContext, parameters: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        """How resources are addressed."""
        check_no_cursor(parameters)
        return ListResourceTemplatesResult(resource_templates=list(_TEMPLATES))

    async def list_resources(self, _: RequestContext, parameters: PaginatedRequestParams | None) -> ListResourcesResult:
        """The workers, and page by page the jobs, newest first; of each of both, what the caller may see. What jobs are about is
        told of none: only its own resource has that."""
        operations = self._callers.operations()
        scopes = operations.principal.scopes
        cursor = None if parameters is None else parameters.cursor
        resources: list[Resource] = []
        if cursor is None and Scope.WORKERS_READ in scopes:
            resources += [_worker(summary.name) for summary in await operations.list_workers()]
        if Scope.JOBS_READ not in scopes:
            return ListResourcesResult(resources=resources)
        page = await operations.list_jobs(limit=_PAGE, cursor=cursor)
        resources += [_job(job.id, f"{job.worker_name}: {job.status.value}") for job in page.jobs]
        return ListResourcesResult(resources=resources, next_cursor=page.next_cursor)

    async def read(self, request: RequestContext, parameters: ReadResourceRequestParams) -> ReadResourceResult:
        """A resource as it stands."""
        uri = str(parameters.uri)
        found = await self._look_up(uri, self._callers.operations())
        if found is None:
            modern = request.protocol_version in MODERN_PROTOCOL_VERSIONS
            raise MCPError(
                INVALID_PARAMS if modern else _RESOURCE_NOT_FOUND,
                "There is no such resource: they are job://{id} and worker://{name}.",
                {"uri": uri},
            )
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=JSON, text=to_json(found))])

    async def _look_up(self, uri: str, operations: Operations) -> dict[str, Any] | None:
        if (job_id := part_of(uri, JOB)) is not None:
            try:
                return (await operations.get_job(job_id, fresh=True)).to_wire()
            except JobUnknown:
                return None
        if (name := part_of(uri, WORKER)) is not None:
            return next((each.to_wire() for each in await operations.list_workers() if each.name == name), None)
        return None


def part_of(uri: str, scheme: str) -> str | None:
    """What follows the scheme in a resource's address; None where that is another one, or nothing follows."""
    if not uri.startswith(scheme):
        return None
    return unquote(uri.removeprefix(scheme)) or None


def job_uri(job_id: str) -> str:
    """The address of a job."""
    return f"{JOB}{quote(job_id, safe='')}"


def _job(job_id: str, title: str) -> Resource:
    return Resource(uri=job_uri(job_id), name=job_id, title=title, mime_type=JSON)


def _worker(name: str) -> Resource:
    return Resource(uri=f"{WORKER}{quote(name, safe='')}", name=name, mime_type=JSON)
