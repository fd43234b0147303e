"""Refuses requests that were not meant for this gateway, before anything else looks at them, and descriptions to strangers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace import HeadraceError
from headrace_gateway.access import AccessDenied, CredentialInvalid, HostRefused, LimitExceeded, Names, OriginRefused
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.answers import PROBLEM_CODE, STATUSES, ProblemResponse, access_headers, refusal_response
from headrace_gateway.http.arrival import arrival_of
from headrace_gateway.http.calls import TOOLS
from headrace_gateway.tools.refusals import ToolRefused, refusal_for

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""They tell nothing of anybody, and those who look after containers ask by address, and without a credential."""
DESCRIPTIONS: Final = frozenset({"/tools", "/openapi.json"})
"""What everybody may read of whom it is known who they are. All other routes ask by themselves, and for scopes."""


class Guard:
    """An ASGI application before another one. What it refuses is audited.

    Args:
        names: those of the gateway, and of pages that may call it.
    """

    def __init__(self, app: ASGIApp, *, names: Names, gateway: Gateway) -> None:
        self._app = app
        self._names = names
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        try:
            _check_framing(scope)
            if path not in PROBES:
                self._names.check_host(_only(scope, b"host"))
                self._names.check_origin(_only(scope, b"origin"))
        except (ToolRefused, HostRefused, OriginRefused) as error:
            self._gateway.access.refused(arrival_of(Request(scope)), error.code)
            await _answer(path, error)(scope, receive, send)
            return
        if _place(scope) in DESCRIPTIONS:
            await self._describe(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _describe(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def note(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                admission.refuse(scope.get(PROBLEM_CODE, "request_invalid"))
            await send(message)

        request = Request(scope)
        arrival = arrival_of(request)
        try:
            principal = await self._gateway.authenticate(credential_of(request.headers), arrival)
            async with self._gateway.admit(principal, arrival) as admission:
                admission.called("describe")
                await self._app(scope, receive, note)
        except (CredentialInvalid, AccessDenied, LimitExceeded) as error:
            # A credential that is revoked while the answer is sent comes too late for this one.
            if not answered:
                await _problem(error)(scope, receive, send)


def _place(scope: Scope) -> str:
    """The path as routes take it, for which the application's own prefix, and a line break at the end, are no part of it: what
    they serve must be what is guarded."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    if prefix and path.startswith(f"{prefix}/"):
        path = path.removeprefix(prefix)
    return path.removesuffix("\n")


def _check_framing(scope: Scope) -> None:
    """Checks that a request says in one way alone where its body ends. What stands before the gateway may go by the other one,
    and take for the next request what is a part of this one.

    Raises:
        ToolRefused: it does not.
    """
    names = {name for name, _ in scope["headers"]}
    if b"transfer-encoding" in names and b"content-length" in names:
        raise ToolRefused("request_invalid", "The request has both Transfer-Encoding and Content-Length: send one of them.")


def _only(scope: Scope, name: bytes) -> str | None:
    """The header's value; of several, one that is no value. In a scope the names of headers are in lower case."""
    values = [value for each, value in scope["headers"] if each == name]
    return values[0].decode("latin-1") if len(values) == 1 else ("," if values else None)


def _problem(error: HeadraceError) -> Response:
    return ProblemResponse(STATUSES.get(error.code, HTTPStatus.BAD_REQUEST), str(error), access_headers(error), code=error.code)


def _answer(path: str, error: ToolRefused | HostRefused | OriginRefused) -> Response:
    response = refusal_response(refusal_for(error, "")) if path.startswith(TOOLS) else _problem(error)
    # The body was not read.
    response.headers["connection"] = "close"
    return response
