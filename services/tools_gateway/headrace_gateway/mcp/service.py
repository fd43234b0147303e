"""The protocol's server, put together from its parts. It serves any number of connections, over whatever transport."""

from __future__ import annotations

from typing import Any

from mcp.server.lowlevel import Server
from mcp_types import ServerCapabilities

import headrace
from headrace_gateway.access import Principal
from headrace_gateway.gateway import Gateway
from headrace_gateway.mcp.callers import Callers
from headrace_gateway.mcp.calls import Calls
from headrace_gateway.mcp.guidance import INSTRUCTIONS, Prompts
from headrace_gateway.mcp.resources import Resources
from headrace_gateway.mcp.subscriptions import Subscriptions
from headrace_gateway.mcp.tasks import TASKS, TaskParameters, Tasks, UpdateParameters


class ProtocolServer(Server[Any]):
    """The SDK's server, which says what it can do.

    Attributes:
        subscriptions: the streams of changes that it serves.
        callers: lets requests in.
    """

    subscriptions: Subscriptions
    callers: Callers

    def get_capabilities(self, *arguments: Any, **values: Any) -> ServerCapabilities:
        """As the SDK has it, but for lists, of whose changes nobody is told. Which tools and prompts there are changes with the
        program alone. How `scheduler` describes its arguments does change, as kinds of work come and go: but no client has to
        know of that in time, since each call is checked by the kinds that there are then, and its refusal names them. Who wants
        to know of jobs and workers listens to those."""
        found = super().get_capabilities(*arguments, **values)
        for each in (found.tools, found.prompts, found.resources):
            if each is not None:
                each.list_changed = False
        return found


def build_server(gateway: Gateway, local: Principal | None = None) -> ProtocolServer:
    """A server of what the gateway offers.

    Args:
        local: who makes every request that does not come over HTTP.
    """
    callers = Callers(gateway, local)
    tasks = Tasks(callers, gateway.tools)
    calls = Calls(gateway, callers, tasks)
    resources = Resources(callers)
    prompts = Prompts()
    subscriptions = Subscriptions(callers, tasks)
    server = ProtocolServer(
        "headrace",
        version=headrace.__version__,
        title="headrace",
        description="Background jobs for agents.",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=calls.input_schema,
        on_list_tools=calls.list_tools,
        on_call_tool=calls.call_tool,  # type: ignore[arg-type]  # a task is a result of an extension, which the kernel takes
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_subscriptions_listen=subscriptions.listen,
    )
    server.subscriptions = subscriptions
    server.callers = callers
    server.middleware.append(callers.admit)
    server.extensions[TASKS] = {}
    server.add_request_handler("tasks/get", TaskParameters, tasks.get)
    server.add_request_handler("tasks/update", UpdateParameters, tasks.update)
    server.add_request_handler("tasks/cancel", TaskParameters, tasks.cancel)
    return server
