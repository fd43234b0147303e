"""What is answered on the routes beside the tools when something is wrong (RFC 9457): the one table of their statuses."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from headrace import BrokerError, ConfigurationError, EnqueueTimeout, HeadraceError
from headrace_gateway.http.answers import STATUSES, UNREAD, ProblemResponse, access_headers
from headrace_gateway.tools.refusals import refuse

logger = logging.getLogger(__name__)

_OWN_STATUSES: Final = {
    "changes_gone": HTTPStatus.GONE,
    "watch_interrupted": HTTPStatus.SERVICE_UNAVAILABLE,
    "memory_error": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The statuses of what tools answer with 400, as to them every refusal is one thing."""


def problem_for(error: Exception, path: str) -> ProblemResponse:
    """The answer to a request that raised something. What is the operator's to know goes to the log, and not to the caller."""
    if isinstance(error, BrokerError):
        logger.warning("%s could not reach the broker: %s", path, error)
        code, told = error.code, "The log of jobs cannot be reached right now: repeat the request in a while."
    elif isinstance(error, ConfigurationError):
        logger.error("%s cannot work: %s", path, error)
        code, told = error.code, "Background jobs are not set up right. The gateway's log says what to mend."
    elif isinstance(error, EnqueueTimeout):
        # What a route writes it writes under an id that follows from what it is asked for.
        code = error.code
        told = f"No acknowledgement for job {error.job_id} came in time: repeat the request, it makes no second job."
    elif isinstance(error, HeadraceError) and error.code != HeadraceError.code:
        code, told = error.code, str(error)
    else:
        logger.error("%s failed unexpectedly", path, exc_info=error)
        code, told = HeadraceError.code, "The gateway failed unexpectedly; its log says why."
    status = _OWN_STATUSES.get(code) or STATUSES.get(code, HTTPStatus.BAD_REQUEST)
    headers = access_headers(error)
    if code in UNREAD:
        headers["connection"] = "close"
    return ProblemResponse(status, refuse(code, told).error.message, headers, code=code)
