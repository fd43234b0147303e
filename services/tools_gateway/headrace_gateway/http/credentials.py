"""Who calls, as a request says it: the credential in its headers, and the address it came from."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from headrace_gateway.access import Arrival
from headrace_gateway.access.admission import Transport


def credential_of(headers: Headers) -> str | None:
    """The credential of a request: what follows `Authorization: Bearer`, or stands in `X-API-Key`; None where there is neither.

    Several that differ are one that nobody knows: it could not be said which of them counts.
    """
    given = {_bearer(value) for value in headers.getlist("authorization")} | set(headers.getlist("x-api-key"))
    return next(iter(given), None) if len(given) < 2 else ""


def arrival_of(request: HTTPConnection, transport: Transport = "http") -> Arrival:
    """How a request came in."""
    return Arrival(transport, request.client.host if request.client is not None else None)


def _bearer(value: str) -> str:
    scheme, _, credential = value.partition(" ")
    # Another scheme is a credential that counts for nothing, and not the absence of one.
    return credential.strip() if scheme.lower() == "bearer" else ""
