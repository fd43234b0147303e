"""The HTTP application: the tools, and how the gateway is doing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from headrace import Client, Settings, ToolCall, ToolRefusal, ToolSuccess, load_settings
from headrace_gateway.access import Names
from headrace_gateway.gateway import Gateway, gateway_for
from headrace_gateway.http.answers import JsonResponse, ProblemResponse, access_headers, envelope
from headrace_gateway.http.body import read_arguments
from headrace_gateway.http.context import context_from_headers
from headrace_gateway.http.credentials import arrival_of, credential_of
from headrace_gateway.http.guard import Guard
from headrace_gateway.http.openapi import Health, Readyness, ToolList, describe
from headrace_gateway.tools import ToolRegistry
from headrace_gateway.tools.refusals import refusal_for

logger = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    client: Client | None = None,
    tools: ToolRegistry | None = None,
    gateway: Gateway | None = None,
) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: read from the environment when left out.
        client: one that was started; its owner stops it. When left out, the application's lifespan starts and stops its own.
        tools: the tools it offers; `scheduler` and `worker_manager` when left out.
        gateway: one that was started, with tools of its own; its owner stops it. When left out, the application's lifespan starts
            and stops one. Who serves the application beyond this machine has to set `HEADRACE_GATEWAY_AUTHENTICATION`.
    """
    settings = settings or load_settings()
    used_client = client or Client(settings, view=True)
    used_gateway = gateway or gateway_for(settings, used_client, tools)
    owned: list[Client | Gateway] = [*([] if client else [used_client]), *([] if gateway else [used_gateway])]
    app = FastAPI(
        title="headrace tools gateway",
        docs_url=None,  # the page would load scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(owned),
    )
    app.state.gateway = used_gateway
    app.add_middleware(Guard, names=Names.of(settings), gateway=used_gateway)
    _add_tools(app, used_gateway, settings.gateway.maximum_body_bytes)
    _add_health(app, used_client, used_gateway)
    app.add_exception_handler(HTTPException, _problem)
    app.add_exception_handler(Exception, _unexpected)
    describe(app, used_gateway.tools)
    return app


def _lifespan(owned: Sequence[Client | Gateway]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in owned:
                await stack.enter_async_context(each)
            yield

    return run


def _add_tools(app: FastAPI, gateway: Gateway, maximum_body_bytes: int) -> None:
    # The description of a call is made from the tools' own definitions.
    @app.post("/tools/{name:path}", include_in_schema=False)
    async def call_tool(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            return envelope(await answer(request, name))
        except ClientDisconnect:
            # Nobody reads this.
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Exception as error:
            return envelope(refusal_for(error, name), access_headers(error))

    async def answer(request: Request, name: str) -> ToolSuccess | ToolRefusal:
        arrival = arrival_of(request)
        principal = await gateway.authenticate(credential_of(request.headers), arrival)
        async with gateway.admit(principal, arrival, gateway.tool_name(name)) as admission:
            arguments = await read_arguments(request, maximum_body_bytes)
            context = context_from_headers(request.headers.raw)
            call = ToolCall(name=name, arguments=arguments, context=context)
            return await gateway.call_tool(call, admission)

    @app.get("/tools", summary="The tools there are", response_model=ToolList)
    async def list_tools() -> Response:
        return JsonResponse({"tools": [tool.to_wire() for tool in gateway.tools]})


def _add_health(app: FastAPI, client: Client, gateway: Gateway) -> None:
    @app.get("/healthz", summary="Whether the process answers", response_model=Health)
    async def healthz() -> Response:
        return JsonResponse({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Whether the view of jobs has caught up with the log",
        response_model=Readyness,
        responses={503: {"model": Readyness, "description": "Not yet; the tools that can work do."}},
    )
    async def readyz() -> Response:
        readiness = client.readiness()
        trouble = gateway.trouble
        ready = readiness.ready and trouble is None
        detail = readiness.detail if trouble is None else f"API keys and revocations cannot be read on: {trouble}"
        body = {"ready": ready, "detail": detail, "behind": readiness.behind}
        return JsonResponse(body, status_code=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return ProblemResponse(error.status_code, str(error.detail), headers)


async def _unexpected(request: Request, _: Exception) -> Response:
    # The server logs the exception itself.
    return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, f"{request.url.path} failed unexpectedly.")
