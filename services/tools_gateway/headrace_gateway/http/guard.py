"""Refuses requests that were not meant for this gateway, before anything else looks at them: see `access.exposure.Names`."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace_gateway.access import HostRefused, Names, OriginRefused
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.answers import ProblemResponse, envelope
from headrace_gateway.http.credentials import arrival_of
from headrace_gateway.tools.refusals import refusal_for

# They tell nothing of anybody, and those who look after containers ask by address.
_PROBES = frozenset({"/healthz", "/readyz"})


class Guard:
    """An ASGI application before another one. What it refuses is audited."""

    def __init__(self, app: ASGIApp, *, names: Names, gateway: Gateway) -> None:
        self._app = app
        self._names = names
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            try:
                if scope["path"] not in _PROBES:
                    self._names.check_host(_only(headers, "host"))
                self._names.check_origin(_only(headers, "origin"))
            except (HostRefused, OriginRefused) as error:
                self._gateway.access.refused(arrival_of(Request(scope)), error.code)
                await _answer(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _only(headers: Headers, name: str) -> str | None:
    """The header's value; of several, one that is no value."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else ("," if values else None)


def _answer(path: str, error: HostRefused | OriginRefused) -> Response:
    response: Response = envelope(refusal_for(error, "")) if path.startswith("/tools/") else ProblemResponse(403, str(error))
    # The body was not read.
    response.headers["connection"] = "close"
    return response
