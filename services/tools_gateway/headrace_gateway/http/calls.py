"""Tool calls over HTTP: an ASGI application of its own, since what FastAPI does around each request costs as much as a call."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace import ToolCall, ToolRefusal, ToolSuccess
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.answers import SuccessResponse, access_headers, refusal_response
from headrace_gateway.http.arrival import arrival_of
from headrace_gateway.http.body import read_arguments
from headrace_gateway.http.context import context_from_headers
from headrace_gateway.http.leaving import gone
from headrace_gateway.tools.refusals import refusal_for

TOOLS: Final = "/tools/"
"""Before the name of the tool in the path of its calls."""


class ToolCalls:
    """Answers `POST /tools/<name>`, whatever the name."""

    def __init__(self, gateway: Gateway, maximum_body_bytes: int) -> None:
        self._gateway = gateway
        self._maximum_body_bytes = maximum_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> ASGIApp:
        # The router has found it, or there was no need to ask it.
        found = request.scope.get("path_params")
        name = found["name"] if found else request.scope["path"].removeprefix(TOOLS)
        try:
            answer = await self._call(request, name)
            return SuccessResponse(answer) if isinstance(answer, ToolSuccess) else refusal_response(answer)
        except ClientDisconnect:
            # Nobody reads this.
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Exception as error:
            return refusal_response(refusal_for(error, name), access_headers(error))

    async def _call(self, request: Request, name: str) -> ToolSuccess | ToolRefusal:
        arrival = arrival_of(request)
        gateway = self._gateway
        principal = await gateway.authenticate(credential_of(request.headers), arrival)
        async with gateway.admit(principal, arrival, gateway.tool_name(name)) as admission:
            arguments = await read_arguments(request, self._maximum_body_bytes)
            context = context_from_headers(request.headers.raw)
            call = ToolCall(name=name, arguments=arguments, context=context)
            return await gateway.call_tool(call, admission, left=partial(gone, request.receive))
