"""All that the gateway serves over HTTP, as one application: its routes, and the Model Context Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route

from headrace import Client, Settings, load_settings
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.app import create_http_app
from headrace_gateway.mcp import MCP_PATH, McpEndpoint
from headrace_gateway.tools import ToolRegistry


def create_app(
    settings: Settings | None = None,
    client: Client | None = None,
    tools: ToolRegistry | None = None,
    gateway: Gateway | None = None,
) -> FastAPI:
    """The gateway as an ASGI application. Whoever serves it has to run its lifespan.

    Args:
        settings: read from the environment when left out.
        client: one that was started; its owner stops it. When left out, the application's lifespan starts and stops its own.
        tools: the tools it offers; `scheduler` and `worker_manager` when left out.
        gateway: one that was started, with tools of its own; its owner stops it. When left out, the application's lifespan starts
            and stops one. Who serves the application beyond this machine has to set `HEADRACE_GATEWAY_AUTHENTICATION`.

    Whoever serves the application calls `app.state.close_streams` when it stops: all streams end, and none begins; and who waits
    for the end of a job is answered.
    """
    settings = settings or load_settings()
    app = create_http_app(settings, client, tools, gateway)
    # Host and Origin are checked before every route, this one as the others.
    endpoint = McpEndpoint(app.state.gateway, maximum_body_bytes=settings.gateway.maximum_body_bytes)
    # Of all methods, so that a wrong one is answered as the protocol wants.
    app.router.routes.append(Route(MCP_PATH, endpoint, methods=None, include_in_schema=False))
    of_routes = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with of_routes(application), endpoint.running():
            yield

    def close_streams() -> None:
        app.state.streams.close()
        app.state.gateway.stop_waiting()
        endpoint.close_streams()

    app.router.lifespan_context = lifespan
    app.state.close_streams = close_streams
    return app
