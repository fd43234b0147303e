"""The heart of the gateway, which every transport shares: who calls, which tools there are, and what is done for whom.

A transport serves a call so:

    arrival = Arrival("http", address)
    principal = await gateway.authenticate(credential, arrival)
    async with gateway.admit(principal, arrival, gateway.tool_name(name)) as admission:
        answer = await gateway.call_tool(call, admission)            # or
        job = await gateway.operations(admission).get_job(job_id)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from headrace import AuditTrail, ConfigurationError, Settings, ToolCall, ToolRefusal, ToolSuccess, WorkerDefinition
from headrace_gateway.access import (
    Access,
    Admission,
    Allowance,
    Anyone,
    Arrival,
    Audit,
    Authenticator,
    Limits,
    Principal,
    TrailAudit,
    Turns,
    authenticator_for,
)
from headrace_gateway.operations import Jobs, Left, Operations, Told, Unattended
from headrace_gateway.tools import ToolRegistry, built_in_tools
from headrace_gateway.tools.formats import ToolFormat, formatted
from headrace_gateway.tools.kinds import are_contested, that_count
from headrace_gateway.tools.strict import NotStrict

logger = logging.getLogger(__name__)


class Gateway:
    """Does what principals ask for. An async context manager, or `start` and `stop` it.

    Args:
        jobs: a started `headrace.Client`; its owner stops it.
        tools: those it offers; `scheduler` and `worker_manager` when left out.
        authenticator: knows who calls; nobody is asked when left out.
        audit: told of every call; nobody is when left out.

    Attributes:
        tools: those it offers.
        access: lets calls in.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        tools: ToolRegistry | None = None,
        authenticator: Authenticator | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.tools = tools if tools is not None else built_in_tools()
        self._settings = settings
        self._jobs = jobs
        self._authenticator = authenticator or Anyone()
        self._audit = audit
        limits = settings.limits
        allowance = Allowance(
            calls_per_second=limits.calls_per_second,
            burst=limits.burst,
            in_flight=limits.calls_at_once,
            streams=limits.streams_at_once,
        )
        self._stopping = asyncio.Event()
        self._resuming = Turns()
        self._unattended = Unattended(jobs)
        self.access = Access(self._authenticator, Limits(allowance), audit)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Gets to know all credentials that there are: before that, nobody would be let in.

        Raises:
            BrokerError: they cannot be read, or the audit cannot be written.
        """
        try:
            await self._authenticator.start()
            if self._audit is not None:
                await self._audit.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Writes what the audit still has, and ends the connections."""
        if left_out := self.access.strangers.left_out:
            logger.warning("%d refusals of callers whom nobody knows were not audited in the end: there were too many.", left_out)
        await self._unattended.stop()
        if self._audit is not None:
            await self._audit.stop()
        await self._authenticator.stop()

    @property
    def trouble(self) -> str | None:
        """Why it may let in somebody whose credential was revoked, as it cannot read that at the moment; else None."""
        return self._authenticator.trouble

    async def authenticate(self, credential: str | None, arrival: Arrival) -> Principal:
        """Who calls.

        Raises:
            CredentialInvalid: nobody knows.
        """
        return await self.access.authenticate(credential, arrival)

    def admit(self, principal: Principal, arrival: Arrival, tool: str | None = None, *, stream: bool = False) -> Admission:
        """Lets one call in, for as long as the block lasts that it is used for; see `Access.admit`."""
        return self.access.admit(principal, arrival, tool, stream=stream)

    async def until_invalid(self, principal: Principal) -> None:
        """Returns when a stream of the principal has to be closed: its credential was revoked, or has expired."""
        await self.access.until_invalid(principal)

    def stop_waiting(self) -> None:
        """From now on nobody waits for the end of a job: whoever does is answered with it as it stands, and loses no receipt."""
        self._stopping.set()

    def tool_name(self, name: str) -> str | None:
        """The name, if it is that of a tool: what else callers write is not for the audit."""
        return name if name in self.tools else None

    def operations(self, admission: Admission, *, told: Told | None = None, left: Left | None = None) -> Operations:
        """What can be done in a call that was let in; `told` of each job that is waited for, and not longer than until the
        caller has `left`, as `Operations` says."""
        principal = admission.principal
        return Operations(
            self._jobs,
            principal,
            unattended=self._unattended,
            timeout=self._settings.gateway.enqueue_timeout_seconds,
            called=admission.called,
            told=told,
            left=left,
            stopping=self._stopping,
            until_invalid=lambda: self.until_invalid(principal),
            resuming=lambda: self._resuming.turn(principal),
        )

    async def workers(self) -> dict[str, WorkerDefinition]:
        """The workers that count for what agents are told, by name: of those that claim one kind, as `scheduler` takes them."""
        definitions = await self._jobs.worker_definitions()
        if not are_contested(definitions):
            return definitions
        live = {summary.name for summary in await self._jobs.list_workers() if summary.live_instances > 0}
        return that_count(definitions, live)

    async def describe_tools(self, form: ToolFormat = ToolFormat.MCP, *, strict: bool = False) -> list[dict[str, Any]]:
        """The tools, as an agent is to be told of them now: with the kinds of work that there are.

        Args:
            strict: see `formatted`.

        Raises:
            ConfigurationError: a tool's arguments cannot be described strictly.
        """
        workers = await self.workers()
        try:
            return [formatted(tool, workers, form, strict=strict) for tool in self.tools]
        except NotStrict as error:
            raise ConfigurationError(f"A tool's arguments cannot be described strictly: {error}.") from None

    async def call_tool(
        self,
        call: ToolCall,
        admission: Admission,
        *,
        told: Told | None = None,
        left: Left | None = None,
        began: Callable[[], None] | None = None,
    ) -> ToolSuccess | ToolRefusal:
        """Does a tool call, and answers; `told` and `left` as for `operations`, `began` as for `ToolRegistry.dispatch`. It raises
        nothing but the cancellation of the task."""
        answer = await self.tools.dispatch(call, self.operations(admission, told=told, left=left), began=began)
        if isinstance(answer, ToolRefusal):
            admission.refuse(answer.error.code)
        else:
            admission.audited.job_id = _job_of(answer.data)
        return answer


def gateway_for(settings: Settings, jobs: Jobs, tools: ToolRegistry | None = None) -> Gateway:
    """The gateway that the settings ask for, with an audit in the log.

    Raises:
        ConfigurationError: what they say of an issuer of tokens makes no sense.
    """
    return Gateway(settings, jobs, tools, authenticator_for(settings), TrailAudit(AuditTrail(settings)))


def _job_of(data: Mapping[str, Any]) -> str | None:
    """The job that a tool's answer is about, if it is about one."""
    job = data.get("job")
    found = job.get("id") if isinstance(job, dict) else data.get("jobId")
    return found if isinstance(found, str) else None
