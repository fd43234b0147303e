"""The endpoint of the Model Context Protocol without a server or a broker, and callers of it: for tests of what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.routing import Route

from headrace import Job, load_settings
from headrace_gateway import Gateway, Principal, Scope
from headrace_gateway.access import ALL_SCOPES, Anyone, Audit, Audited, Authenticator, CredentialInvalid, Limits
from headrace_gateway.mcp import MCP_PATH, McpEndpoint
from support.jobs import InMemoryJobs
from support.mcp_raw import ACCEPT, modern_request
from support.served import LIMITS

LIMIT = 10_000
HEADERS = {"accept": ACCEPT, "content-type": "application/json"}


class Tokens(Anyone):
    """Knows two users of different tenants, and two who may look at workers alone, and at jobs alone."""

    async def authenticate(self, credential: str | None) -> Principal:
        if credential == "ann's":
            return Principal(subject="ann", tenant="a", scopes=ALL_SCOPES)
        if credential == "bob's":
            return Principal(subject="bob", tenant="b", scopes=ALL_SCOPES)
        if credential == "nobody's":
            return Principal(subject="nobody", tenant="a", scopes=frozenset({Scope.WORKERS_READ}))
        if credential == "idle's":
            return Principal(subject="idle", tenant="a", scopes=frozenset({Scope.JOBS_READ}))
        raise CredentialInvalid("Send a key that counts.")


@asynccontextmanager
async def endpoint(
    jobs: InMemoryJobs,
    *,
    tokens: bool = False,
    authenticator: Authenticator | None = None,
    audit: Audit | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[httpx2.AsyncClient]:
    gateway = Gateway(load_settings(limits=LIMITS), jobs, authenticator=Tokens() if tokens else authenticator, audit=audit)
    if limits is not None:
        gateway.access.limits = limits
    served = McpEndpoint(gateway, maximum_body_bytes=LIMIT)
    application = Starlette(routes=[Route(MCP_PATH, served, methods=None)])
    transport = httpx2.ASGITransport(app=application)
    async with served.running(), httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def called(name: str, arguments: dict[str, Any], **headers: str) -> dict[str, Any]:
    """What a tool call of the newer era is sent with."""
    given, body = modern_request("tools/call", {"name": name, "arguments": arguments})
    return {"headers": {**given, **headers}, "content": json.dumps(body).encode()}


class Heard:
    """Keeps what was audited."""

    def __init__(self) -> None:
        self.calls: list[Audited] = []

    async def start(self) -> None:
        """Nothing is needed."""

    async def stop(self) -> None:
        """Nothing is held back."""

    def write(self, audited: Audited) -> None:
        # As it stands when it is written, whatever becomes of it.
        self.calls.append(replace(audited))


class Revocable(Tokens):
    """Whose credentials are revoked all at once."""

    def __init__(self) -> None:
        self.revoked = asyncio.Event()

    def is_valid(self, principal: Principal) -> bool:
        return not self.revoked.is_set()

    async def until_invalid(self, principal: Principal) -> None:
        await self.revoked.wait()


class NeverEnding(InMemoryJobs):
    """Jobs that do not change.

    Attributes:
        told: set when somebody who watches one was told how it stands, and waits for more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    async def watch_job(self, job_id: str, /, *, tenant: str = "default") -> AsyncGenerator[Job]:
        async for job in super().watch_job(job_id, tenant=tenant):
            yield job
        self.told.set()
        await asyncio.Event().wait()
