"""What is answered to bytes that are no HTTP request, and so never reach the application."""

from __future__ import annotations

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from headrace_gateway.tools.refusals import refuse

_BODY = orjson.dumps(
    refuse("request_invalid", "This is no HTTP request, or its headers are longer than 64 KB.").model_dump(mode="json")
)


class EnvelopeProtocol(H11Protocol):
    """HTTP/1.1 by h11. A malformed request gets the tools' envelope instead of plain text."""

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
