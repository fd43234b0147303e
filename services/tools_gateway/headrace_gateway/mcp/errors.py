"""Errors of headrace as errors of the protocol. What a tool refuses is an answer of the tool, and none of these."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, TypeVar

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from headrace import HeadraceError
from headrace_gateway.mcp.callers import RequestContext
from headrace_gateway.tools.refusals import refusal_for

logger = logging.getLogger(__name__)

ParametersT = TypeVar("ParametersT")
ResultT = TypeVar("ResultT")

_CODES: Final = {
    "arguments_invalid": INVALID_PARAMS,
    "job_unknown": INVALID_PARAMS,
    "forbidden": INVALID_REQUEST,
}
"""The protocol's code for each code of headrace that is the caller's to mend; every other one is an internal error."""


def protocol_error(error: Exception, what: str) -> MCPError:
    """The protocol's error for whatever was raised while `what` was done. What is the operator's to know goes to the log."""
    told = refusal_for(error, what).error
    return MCPError(_CODES.get(told.code, INTERNAL_ERROR), told.message, {"code": told.code})


def guarded(
    handler: Callable[[Any, RequestContext, ParametersT], Awaitable[ResultT]],
) -> Callable[[Any, RequestContext, ParametersT], Awaitable[ResultT]]:
    """A handler, a method, which raises errors of the protocol alone."""

    @wraps(handler)
    async def run(self: Any, request: RequestContext, parameters: ParametersT) -> ResultT:
        try:
            return await handler(self, request, parameters)
        except MCPError:
            raise
        except HeadraceError as error:
            raise protocol_error(error, request.method) from None
        except Exception as error:
            logger.exception("%s failed unexpectedly", request.method)
            raise MCPError(INTERNAL_ERROR, "The gateway failed unexpectedly.") from error

    return run
