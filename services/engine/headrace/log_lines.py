"""The lines that a process of headrace logs."""

from __future__ import annotations

import logging

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class LogLines(logging.Formatter):
    """A line of what a worker says through `ctx.logger` names the worker, the job and the attempt; others are as they are."""

    def __init__(self) -> None:
        super().__init__(LOG_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """The line, without a traceback."""
        said = vars(record)
        if not {"worker", "job_id", "attempt"} <= said.keys():
            return super().formatMessage(record)
        who = f"{said['worker']} {said['job_id']} attempt {said['attempt']}"
        return super().formatMessage(logging.makeLogRecord({**said, "message": f"[{who}] {said['message']}"}))


def stderr_handler() -> logging.Handler:
    """Writes such lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines())
    return handler
