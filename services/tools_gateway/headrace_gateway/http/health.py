"""Whether the gateway answers, and whether it does all that it is set up for.

Whoever looks after containers asks without a credential and by any name. So strangers are told how it stands and how far it is,
and no reasons: these name brokers, groups and topics. Reasons go to the log, and to those of whom it is known who they are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from headrace import Client
from headrace_gateway.access import AccessDenied, CredentialInvalid, HostRefused, LimitExceeded, Names, OriginRefused
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.answers import JsonResponse
from headrace_gateway.http.arrival import arrival_of
from headrace_gateway.http.events import Streams
from headrace_gateway.http.openapi import Health, Readiness

logger = logging.getLogger(__name__)

Need = Callable[[], str | None]
"""Says what is wrong with something that the gateway needs, or None."""

STOPPING: Final = "the gateway stops"
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")


def add_health(app: FastAPI, client: Client, gateway: Gateway, names: Names, streams: Streams) -> list[Need]:
    """Serves `/healthz` and `/readyz`. Returns what the latter asks, to which whoever serves the application may add."""
    needs: list[Need] = [lambda: _trouble_with_credentials(gateway)]
    standing = Standing(client, needs, streams)

    @app.get("/healthz", summary="Whether the process answers", response_model=Health)
    async def healthz() -> Response:
        return JsonResponse({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Whether the gateway does all that it is set up for: its view of jobs has caught up with the log, and so on",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Not yet; the tools that can work do."}},
    )
    async def readyz(request: Request) -> Response:
        ready, reason, behind = standing.now()
        detail = reason if ready or await _is_known(request, gateway, names) else _without_reason(reason, behind)
        body = {"ready": ready, "detail": detail, "behind": behind}
        return JsonResponse(body, status_code=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    return needs


class Standing:
    """How a gateway stands; what changes of that goes to the log whenever somebody asks."""

    def __init__(self, client: Client, needs: Sequence[Need], streams: Streams) -> None:
        self._client = client
        self._needs = needs
        self._streams = streams
        self._logged: str | None = None

    def now(self) -> tuple[bool, str, int]:
        """Whether it is ready, why or why not, and how many records its view is behind."""
        readiness = self._client.readiness()
        trouble = next((trouble for need in self._needs if (trouble := need()) is not None), None)
        ready = readiness.ready and trouble is None
        reason = trouble or readiness.detail
        if self._streams.closing.is_set():
            ready, reason = False, STOPPING
        self._log(ready, reason)
        return ready, reason, readiness.behind

    def _log(self, ready: bool, reason: str) -> None:
        # How far it is changes with each question, and is no news.
        told = _NUMBER.sub("", reason)
        if told == self._logged:
            return
        self._logged = told
        if ready:
            logger.info("The gateway is ready: %s", reason)
        else:
            logger.warning("The gateway is not ready: %s", reason)


def _trouble_with_credentials(gateway: Gateway) -> str | None:
    return None if gateway.trouble is None else f"API keys and revocations cannot be read on: {gateway.trouble}"


def _without_reason(reason: str, behind: int) -> str:
    if reason == STOPPING:
        return reason
    left = (
        f"{behind:,} records are left to read" if behind else "its log says why, and so does this answer to who has a credential"
    )
    return f"the gateway is not ready: {left}"


async def _is_known(request: Request, gateway: Gateway, names: Names) -> bool:
    """Whether it is known who asks. A credential that is none, and one that is used more than it may, are audited as ever."""
    arrival, credential = arrival_of(request), credential_of(request.headers)
    try:
        names.check_host(request.headers.get("host"))
        names.check_origin(request.headers.get("origin"))
        if gateway.access.is_open_to(arrival):
            return True
        if credential is None:
            return False
        principal = await gateway.authenticate(credential, arrival)
        async with gateway.admit(principal, arrival) as admission:
            admission.called("readyz")
    except (HostRefused, OriginRefused, CredentialInvalid, AccessDenied, LimitExceeded):
        return False
    return True
