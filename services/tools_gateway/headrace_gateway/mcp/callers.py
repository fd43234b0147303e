"""Who a request of the protocol is for, and in which context it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Self

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import ValidationError
from starlette.requests import Request

from headrace import CallContext, ToolCall, ToolRefusal, ToolSuccess, check_plain
from headrace_gateway.access import Admission, Arrival, CredentialInvalid, Principal
from headrace_gateway.gateway import Gateway
from headrace_gateway.mcp.errors import protocol_error
from headrace_gateway.operations import Operations, Told

RequestContext = ServerRequestContext[Any, Any]

CONTEXT_KEYS: Final = {
    "headrace/userId": "userId",
    "headrace/conversationId": "conversationId",
    "headrace/source": "source",
}
"""What of a request's `_meta` is the context of a call, and the field that it becomes."""

_ALIKE: Final = re.compile(r"(x-)?headrace[^a-z0-9]", re.IGNORECASE)
"""What only a key of headrace begins with; others are nobody's concern."""
_LONGEST_SHOWN: Final = 100

LISTEN: Final = "subscriptions/listen"

_PRINCIPAL = "headrace_principal"
_LET_IN = "headrace_let_in"
_OF_THE_CONNECTION: Final = frozenset({"initialize", "ping", "server/discover"})
_admission: ContextVar[Admission] = ContextVar("headrace_admission")


class LetIn:
    """A request that was let in before the protocol's server has seen it: so what it exceeds can be answered by a status.

    An async context manager, around the server's work. Who serves the request takes the admission over; where the server has
    refused the request by itself, it ends here.

    Args:
        method: for which it was let in; None for what is no request, and will be refused.
    """

    def __init__(self, method: str | None, admission: Admission) -> None:
        self._method = method
        self._admission = admission
        self._open = False

    async def __aenter__(self) -> Self:
        await self._admission.__aenter__()
        self._open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._open:
            return
        self._open = False
        self._admission.refuse("request_invalid")
        # The server has answered already: that the credential does not count any more changes nothing of that.
        with suppress(CredentialInvalid):
            await self._admission.__aexit__(kind, error, trace)

    def take(self, method: str) -> Admission | None:
        """The admission, which whoever takes it has to leave; None where it was taken or has ended, or is for another method."""
        if not self._open or method != self._method:
            return None
        self._open = False
        return self._admission


class Callers:
    """Lets requests in, and knows on whose behalf each is made.

    Args:
        local: who makes every request that does not come over HTTP.
    """

    def __init__(self, gateway: Gateway, local: Principal | None = None) -> None:
        self._gateway = gateway
        self._local = local

    async def admit(self, ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        """Serves one message; all of them come through here, and leave with errors of the protocol alone. A request that is about
        more than the connection is let in, counted and audited as a call."""
        try:
            if ctx.request_id is None or ctx.method in _OF_THE_CONNECTION:
                return await call_next(ctx)
            return await self._admitted(ctx, call_next)
        except (MCPError, ValidationError):
            raise
        except Exception as error:
            # As of a tool that fails: it knows what goes to the log, and what to the caller.
            raise protocol_error(error, ctx.method) from None

    def operations(self) -> Operations:
        """What can be done in the request that is served."""
        return self._gateway.operations(_admission.get())

    async def call_tool(self, call: ToolCall, told: Told | None) -> ToolSuccess | ToolRefusal:
        """Does a tool call for whoever makes the request, and answers."""
        return await self._gateway.call_tool(call, _admission.get(), told=told)

    def began(self) -> None:
        """The stream that the request asks for was opened."""
        _admission.get().began()

    def check(self) -> None:
        """Checks that the credential of whoever makes the request still counts. Raises: CredentialInvalid."""
        self._gateway.access.check(_admission.get().principal)

    async def until_invalid(self) -> None:
        """Returns when the request must not be served any longer: its credential was revoked, or has expired."""
        await self._gateway.until_invalid(_admission.get().principal)

    def let_in(self, principal: Principal, arrival: Arrival, method: str | None, params: object) -> LetIn | None:
        """What lets in a request that the protocol's server has not seen yet, as `Gateway.admit` does; None for one that is about
        the connection alone.

        Args:
            method: None for what is no message at all: it counts as a call that is refused.
        """
        if method in _OF_THE_CONNECTION:
            return None
        return LetIn(method, self._admission(principal, arrival, method, params))

    async def _admitted(self, request: RequestContext, call_next: CallNext) -> HandlerResult:
        failure: Exception
        async with AsyncExitStack() as stack:
            admission = await self._enter(request, stack)
            serving = _admission.set(admission)
            try:
                return await call_next(request)
            except (MCPError, ValidationError) as error:
                admission.refuse(_outcome(error))
                failure = error
            finally:
                _admission.reset(serving)
        raise failure

    async def _enter(self, request: RequestContext, stack: AsyncExitStack) -> Admission:
        let_in = request.request.scope.get(_LET_IN) if isinstance(request.request, Request) else None
        if isinstance(let_in, LetIn) and (admission := let_in.take(request.method)) is not None:
            stack.push_async_exit(admission)
            return admission
        principal, arrival = self._origin(request)
        return await stack.enter_async_context(self._admission(principal, arrival, request.method, request.params))

    def _origin(self, request: RequestContext) -> tuple[Principal, Arrival]:
        if isinstance(request.request, Request):
            found = request.request.scope.get(_PRINCIPAL)
            client = request.request.client
            arrival = Arrival("mcp", client.host if client is not None else None)
        else:
            found, arrival = self._local, Arrival("stdio")
        if not isinstance(found, Principal):
            raise RuntimeError("a request reached the protocol without a principal")
        return found, arrival

    def _admission(self, principal: Principal, arrival: Arrival, method: str | None, params: object) -> Admission:
        name = params.get("name") if method == "tools/call" and isinstance(params, Mapping) else None
        tool = self._gateway.tool_name(name) if isinstance(name, str) else None
        return self._gateway.admit(principal, arrival, tool, stream=method == LISTEN)


def _outcome(error: MCPError | ValidationError) -> str:
    """The code by which the audit names a request that the protocol does not take."""
    if isinstance(error, MCPError) and isinstance(error.data, dict) and isinstance(error.data.get("code"), str):
        return str(error.data["code"])
    return "request_invalid"


def remember(scope: MutableMapping[str, Any], principal: Principal, let_in: LetIn | None) -> None:
    """Keeps with an HTTP request who makes it, and by what it was let in."""
    scope[_PRINCIPAL] = principal
    scope[_LET_IN] = let_in


def context_of(meta: Mapping[str, Any] | None) -> CallContext:
    """The context that a request's `_meta` gives.

    Raises:
        MCPError: a value is no text, or longer than 200 characters, or empty, or has control characters; or a key is named like
            those of the context, and is none of them: a call that was to be a user's must not be nobody's.
    """
    for key in meta or ():
        if key not in CONTEXT_KEYS and _ALIKE.match(key):
            known = ", ".join(CONTEXT_KEYS)
            raise MCPError(INVALID_PARAMS, f"There is no {key[:_LONGEST_SHOWN]!r} in _meta: the context is given by {known}.")
    given = {field: meta[key] for key, field in CONTEXT_KEYS.items() if key in meta} if meta else {}
    for key, field in CONTEXT_KEYS.items():
        # As in the headers that say the same over HTTP.
        try:
            check_plain(str(given.get(field, "")))
        except ValueError as error:
            raise MCPError(INVALID_PARAMS, f"{key} in _meta is wrong: {error}.") from None
    try:
        return CallContext.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = next(key for key, field in CONTEXT_KEYS.items() if field == problem["loc"][0])
        raise MCPError(INVALID_PARAMS, f"{key} in _meta is wrong: {problem['msg']}. Mend it, or leave it out.") from None
