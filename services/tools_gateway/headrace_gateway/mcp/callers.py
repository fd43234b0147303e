"""Who a request of the protocol is for, and in which context it is made."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request

from headrace import CallContext, ToolCall, ToolRefusal, ToolSuccess
from headrace_gateway.access import Principal
from headrace_gateway.gateway import Gateway
from headrace_gateway.operations import Operations, Told

RequestContext = ServerRequestContext[Any, Any]

CONTEXT_KEYS: Final = {
    "headrace/userId": "userId",
    "headrace/conversationId": "conversationId",
    "headrace/source": "source",
}
"""What of a request's `_meta` is the context of a call, and the field that it becomes."""

_PRINCIPAL = "headrace_principal"


class Callers:
    """Knows on whose behalf a request is made.

    Args:
        local: who makes every request that does not come over HTTP.
    """

    def __init__(self, gateway: Gateway, local: Principal | None = None) -> None:
        self._gateway = gateway
        self._local = local

    def principal(self, request: RequestContext) -> Principal:
        """Who makes the request: over HTTP whoever its own credential names, else whoever the process runs for."""
        found = request.request.scope.get(_PRINCIPAL) if isinstance(request.request, Request) else self._local
        if not isinstance(found, Principal):
            raise RuntimeError("a request reached the protocol without a principal")
        return found

    def operations(self, request: RequestContext) -> Operations:
        """What can be done for whoever makes the request."""
        return self._gateway.operations(self.principal(request))

    async def call_tool(self, call: ToolCall, request: RequestContext, told: Told | None) -> ToolSuccess | ToolRefusal:
        """Does a tool call for whoever makes the request, and answers."""
        return await self._gateway.call_tool(call, self.principal(request), told=told)


def remember(scope: MutableMapping[str, Any], principal: Principal) -> None:
    """Keeps with an HTTP request who makes it."""
    scope[_PRINCIPAL] = principal


def credential_of(headers: Headers) -> str | None:
    """The credential of an HTTP request: what follows `Authorization: Bearer`, or stands in `X-API-Key`; None where there is
    neither. Several that differ are one that nobody knows: it could not be said which of them counts."""
    given = {_bearer(value) for value in headers.getlist("authorization")} | set(headers.getlist("x-api-key"))
    return next(iter(given), None) if len(given) < 2 else ""


def context_of(meta: Mapping[str, Any] | None) -> CallContext:
    """The context that a request's `_meta` gives.

    Raises:
        MCPError: a value is no text, or longer than 200 characters, or empty.
    """
    given = {field: meta[key] for key, field in CONTEXT_KEYS.items() if key in meta} if meta else {}
    try:
        return CallContext.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = next(key for key, field in CONTEXT_KEYS.items() if field == problem["loc"][0])
        raise MCPError(INVALID_PARAMS, f"{key} in _meta is wrong: {problem['msg']}. Mend it, or leave it out.") from None


def _bearer(value: str) -> str:
    scheme, _, credential = value.partition(" ")
    # Another scheme is a credential that counts for nothing, and not the absence of one.
    return credential.strip() if scheme.lower() == "bearer" else ""
