"""What is answered to bytes that are no HTTP request, and so never reach the application."""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import Any, Final

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from headrace_gateway.http.answers import JSON
from headrace_gateway.http.extensions import WHOLE_ANSWER, WHOLE_BODY
from headrace_gateway.tools.refusals import refuse

LOOK_SECONDS: Final = 30.0
"""How often a connection is looked at. One that stood still from one look to the next, for its client's sake, is cut."""

_LENGTH: Final = b"\r\ncontent-length: "
_BODY = orjson.dumps(
    refuse("request_invalid", "This is no HTTP request, or its headers are longer than 64 KB.").model_dump(mode="json")
)


@lru_cache(maxsize=16)
def _head_with(defaults: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The head of an answer up to its length, with what the server says in every answer, such as the time."""
    told = b"".join(b"%b: %b\r\n" % header for header in defaults)
    return b"HTTP/1.1 200 OK\r\n%bcontent-type: %b\r\ncontent-length: " % (told, JSON)


def _whole_body(cycle: RequestResponseCycle) -> bytes | None:
    """What `RequestResponseCycle.receive` would give, if it would give all at once."""
    if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
        return None
    body, cycle.body = bytes(cycle.body), bytearray()
    cycle.message_event.clear()
    return body


class KeepingConnection(h11.Connection):
    """Keeps the head of an answer until its body is there, where its length is known: both go out by one write.

    What has no length, as a stream of events, may begin long after its head, which goes out at once.
    """

    _head = b""

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        parts = super().send_with_data_passthrough(event)
        if parts is None:
            return None
        if self._head:
            parts.insert(0, self._head)
            self._head = b""
        elif type(event) is h11.Response and _LENGTH in (head := b"".join(parts)):
            self._head = head
            return []
        return parts


class EnvelopeProtocol(H11Protocol):
    """HTTP/1.1 by h11. A malformed request gets the tools' envelope instead of plain text.

    Whoever sends no whole head of a request, or goes on with a body that was answered already, or reads no answer, is cut off
    after a while: uvicorn would keep the connection for as long as it pleases them, and that takes no credential.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._application, self.app = self.app, self._serve
        self.conn = self._fresh_connection()

    def _fresh_connection(self) -> KeepingConnection:
        limit = self.config.h11_max_incomplete_event_size
        return KeepingConnection(h11.SERVER) if limit is None else KeepingConnection(h11.SERVER, limit)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        # Requests of a connection are done one after another: while this one is, the cycle is its own.
        cycle = self.cycle
        extensions = {WHOLE_ANSWER: partial(self._answer, cycle), WHOLE_BODY: partial(_whole_body, cycle)}
        scope["extensions"] = extensions
        try:
            await self._application(scope, receive, send)
        finally:
            # They refer back to the scope: all that there is of the request would stay until the garbage collector comes by.
            extensions.clear()

    def _answer(self, cycle: RequestResponseCycle, content: bytes) -> bool:
        """Sends a whole answer, where the request was read to its end and the connection goes on after it; tells whether it did.

        h11 would check the head that is made here, and go through its states for it, which takes a tenth of a call. It takes up
        the connection again at the next request, of which some may have been read.
        """
        before = self.conn
        # Where the connection has to close after this request, or may become another protocol's, its state is another one.
        goes_on = before.their_state is h11.DONE and before.our_state is h11.SEND_RESPONSE and cycle.keep_alive
        if not goes_on or cycle.disconnected or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"%b%d\r\n\r\n%b" % (_head_with(tuple(cycle.default_headers)), len(content), content))
        self.conn = self._fresh_connection()
        cycle.message_event.set()
        cycle.on_response()
        if data := before.trailing_data[0]:
            self.data_received(data)
        return True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stood_at: tuple[object, int] | None = None
        self._look = self.loop.call_later(LOOK_SECONDS, self._look_at_it)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _look_at_it(self) -> None:
        begun = self.cycle is not None  # before the first request there is none
        served = begun and not self.cycle.response_complete and not self.transport.is_closing()
        # While a request is done, it is the client that is waited for only where it does not read.
        stands_at = None if served and not self.flow.write_paused else (self.cycle, self.transport.get_write_buffer_size())
        if stands_at is not None and stands_at == self._stood_at:
            self.transport.abort()
            return
        self._stood_at = stands_at
        self._look = self.loop.call_later(LOOK_SECONDS, self._look_at_it)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the signature is uvicorn's
        # In the middle of a body that is malformed the answer may be under way already.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY)), (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=_BODY),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
