"""The HTTP application: the tools, and how the gateway is doing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace import Client, ConfigurationError, HeadraceError, Settings
from headrace_gateway.access import Names
from headrace_gateway.gateway import Gateway, gateway_for
from headrace_gateway.http.answers import JsonResponse, ProblemResponse
from headrace_gateway.http.calls import TOOLS, ToolCalls
from headrace_gateway.http.events import Streams
from headrace_gateway.http.guard import Guard
from headrace_gateway.http.health import add_health
from headrace_gateway.http.openapi import PROBLEM, ToolList, describe, with_workers
from headrace_gateway.http.paths import ANYTHING
from headrace_gateway.http.problems import problem_for
from headrace_gateway.http.serving import add_routes
from headrace_gateway.tools import ToolRegistry
from headrace_gateway.tools.formats import ToolFormat

logger = logging.getLogger(__name__)


class _Application(FastAPI):
    """Has tools called past all that FastAPI does around a request: that takes as long as a call.

    Args:
        calls: answers `POST /tools/<name>`, and guards it.
    """

    def __init__(self, calls: ASGIApp, **options: Any) -> None:
        super().__init__(**options)
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(TOOLS):
            await self._calls(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_http_app(
    settings: Settings, client: Client | None = None, tools: ToolRegistry | None = None, gateway: Gateway | None = None
) -> FastAPI:
    """The routes over HTTP as an ASGI application; the arguments are those of `headrace_gateway.application.create_app`.

    `app.state.streams` are its streams of events: whoever serves the application closes them when it stops. `app.state.needs` are
    asked by `/readyz` what is wrong with what else it needs: whoever serves the application may add to them.
    """
    used_client = client or Client(settings, view=True)
    used_gateway = gateway or gateway_for(settings, used_client, tools)
    owned: list[Client | Gateway] = [*([] if client else [used_client]), *([] if gateway else [used_gateway])]
    calls = ToolCalls(used_gateway, settings.gateway.maximum_body_bytes)
    names = Names.of(settings)
    app = _Application(
        Guard(calls, names=names, gateway=used_gateway),
        title="headrace tools gateway",
        docs_url=None,  # the page would load scripts from another host
        redoc_url=None,
        openapi_url=None,  # it is served below, with what there is now
        redirect_slashes=False,
        lifespan=_lifespan(owned),
    )
    app.state.gateway = used_gateway
    app.add_middleware(Guard, names=names, gateway=used_gateway)
    app.state.streams = streams = Streams()
    _add_tools(app, used_gateway, calls)
    add_routes(app, used_gateway, streams, settings.gateway.maximum_body_bytes)
    app.state.needs = add_health(app, used_client, used_gateway, names, streams)
    app.add_exception_handler(HTTPException, _problem)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(Exception, _unexpected)
    describe(app, used_gateway.tools)
    _add_description(app, used_gateway)
    return app


def _lifespan(owned: Sequence[Client | Gateway]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in owned:
                await stack.enter_async_context(each)
            yield

    return run


def _add_tools(app: FastAPI, gateway: Gateway, calls: ToolCalls) -> None:
    # For calls by other methods, and below a prefix. The description of a call is made from the tools' own definitions.
    app.router.routes.append(Route(f"{TOOLS}{{name:{ANYTHING}}}", calls, methods=["POST"], include_in_schema=False))

    @app.get(
        "/tools",
        summary="The tools there are",
        response_model=ToolList,
        responses=dict.fromkeys((400, 401, 403, 429, 503), PROBLEM),
    )
    async def list_tools(
        format: Annotated[ToolFormat, Query(description="Who is to read the definitions.")] = ToolFormat.MCP,
        strict: Annotated[
            bool, Query(description="Describe them so that a model's arguments are sure to fit; not for `mcp`.")
        ] = False,
    ) -> Response:
        try:
            return JsonResponse({"tools": await gateway.describe_tools(format, strict=strict)})
        except ConfigurationError as error:
            return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, str(error), code=error.code)
        except Exception as error:
            return problem_for(error, "/tools")


def _add_description(app: FastAPI, gateway: Gateway) -> None:
    async def describe_all(request: Request) -> Response:
        try:
            document = with_workers(app.openapi(), gateway.tools, await gateway.workers())
        except Exception as error:
            return problem_for(error, "/openapi.json")
        root = request.scope.get("root_path", "").rstrip("/")
        return JsonResponse(document | ({"servers": [{"url": root}]} if root else {}))

    app.add_route("/openapi.json", describe_all, include_in_schema=False)


_CODES: Final[dict[int, str]] = {HTTPStatus.NOT_FOUND: "route_unknown", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}


_HINTS: Final[dict[int, str]] = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path: GET /openapi.json tells what there is, GET /tools which tools.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path takes other methods (see the header Allow): GET /openapi.json tells what for.",
}


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    code = _CODES.get(error.status_code, "request_invalid")
    return ProblemResponse(error.status_code, _HINTS.get(error.status_code, str(error.detail)), headers, code=code)


async def _wrong(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = (f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
    return ProblemResponse(HTTPStatus.BAD_REQUEST, "; ".join(places), code="arguments_invalid")


async def _unexpected(request: Request, _: Exception) -> Response:
    # The server logs the exception itself.
    return ProblemResponse(HTTPStatus.SERVICE_UNAVAILABLE, f"{request.url.path} failed unexpectedly.", code=HeadraceError.code)
