"""Serves the routes beside the tools: lets callers in, reads what they ask for, and answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from headrace import ArgumentsInvalid, check_plain, describe_problems
from headrace_gateway.access import Admission
from headrace_gateway.access.admission import CANCELLED, outcome_of
from headrace_gateway.access.credentials import credential_of
from headrace_gateway.gateway import Gateway
from headrace_gateway.http.answers import JsonResponse
from headrace_gateway.http.arrival import arrival_of
from headrace_gateway.http.body import read_arguments
from headrace_gateway.http.events import EventStream, Streams
from headrace_gateway.http.leaving import gone, while_there
from headrace_gateway.http.models import LONGEST_NAME
from headrace_gateway.http.paths import ANYTHING
from headrace_gateway.http.problems import problem_for
from headrace_gateway.http.routes import ROUTES, STREAMS, Asked, NothingLeft, Route, StreamRoute
from headrace_gateway.tools.registry import DEEPEST_ARGUMENTS, is_deeper_than

Endpoint = Callable[[Request], Awaitable[Response]]


def add_routes(app: FastAPI, gateway: Gateway, streams: Streams, maximum_body_bytes: int) -> None:
    """Serves all of them."""
    served: dict[str, dict[str, Endpoint]] = {}
    for route in ROUTES:
        served.setdefault(route.path, {})[route.method] = _endpoint(route, gateway, maximum_body_bytes)
    for stream in STREAMS:
        served.setdefault(stream.path, {})[stream.method] = _stream_endpoint(stream, gateway, streams)
    for path, endpoints in served.items():
        # The description is made from the routes themselves. One route for a path: what it allows is told of whole.
        app.add_api_route(_served(path), _by_method(endpoints), methods=list(endpoints), include_in_schema=False)


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await endpoints[request.method](request)

    return endpoint


def _served(path: str) -> str:
    # A conversation may be called anything: `/` in its name is a part of the path.
    return path.replace("{conversationId}", f"{{conversationId:{ANYTHING}}}")


def _endpoint(route: Route, gateway: Gateway, maximum_body_bytes: int) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            arrival = arrival_of(request)
            principal = await gateway.authenticate(credential_of(request.headers), arrival)
            async with gateway.admit(principal, arrival) as admission:
                operations = gateway.operations(admission, left=partial(gone, request.receive))
                operations.check_scope(route.operation)
                body = None
                if route.body is not None:
                    body = parse_body(route.body, await read_arguments(request, maximum_body_bytes))
                asked = Asked(
                    operations=operations,
                    names=_names(request),
                    query=parse_query(route.query, request),
                    body=body,
                )
                answer = await route.handler(asked)
            return JsonResponse(answer.to_wire())
        except ClientDisconnect:
            # Nobody reads this.
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Exception as error:
            return problem_for(error, route.path)

    return endpoint


def _stream_endpoint(route: StreamRoute, gateway: Gateway, streams: Streams) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        async with AsyncExitStack() as held:
            admission: Admission | None = None
            try:
                arrival = arrival_of(request)
                principal = await gateway.authenticate(credential_of(request.headers), arrival)
                admission = await held.enter_async_context(gateway.admit(principal, arrival, stream=True))
                last = request.headers.get("last-event-id") or None
                query = parse_query(route.query, request)
                asked = Asked(operations=gateway.operations(admission), names=_names(request), query=query)
                opening = _open(route, asked, last, held)
                # What it refuses it refuses here, before a status is sent.
                source, first = await while_there(opening, request, gateway=gateway, principal=principal)
                admission.began()
            except NothingLeft:
                return Response(status_code=HTTPStatus.NO_CONTENT)
            except ClientDisconnect:
                if admission is not None:
                    admission.refuse(CANCELLED)
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            except Exception as error:
                if admission is not None:
                    admission.refuse(outcome_of(error))
                return problem_for(error, route.path)
            invalid = gateway.until_invalid(principal)
            return EventStream(source, streams=streams, invalid=invalid, held=held.pop_all(), first=[first])

    return endpoint


async def _open(route: StreamRoute, asked: Asked, last: str | None, held: AsyncExitStack) -> tuple[AsyncGenerator[bytes], bytes]:
    """The source of a stream, which `held` closes, and its first part."""
    source = await held.enter_async_context(aclosing(await route.opens(asked, last)))
    return source, await anext(source, b"")


def _names(request: Request) -> dict[str, str]:
    """The names in the path. Raises: ArgumentsInvalid."""
    names: dict[str, str] = request.path_params
    for name, value in names.items():
        if not 1 <= len(value) <= LONGEST_NAME:
            raise ArgumentsInvalid(f"{name}: it must have from 1 to {LONGEST_NAME} characters.")
        try:
            check_plain(value)
        except ValueError as error:
            raise ArgumentsInvalid(f"{name}: {error}.") from None
    return names


def parse_query(model: type[BaseModel], request: Request) -> BaseModel:
    """The query of a request.

    Raises:
        ArgumentsInvalid: a name is unknown or given twice, or a value does not fit.
    """
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise ArgumentsInvalid(f"{name[:100]}: it is given more than once; give it once.")
        given[name] = value
    try:
        return model.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ArgumentsInvalid(f"The query is wrong: {describe_problems(error, model)}.") from None


def parse_body(model: type[BaseModel], raw: dict[str, Any]) -> BaseModel:
    """The body of a request.

    Raises:
        ArgumentsInvalid: it does not fit.
    """
    if is_deeper_than(raw, DEEPEST_ARGUMENTS):
        raise ArgumentsInvalid(f"The body is nested more than {DEEPEST_ARGUMENTS} levels deep.")
    try:
        # From JSON, since only there a strict check takes text for a time.
        return model.model_validate_json(orjson.dumps(raw), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ArgumentsInvalid(f"The body is wrong: {describe_problems(error, model)}.") from None
