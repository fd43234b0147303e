"""All that the gateway serves over HTTP, as one application: its routes, and the Model Context Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route

from headrace import Client, Settings, load_settings
from headrace_gateway.http.app import create_app as create_http_app
from headrace_gateway.mcp import LOOPBACK, MCP_PATH, McpEndpoint
from headrace_gateway.tools import ToolRegistry


def create_app(settings: Settings | None = None, client: Client | None = None, tools: ToolRegistry | None = None) -> FastAPI:
    """The gateway as an ASGI application. Whoever serves it has to run its lifespan.

    Args:
        settings: read from the environment when left out.
        client: one that was started; its owner stops it. When left out, the application's lifespan starts and stops its own.
        tools: the tools it offers; `scheduler` and `worker_manager` when left out.
    """
    settings = settings or load_settings()
    app = create_http_app(settings, client, tools)
    endpoint = McpEndpoint(
        app.state.gateway, maximum_body_bytes=settings.gateway.maximum_body_bytes, security=_security(settings.gateway.host)
    )
    # Of all methods, so that a wrong one is answered as the protocol wants.
    app.router.routes.append(Route(MCP_PATH, endpoint, methods=None, include_in_schema=False))
    of_routes = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with of_routes(application), endpoint.running():
            yield

    app.router.lifespan_context = lifespan
    app.state.close_streams = endpoint.close_streams
    return app


def _security(host: str) -> TransportSecuritySettings | None:
    """Who reaches a gateway that listens on this machine alone must have meant this machine."""
    return LOOPBACK if host in ("localhost", "127.0.0.1", "::1") else None
