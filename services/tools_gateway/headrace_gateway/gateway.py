"""The heart of the gateway, which every transport shares: who calls, which tools there are, and what is done for whom."""

from __future__ import annotations

from typing import Any

from headrace import ConfigurationError, Settings, ToolCall, ToolRefusal, ToolSuccess
from headrace_gateway.access import Anyone, Authenticator, Principal
from headrace_gateway.operations import Jobs, Operations, Told
from headrace_gateway.tools import ToolRegistry, built_in_tools
from headrace_gateway.tools.formats import ToolFormat, formatted
from headrace_gateway.tools.strict import NotStrict


class Gateway:
    """Does what principals ask for.

    Args:
        jobs: a started `headrace.Client`; its owner stops it.
        tools: those it offers; `scheduler` and `worker_manager` when left out.
        authenticator: knows who calls; nobody is asked when left out.

    Attributes:
        tools: those it offers.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        tools: ToolRegistry | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.tools = tools if tools is not None else built_in_tools()
        self._settings = settings
        self._jobs = jobs
        self._authenticator = authenticator or Anyone()

    async def authenticate(self, credential: str | None) -> Principal:
        """Who calls.

        Raises:
            CredentialInvalid: nobody knows.
        """
        return await self._authenticator.authenticate(credential)

    def operations(self, principal: Principal, *, told: Told | None = None) -> Operations:
        """What this principal can do; `told` of each job that is waited for, as `Operations` says."""
        return Operations(self._jobs, principal, timeout=self._settings.gateway.enqueue_timeout_seconds, told=told)

    async def describe_tools(self, form: ToolFormat = ToolFormat.MCP, *, strict: bool = False) -> list[dict[str, Any]]:
        """The tools, as an agent is to be told of them now: with the kinds of work that there are.

        Args:
            strict: see `formatted`.

        Raises:
            ConfigurationError: a tool's arguments cannot be described strictly.
        """
        workers = await self._jobs.worker_definitions()
        try:
            return [formatted(tool, workers, form, strict=strict) for tool in self.tools]
        except NotStrict as error:
            raise ConfigurationError(f"A tool's arguments cannot be described strictly: {error}.") from None

    async def call_tool(self, call: ToolCall, principal: Principal, *, told: Told | None = None) -> ToolSuccess | ToolRefusal:
        """Does a tool call, and answers. It raises nothing but the cancellation of the task."""
        return await self.tools.dispatch(call, self.operations(principal, told=told))
