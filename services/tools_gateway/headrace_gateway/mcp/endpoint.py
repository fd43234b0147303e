"""The protocol over HTTP: one path, of which any gateway can answer any request."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any, Final

import orjson
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import INVALID_REQUEST, PARSE_ERROR, jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from headrace_gateway.access import AccessDenied, Arrival, CredentialInvalid, LimitExceeded, Principal
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.gateway import Gateway
from headrace_gateway.mcp.callers import LetIn, remember
from headrace_gateway.mcp.errors import protocol_error
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
        if scope["method"] != "POST":
            text = "Send requests with POST: no session is kept, to which there would be more."
            refusal = _error(HTTPStatus.METHOD_NOT_ALLOWED, INVALID_REQUEST, text, {"allow": "POST"})
            await refusal(scope, receive, send)
            return
        async with AsyncExitStack() as held:
            message: Mapping[str, Any] = {}
            try:
                client = scope.get("client")
                arrival = Arrival("mcp", client[0] if client else None)
                principal = await self._gateway.authenticate(credential_of(Headers(scope=scope)), arrival)
                try:
                    body = await self._body(receive)
                    message = _message(body)
                except _Refused as refused:
                    async with self._gateway.admit(principal, arrival) as admission:
                        admission.refuse(refused.outcome)
                    raise
                # What it exceeds is said here, where there can be a status still: an answer may begin long before it ends.
                let_in = self._let_in(principal, arrival, message)
                if let_in is not None:
                    await held.enter_async_context(let_in)
            except ClientDisconnect:
                return
            except (_Refused, CredentialInvalid, AccessDenied, LimitExceeded) as error:
                response = error.response if isinstance(error, _Refused) else _not_let_in(error, message.get("id"))
                await response(scope, receive, send)
                return
            remember(scope, principal, let_in)
            await self._manager.handle_request(scope, _replay(body, receive), send)

    async def _body(self, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read(receive, self._maximum)
        except TimeoutError:
            late = f"The body was not whole after {BODY_SECONDS:g} s: send it faster."
            raise _Refused(HTTPStatus.BAD_REQUEST, INVALID_REQUEST, late, {"connection": "close"}, outcome="body_late") from None

    def _let_in(self, principal: Principal, arrival: Arrival, message: Mapping[str, Any]) -> LetIn | None:
        """What lets a request in, or what is no message, which the server will refuse; None where nothing has to."""
        callers, method = self._server.callers, message.get("method")
        let_in = None
        if "id" in message and isinstance(method, str):
            let_in = callers.let_in(principal, arrival, method, message.get("params"))
        if let_in is None and not _is_message(message):
            let_in = callers.let_in(principal, arrival, None, None)
        return let_in


class _Refused(Exception):
    """What was sent is no message, which is answered here.

    Attributes:
        response: the answer.
        outcome: how the audit names it.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: int,
        message: str,
        headers: dict[str, str] | None = None,
        *,
        outcome: str = "request_invalid",
    ) -> None:
        super().__init__(message)
        self.response = _error(status, code, message, headers)
        self.outcome = outcome


def _not_let_in(error: CredentialInvalid | AccessDenied | LimitExceeded, message_id: str | int | None) -> Response:
    if isinstance(error, LimitExceeded):
        told = protocol_error(error, MCP_PATH).error
        headers = {"retry-after": str(error.retry_after)}
        return _error(HTTPStatus.TOO_MANY_REQUESTS, told.code, told.message, headers, message_id=message_id, data=told.data)
    if isinstance(error, CredentialInvalid):
        headers = {"www-authenticate": 'Bearer realm="headrace"'}
        return _error(HTTPStatus.UNAUTHORIZED, INVALID_REQUEST, str(error), headers)
    return _error(HTTPStatus.FORBIDDEN, INVALID_REQUEST, str(error))


def _message(body: bytes) -> Mapping[str, Any]:
    """The message that a body may be; one without anything where only the protocol's server can say what is wrong with it.

    Raises:
        _Refused: it is no JSON, as every JSON library has it that it meets, or has an id which is none: of that it would be said
            that it is a notification.
    """
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        told = f"The body is no JSON: {error}."
        raise _Refused(HTTPStatus.BAD_REQUEST, PARSE_ERROR, told, outcome="body_invalid") from None
    if not isinstance(message, dict):
        return {}
    if "id" in message and type(message["id"]) not in (str, int):
        raise _Refused(HTTPStatus.BAD_REQUEST, INVALID_REQUEST, "The id of a request has to be text or a whole number.")
    return message


def _is_message(message: Mapping[str, Any]) -> bool:
    """Whether it is a message of JSON-RPC, as the protocol's server has it."""
    try:
        jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        return False
    return True


async def _read(receive: Receive, maximum: int) -> bytes:
    """The whole body.

    Raises:
        _Refused: it is longer than `maximum`.
        ClientDisconnect: the client left before it was whole.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > maximum:
            told, closed = "The body is too large.", {"connection": "close"}
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID_REQUEST, told, closed, outcome="body_too_large")
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return again


def _error(
    status: HTTPStatus,
    code: int,
    message: str,
    headers: dict[str, str] | None = None,
    *,
    message_id: str | int | None = None,
    data: Any = None,
) -> Response:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    body = {"jsonrpc": "2.0", "id": message_id, "error": error}
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")
