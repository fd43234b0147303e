"""How a request came in."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from headrace_gateway.access import Arrival


def arrival_of(request: HTTPConnection) -> Arrival:
    """Over HTTP, and from which address."""
    return Arrival("http", request.client.host if request.client is not None else None)
