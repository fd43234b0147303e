"""What a caller is told when a call is not done: every error is turned into a code and a message here, and nowhere else."""

from __future__ import annotations

import logging

from headrace import BrokerError, ConfigurationError, EnqueueTimeout, HeadraceError, ToolError, ToolRefusal

logger = logging.getLogger(__name__)

LONGEST_MESSAGE = 2_000
_WHAT_TO_DO = {False: "repeat the call in a while", True: "look with worker_manager before you repeat the call"}


class ToolRefused(HeadraceError):
    """A tool refuses a call.

    Attributes:
        code: a stable name in snake_case, by which a program tells one refusal from another.
    """

    code = "refused"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # here each instance has its own


def refuse(code: str, message: str) -> ToolRefusal:
    """A refusal, with a message that is not endless, and no characters in it and its code that cannot be printed or sent."""
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 1] + "…"
    return ToolRefusal(error=ToolError(code=_printable(code, "_"), message=_printable(message, " ")))


def _printable(text: str, replacement: str) -> str:
    return "".join(character if character.isprintable() else replacement for character in text)


def refusal_for(error: Exception, tool: str, *, accepted: bool = False, call_id: str | None = None) -> ToolRefusal:
    """The refusal for whatever a tool raised. What is the operator's to know goes to the log, and not to the caller.

    Args:
        accepted: something of what the call asks for may be accepted already.
        call_id: the call's, where one that is sent again with it changes nothing more.
    """
    outcome = "Nothing was accepted" if not accepted else "What was asked for may be accepted"
    if isinstance(error, BrokerError):
        logger.warning("The tool %s could not reach the broker: %s", tool, error)
        return refuse(
            error.code,
            f"The queue of background jobs cannot be reached right now. {outcome}: {_WHAT_TO_DO[accepted]}.",
        )
    if isinstance(error, ConfigurationError):
        logger.error("The tool %s cannot work: %s", tool, error)
        return refuse(error.code, f"Background jobs are not set up right. {outcome}. The gateway's log says what to mend.")
    if isinstance(error, EnqueueTimeout):
        # In the words of tools: the error's own are for programs in Python.
        return refuse(error.code, f"No acknowledgement for job {error.job_id} came in time. {_advice(error, call_id)}")
    if isinstance(error, HeadraceError) and error.code != HeadraceError.code:
        return refuse(error.code, str(error))
    logger.error("The tool %s failed unexpectedly", tool, exc_info=error)
    return refuse(
        HeadraceError.code,
        "The gateway failed unexpectedly. Look with worker_manager whether the job was accepted before you repeat the call.",
    )


def _advice(error: EnqueueTimeout, call_id: str | None) -> str:
    if not error.may_be_accepted:
        return "It was not accepted: repeat the call."
    if call_id is not None:
        return "It may have been accepted: send the call again with the same callId, and no second job is made."
    return (
        "It may have been accepted: repeat the call as it was if it had an idempotencyKey; else look first with worker_manager "
        "(get_job, by that jobId) whether it is there."
    )
