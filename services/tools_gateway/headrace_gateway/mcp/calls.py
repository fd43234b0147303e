"""`tools/list` and `tools/call`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, Tool

from headrace import HeadraceError, ToolCall, ToolRefusal
from headrace_gateway.access import Scope
from headrace_gateway.gateway import Gateway
from headrace_gateway.mcp.answers import tool_result
from headrace_gateway.mcp.callers import Callers, RequestContext, context_of
from headrace_gateway.mcp.progress import progress_listener
from headrace_gateway.mcp.tasks import TOOL_FIELD, Tasks, follows_tasks, tasks_missing

logger = logging.getLogger(__name__)


class Calls:
    """Lists the tools, and calls them."""

    def __init__(self, gateway: Gateway, callers: Callers, tasks: Tasks) -> None:
        self._gateway = gateway
        self._callers = callers
        self._tasks = tasks

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """JSON Schema of a tool's arguments, by which headers that repeat some are checked; None where there is no such tool."""
        # Kinds of work that come and go change nothing of what headers repeat.
        return self._gateway.tools[name].shown_schema({}) if name in self._gateway.tools else None

    async def list_tools(self, _: RequestContext, parameters: PaginatedRequestParams | None) -> ListToolsResult:
        """The tools there are, all on one page."""
        check_no_cursor(parameters)
        return ListToolsResult(tools=[Tool.model_validate(each) for each in await self._gateway.describe_tools()])

    async def call_tool(self, request: RequestContext, parameters: CallToolRequestParams) -> CallToolResult | dict[str, Any]:
        """Calls a tool. A call that a job does is answered with the task, where the client can follow that."""
        if parameters.name not in self._gateway.tools:
            known = ", ".join(sorted(tool.name for tool in self._gateway.tools))
            raise MCPError(INVALID_PARAMS, f"There is no tool of that name. The tools are: {known}.")
        support = self._gateway.tools[parameters.name].task
        follows = follows_tasks(request)
        if support is not None and support.required and not follows:
            raise tasks_missing()
        # Who may not look at jobs could not follow one.
        as_task = support is not None and follows and Scope.JOBS_READ in self._callers.operations().principal.scopes
        context = context_of(request.meta)
        if as_task:
            context = context.model_copy(update={TOOL_FIELD: parameters.name})
        call = ToolCall(name=parameters.name, arguments=parameters.arguments or {}, context=context)
        answer = await self._callers.call_tool(call, progress_listener(request))
        if isinstance(answer, ToolRefusal) or support is None or not as_task:
            return tool_result(answer)
        job_id = support.job_id(answer.data)
        if job_id is None:
            return tool_result(answer)
        return await self._created(job_id)

    async def _created(self, job_id: str) -> dict[str, Any]:
        """The task of a job that was accepted: that it cannot be looked at just now changes nothing of that."""
        try:
            return self._tasks.created(await self._callers.operations().get_job(job_id))
        except HeadraceError as error:
            logger.info("How the accepted job %s stands is not known here yet: %s", job_id, error)
            return self._tasks.accepted(job_id)


def check_no_cursor(parameters: PaginatedRequestParams | None) -> None:
    """Refuses the cursor of a list that has one page alone.

    Raises:
        MCPError: there is a cursor.
    """
    if parameters is not None and parameters.cursor is not None:
        raise MCPError(INVALID_PARAMS, "The cursor is none that this list gave: leave it out.")
