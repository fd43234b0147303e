"""The tasks extension: a call that a job does is a task, and the job's id is the task's.

Nothing of a task is kept here. Whichever gateway is asked looks at the job, so that tasks survive gateways.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from headrace import HeadraceError, Job, JobAnswer, JobNotCancellable, JobStatus, JobUnknown, ToolSuccess
from headrace_gateway.mcp.answers import tool_result
from headrace_gateway.mcp.callers import Callers, RequestContext
from headrace_gateway.mcp.errors import protocol_error
from headrace_gateway.tools import ToolRegistry
from headrace_gateway.tools.refusals import refusal_for, refuse

logger = logging.getLogger(__name__)

TASKS: Final = "io.modelcontextprotocol/tasks"
POLL_MILLISECONDS: Final = 1_000
TOOL_FIELD: Final = "tool"
"""The field of a job's context that names the tool whose answer the job's end makes."""


class TaskParameters(RequestParams):
    """Which task."""

    task_id: str


class UpdateParameters(TaskParameters):
    """Answers to what a task asked its client for."""

    input_responses: dict[str, Any]


class Tasks:
    """Answers `tasks/get`, `tasks/update` and `tasks/cancel`."""

    def __init__(self, callers: Callers, tools: ToolRegistry) -> None:
        self._callers = callers
        self._tools = tools

    def created(self, job: Job) -> dict[str, Any]:
        """The result of a call that goes on as a task."""
        return {"resultType": "task", **_metadata(job)}

    def accepted(self, job_id: str) -> dict[str, Any]:
        """The same, of a job of which nothing is known yet but that it was accepted just now."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"resultType": "task", **_stands(job_id, JobStatus.QUEUED, JobStatus.QUEUED.value, now, now)}

    def details(self, job: Job) -> dict[str, Any]:
        """A task as it stands, with what the call answers where it has ended."""
        task = _metadata(job)
        if job.status is JobStatus.COMPLETED:
            return task | self._outcome(job)
        if job.status is JobStatus.FAILED:
            # The call was served as the protocol wants; it is its answer that says that the work failed.
            return task | {"result": _wire(_failure(job))}
        return task

    async def get(self, request: RequestContext, parameters: TaskParameters) -> dict[str, Any]:
        """A task as it stands."""
        return self.details(await self._find(request, parameters))

    async def update(self, request: RequestContext, parameters: UpdateParameters) -> dict[str, Any]:
        """Takes answers to what a task asked for. No job asks for anything, so none of them is waited for."""
        await self._find(request, parameters)
        return {}

    async def cancel(self, request: RequestContext, parameters: TaskParameters) -> dict[str, Any]:
        """Has a task cancelled; of one that has ended, it is too late."""
        _check_asked(request, parameters)
        operations = self._callers.operations()
        try:
            await operations.cancel_job(parameters.task_id)
        except JobUnknown:
            raise _unknown() from None
        except JobNotCancellable as error:
            logger.debug("A task is not cancelled: %s", error)
        except HeadraceError as error:
            # Only here it is known whether the cancellation may stand.
            raise protocol_error(error, request.method, accepted=operations.accepted) from None
        return {}

    async def _find(self, request: RequestContext, parameters: TaskParameters) -> Job:
        _check_asked(request, parameters)
        try:
            return await self._callers.operations().get_job(parameters.task_id, fresh=True)
        except JobUnknown:
            raise _unknown() from None

    def _outcome(self, job: Job) -> dict[str, Any]:
        name = str((job.ctx.model_extra or {}).get(TOOL_FIELD))
        task = self._tools[name].task if name in self._tools else None
        try:
            answer = JobAnswer(job=job) if task is None else task.answer(job)
            return {"result": _wire(tool_result(ToolSuccess(data=answer.to_wire())))}
        except HeadraceError as error:
            return {"result": _wire(tool_result(refusal_for(error, name)))}
        except Exception:
            logger.exception("What the tool %s answers could not be made of job %s", name, job.id)
            message = "The job has completed, and what the tool answers could not be made of its result."
            return {
                "status": "failed",
                "statusMessage": message,
                "error": {"code": INTERNAL_ERROR, "message": message},
            }


def follows_tasks(request: RequestContext) -> bool:
    """Whether the client has said in this request that it can follow tasks."""
    capabilities = request.session.client_capabilities
    declared = capabilities.extensions if capabilities is not None else None
    return request.protocol_version in MODERN_PROTOCOL_VERSIONS and TASKS in (declared or {})


def tasks_missing() -> MCPError:
    """The error for a client that has not said that it can follow tasks, where it must."""
    return MCPError(
        MISSING_REQUIRED_CLIENT_CAPABILITY,
        f"This needs a client that declares the extension {TASKS} in the request's capabilities.",
        {"requiredCapabilities": {"extensions": {TASKS: {}}}},
    )


def _check_asked(request: RequestContext, parameters: TaskParameters) -> None:
    if request.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(METHOD_NOT_FOUND, "Method not found", request.method)
    if isinstance(request.request, Request):
        # Whoever routes requests has gone by the header: it must not say another thing than the body.
        named = request.request.headers.get(MCP_NAME_HEADER)
        if named is not None and decode_header_value(named) != parameters.task_id:
            raise MCPError(HEADER_MISMATCH, "The header Mcp-Name must have the taskId of the body.")
    if not follows_tasks(request):
        raise tasks_missing()


def _unknown() -> MCPError:
    return MCPError(INVALID_PARAMS, "There is no task of that id.")


def _metadata(job: Job) -> dict[str, Any]:
    wire = job.to_wire()
    message = job.progress.text if job.progress is not None and job.progress.text else job.status.value
    return _stands(job.id, job.status, message, wire["createdAt"], wire["updatedAt"])


def _stands(task_id: str, status: JobStatus, message: str, created_at: str, updated_at: str) -> dict[str, Any]:
    return {
        "taskId": task_id,
        "status": _STATUSES.get(status, "working"),
        "statusMessage": message,
        "createdAt": created_at,
        "lastUpdatedAt": updated_at,
        # How long a job may take is not bounded, and it is known for days after its end.
        "ttlMs": None,
        "pollIntervalMs": POLL_MILLISECONDS,
    }


_STATUSES: Final = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "completed",
    JobStatus.CANCELLED: "cancelled",
}


def _failure(job: Job) -> CallToolResult:
    why = "it is not known why" if job.error is None else f"{job.error.type}: {job.error.message}"
    return tool_result(refuse("job_failed", f"Job {job.id} of {job.worker_name} failed: {why}"))


def _wire(result: CallToolResult) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
