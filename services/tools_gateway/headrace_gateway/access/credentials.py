"""The credential of a request over HTTP, as its headers have it, whatever is asked for."""

from __future__ import annotations

from typing import Protocol


class Headers(Protocol):
    """The headers of a request, by names without regard to case."""

    def getlist(self, key: str, /) -> list[str]: ...


def credential_of(headers: Headers) -> str | None:
    """The credential of a request: what follows `Authorization: Bearer`, or stands in `X-API-Key`; None where there is neither.

    Several that differ are one that nobody knows: it could not be said which of them counts.
    """
    given = {_bearer(value) for value in headers.getlist("authorization")} | set(headers.getlist("x-api-key"))
    return next(iter(given), None) if len(given) < 2 else ""


def _bearer(value: str) -> str:
    scheme, _, credential = value.partition(" ")
    # Another scheme is a credential that counts for nothing, and not the absence of one.
    return credential.strip() if scheme.lower() == "bearer" else ""
