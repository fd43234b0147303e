"""A gateway on a free port over a log in memory, whose callers are who their token says: for tests of what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from headrace import Client, Settings, load_settings
from headrace_gateway import Gateway, create_app
from headrace_gateway.access import LOCAL, Audit, CredentialInvalid, Principal
from headrace_gateway.http.protocol import EnvelopeProtocol
from headrace_gateway.server import _Server
from support.written_jobs import NAMESPACE, WrittenLog

LIMITS = {"calls_per_second": 1e6, "burst": 1_000_000, "calls_at_once": 1_000, "streams_at_once": 1_000}
"""Tests are quicker than any caller may be."""
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak HTTP alone: each would load all authorities that this machine trusts, which takes 40 ms."""
FOR_CALL = " for "
"""Stands between a token and the id of the one call for which it counts."""


class Tokens:
    """Knows callers by tokens that a test has made up; without any of them, everybody is `LOCAL`."""

    trouble: str | None = None

    @property
    def open_to_anyone(self) -> bool:
        return self._anybody

    def __init__(self, principals: Mapping[str, Principal] | None = None) -> None:
        self.principals = dict(principals or {})
        self._anybody = not self.principals
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        """Nothing is needed."""

    async def stop(self) -> None:
        """Nothing was begun."""

    async def authenticate(self, credential: str | None) -> Principal:
        if self._anybody:
            return LOCAL
        token, _, call_id = (credential or "").partition(FOR_CALL)
        if token not in self.principals:
            raise CredentialInvalid("Give a token.")
        return replace(self.principals[token], call_id=call_id or None)

    def is_valid(self, principal: Principal) -> bool:
        return self._anybody or replace(principal, call_id=None) in self.principals.values()

    async def until_invalid(self, principal: Principal) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self.is_valid(principal))

    async def revoke(self, token: str) -> None:
        async with self._changed:
            del self.principals[token]
            self._changed.notify_all()


class Served:
    """A gateway that is served.

    Attributes:
        client: of headrace, by which the gateway works.
        app: the application.
        url: where it answers.
    """

    def __init__(self, client: Client, app: FastAPI, tokens: Tokens, url: str) -> None:
        self.client = client
        self.app = app
        self.tokens = tokens
        self.url = url

    def http(self, token: str | None = None) -> httpx.AsyncClient:
        """A client of it, which its user closes."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False, headers=headers, verify=NO_CERTIFICATES)


def settings_in(folder: Path, **values: Any) -> Settings:
    """For the log in memory."""
    given: dict[str, Any] = {"limits": LIMITS, **values}
    return load_settings(bootstrap_servers="memory:9092", data_directory=folder, namespace=NAMESPACE, **given)


@contextlib.asynccontextmanager
async def served(
    log: WrittenLog, folder: Path, tokens: Mapping[str, Principal] | None = None, *, audit: Audit | None = None
) -> AsyncIterator[Served]:
    """A gateway with a view of its own in a folder."""
    settings = settings_in(folder)
    known = Tokens(tokens)
    async with Client(settings, log=log, view=True) as client:
        app = create_app(settings, client, gateway=Gateway(settings, client, authenticator=known, audit=audit))
        config = uvicorn.Config(
            app, port=0, http=EnvelopeProtocol, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=10
        )
        server = _Server(config)
        serving = asyncio.create_task(_serve(app, server))
        try:
            async with asyncio.timeout(20):
                await server.listening.wait()
                while not client.readiness().ready:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.01)
            host, port = server.servers[0].sockets[0].getsockname()[:2]
            yield Served(client, app, known, f"http://{host}:{port}")
        finally:
            app.state.close_streams()
            server.should_exit = True
            await serving


async def _serve(app: FastAPI, server: _Server) -> None:
    async with app.router.lifespan_context(app):
        await server.serve()
