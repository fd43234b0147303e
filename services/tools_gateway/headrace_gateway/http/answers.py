"""How the answers of tools look over HTTP: the envelope, and the one table of statuses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace import ToolRefusal, ToolSuccess
from headrace_gateway.access import CredentialInvalid, LimitExceeded
from headrace_gateway.http.extensions import WHOLE_ANSWER, extension_of

STATUSES: Final = {
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "host_refused": HTTPStatus.FORBIDDEN,
    "origin_refused": HTTPStatus.FORBIDDEN,
    "tool_unknown": HTTPStatus.NOT_FOUND,
    "job_unknown": HTTPStatus.NOT_FOUND,
    "idempotency_conflict": HTTPStatus.CONFLICT,
    "job_not_cancellable": HTTPStatus.CONFLICT,
    "job_not_retriable": HTTPStatus.CONFLICT,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "payload_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_in_flight": HTTPStatus.TOO_MANY_REQUESTS,
    "broker_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "configuration_error": HTTPStatus.SERVICE_UNAVAILABLE,
    "enqueue_timeout": HTTPStatus.SERVICE_UNAVAILABLE,
    "internal_error": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status for each code of a refusal; every other one means that the caller has to mend the call: 400."""

UNREAD: Final = frozenset({"body_too_large", "body_late"})
"""Refusals after which the rest of the body may still come: the connection cannot be used again."""


JSON: Final = b"application/json"


PROBLEM_CODE: Final = "headrace.problem_code"


class JsonResponse(Response):
    """JSON, by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else orjson.dumps(content)


class ProblemResponse(JsonResponse):
    """What is wrong with a request that is not a tool call (RFC 9457)."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, *, code: str) -> None:
        content: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
        super().__init__(content, status_code=status, headers=headers)
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it, and leaves its code in the scope to whoever audits what was answered."""
        scope[PROBLEM_CODE] = self._code
        await super().__call__(scope, receive, send)


def status_of(answer: ToolSuccess | ToolRefusal) -> HTTPStatus:
    """The status with which an answer is sent."""
    if isinstance(answer, ToolSuccess):
        return HTTPStatus.OK
    return STATUSES.get(answer.error.code, HTTPStatus.BAD_REQUEST)


def access_headers(error: BaseException) -> dict[str, str]:
    """What a response has to say besides, when this error is the reason: how to come in, or when to come again."""
    if isinstance(error, CredentialInvalid):
        return {"www-authenticate": 'Bearer realm="headrace"'}
    if isinstance(error, LimitExceeded):
        return {"retry-after": str(error.retry_after)}
    return {}


class SuccessResponse:
    """The envelope of a tool call that was done, as an ASGI application.

    A server that takes whole answers is given it at once: by messages it takes several times as long.
    """

    __slots__ = ("_content",)

    def __init__(self, answer: ToolSuccess) -> None:
        # Its data are plain JSON already.
        self._content = orjson.dumps({"ok": True, "data": answer.data})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the signature is ASGI's
        content = self._content
        send_whole = extension_of(scope, WHOLE_ANSWER)
        if send_whole is not None and send_whole(content):
            return
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", JSON)]
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def refusal_response(refusal: ToolRefusal, headers: dict[str, str] | None = None) -> JsonResponse:
    """The envelope of a tool call that was refused."""
    content = orjson.dumps(refusal.model_dump(mode="json", by_alias=True))
    response = JsonResponse(content, status_code=status_of(refusal), headers=headers)
    if refusal.error.code in UNREAD:
        response.headers["connection"] = "close"
    return response
