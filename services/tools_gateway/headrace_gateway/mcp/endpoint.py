"""The protocol over HTTP: one path, of which any gateway can answer any request."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

import orjson
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import INVALID_REQUEST, PARSE_ERROR
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from headrace_gateway.access import AccessDenied, Arrival, CredentialInvalid
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.gateway import Gateway
from headrace_gateway.mcp.callers import remember
from headrace_gateway.mcp.service import build_server

MCP_PATH: Final = "/mcp"
BODY_SECONDS: Final = 30.0
"""How long the body of a request may take to come."""


class McpEndpoint:
    """An ASGI application for `MCP_PATH`. It answers within `running` alone.

    It keeps no session: each request is whole, so that another gateway can answer the next one. There is nothing, therefore, to
    which a GET would listen, or that a DELETE would end.

    Which hosts and origins are let in is checked by whoever mounts it.

    Args:
        maximum_body_bytes: the largest body that is read.
    """

    def __init__(self, gateway: Gateway, *, maximum_body_bytes: int) -> None:
        self._gateway = gateway
        self._maximum = maximum_body_bytes
        self._server = build_server(gateway)
        self._manager = StreamableHTTPSessionManager(self._server, stateless=True, max_request_body_size=maximum_body_bytes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers requests for as long as the block lasts, which has to begin and to end in one task. It can be used once."""
        async with self._manager.run():
            yield

    def close_streams(self) -> None:
        """Ends the streams on which clients listen, in order, so that a server that stops need not wait for them."""
        self._server.subscriptions.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        response = await self._refusal(scope)
        if response is None:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read(receive, self._maximum)
            except ClientDisconnect:
                return
            except TimeoutError:
                late = f"The body was not whole after {BODY_SECONDS:g} s: send it faster."
                await _error(HTTPStatus.BAD_REQUEST, INVALID_REQUEST, late, {"connection": "close"})(scope, receive, send)
                return
            response = _wrong_body(body)
            if response is None and body is not None:
                await self._manager.handle_request(scope, _replay(body, receive), send)
                return
        await (response or _error(HTTPStatus.BAD_REQUEST, INVALID_REQUEST, "Nothing was sent."))(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] != "POST":
            text = "Send requests with POST: no session is kept, to which there would be more."
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, INVALID_REQUEST, text, {"allow": "POST"})
        try:
            client = scope.get("client")
            arrival = Arrival("mcp", client[0] if client else None)
            principal = await self._gateway.authenticate(credential_of(Headers(scope=scope)), arrival)
        except CredentialInvalid as error:
            return _error(HTTPStatus.UNAUTHORIZED, INVALID_REQUEST, str(error), {"www-authenticate": 'Bearer realm="headrace"'})
        except AccessDenied as error:
            return _error(HTTPStatus.FORBIDDEN, INVALID_REQUEST, str(error))
        remember(scope, principal)
        return None


def _wrong_body(body: bytes | None) -> Response | None:
    """What is answered to a body that is no JSON, as every JSON library has it that it meets, or that has an id which is none: of
    that it would be said that it is a notification. None where it may be a message."""
    if body is None:
        return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID_REQUEST, "The body is too large.", {"connection": "close"})
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _error(HTTPStatus.BAD_REQUEST, PARSE_ERROR, f"The body is no JSON: {error}.")
    if isinstance(message, dict) and "id" in message and type(message["id"]) not in (str, int):
        return _error(HTTPStatus.BAD_REQUEST, INVALID_REQUEST, "The id of a request has to be text or a whole number.")
    return None


async def _read(receive: Receive, maximum: int) -> bytes | None:
    """The whole body; None when it is longer than `maximum`.

    Raises:
        ClientDisconnect: the client left before it was whole.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > maximum:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return again


def _error(status: HTTPStatus, code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")
