"""Reads a request's body, up to a limit, and as the JSON object that it has to be."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from headrace_gateway.http.extensions import WHOLE_BODY, extension_of
from headrace_gateway.tools import ToolRefused

BODY_TIMEOUT_SECONDS = 30.0

# A body that is too long is read on for a while and thrown away. Closing at once would make the kernel reset the connection, and
# the client, still sending, would never see the answer.
_DISCARDED_BYTES = 64 * 1024 * 1024
_DISCARDING_SECONDS = 5.0


async def read_arguments(request: Request, limit: int) -> dict[str, Any]:
    """The arguments that a body of at most `limit` bytes holds; no body is no arguments.

    Raises:
        ToolRefused: it is over the limit, is not JSON or no object, or did not come in time.
        ClientDisconnect: the client left before the body was whole.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    body = await _read(request, limit)
    if encoding not in ("", "identity"):
        raise ToolRefused(
            "body_invalid", f"The body is encoded with {encoding[:40]!r}: send it as it is, without Content-Encoding."
        )
    if not body:
        return {}
    try:
        arguments = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ToolRefused("body_invalid", f"The body is no JSON: {error}. Send the tool's arguments as a JSON object.") from None
    if not isinstance(arguments, dict):
        raise ToolRefused("body_invalid", "The body is JSON, but no object: send the tool's arguments as a JSON object.")
    return arguments


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        # A client that asked first has not begun to send.
        if request.headers.get("expect", "").lower() != "100-continue":
            await _discard(request)
        raise _too_large(limit)
    whole = extension_of(request.scope, WHOLE_BODY)
    if whole is not None and (body := whole()) is not None:
        if len(body) > limit:
            raise _too_large(limit)
        return bytes(body)
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            while more and size <= limit:
                chunk, more = await _next(request)
                chunks.append(chunk)
                size += len(chunk)
    except TimeoutError:
        raise ToolRefused("body_late", f"The body was not whole after {BODY_TIMEOUT_SECONDS:g} s: send it faster.") from None
    if size > limit:
        chunks.clear()
        if more:
            await _discard(request)
        raise _too_large(limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _next(request: Request) -> tuple[bytes, bool]:
    """A part of the body, and whether more may follow."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), bool(message.get("more_body", False))


async def _discard(request: Request) -> None:
    discarded, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARDING_SECONDS):
            while more and discarded <= _DISCARDED_BYTES:
                chunk, more = await _next(request)
                discarded += len(chunk)


def _too_large(limit: int) -> ToolRefused:
    return ToolRefused("body_too_large", f"The body is over the limit of {limit:,} bytes: send less.")
