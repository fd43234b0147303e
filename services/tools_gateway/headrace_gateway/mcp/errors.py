"""Errors of headrace as errors of the protocol. What a tool refuses is an answer of the tool, and none of these."""

from __future__ import annotations

from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from headrace_gateway.access import LimitExceeded
from headrace_gateway.tools.refusals import refusal_for

_CODES: Final = {
    "arguments_invalid": INVALID_PARAMS,
    "job_unknown": INVALID_PARAMS,
    "forbidden": INVALID_REQUEST,
    "unauthenticated": INVALID_REQUEST,
    "rate_limited": INVALID_REQUEST,
    "too_many_in_flight": INVALID_REQUEST,
}
"""The protocol's code for each code of headrace that is the caller's to mend; every other one is an internal error."""


def protocol_error(error: Exception, what: str, *, accepted: bool = False) -> MCPError:
    """The protocol's error for whatever was raised while `what` was done. What is the operator's to know goes to the log.

    Args:
        accepted: something of what was asked for may be accepted already.
    """
    told = refusal_for(error, what, accepted=accepted).error
    data: dict[str, str | int] = {"code": told.code}
    if isinstance(error, LimitExceeded):
        data["retryAfter"] = error.retry_after
    return MCPError(_CODES.get(told.code, INTERNAL_ERROR), told.message, data)
