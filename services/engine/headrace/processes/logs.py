"""What a child process logs is logged by its parent, whose handlers decide what becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from headrace.core.snapshots import shorten

_LONGEST_MESSAGE_BYTES = 64 * 1024
_for_errors = logging.Handler()
_OWN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LogForwarder(logging.Handler):
    """Hands log records on to the parent.

    Args:
        send: sends one, from any thread.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send

    def install(self, levels: Mapping[str, int]) -> None:
        """From now on nothing is logged here, and all that the parent would log is sent.

        Args:
            levels: of the parent's loggers, by name.
        """
        logging.getLogger().addHandler(self)
        for name, level in levels.items():
            logging.getLogger(name or None).setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a record, with its text made."""
        try:
            formatter = logging.Formatter()
            told = {
                **{name: getattr(record, name) for name in ("name", "levelno", "levelname", "created", "pathname", "lineno")},
                "funcName": record.funcName,
                "msg": shorten(record.getMessage(), _LONGEST_MESSAGE_BYTES),
                "exc_text": shorten(formatter.formatException(record.exc_info)) if record.exc_info else None,
                "process": record.process,
                "threadName": record.threadName,
                **{name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES},
            }
            self._send(orjson.dumps(told, default=repr, option=orjson.OPT_NON_STR_KEYS))
        except Exception:
            self.handleError(record)


def levels_set() -> dict[str, int]:
    """The levels that were set of the loggers of this process, by name; "" is the root."""
    loggers: Mapping[str, object] = logging.root.manager.loggerDict
    levels = {name: each.level for name, each in loggers.items() if isinstance(each, logging.Logger) and each.level}
    return {"": logging.getLogger().level, **levels}


def log_again(told: Mapping[str, Any]) -> None:
    """Logs in the parent what was logged in a child process. What filters and handlers raise is not its child's."""
    logger, record = logging.getLogger(told["name"]), logging.makeLogRecord(told)
    if logger.isEnabledFor(record.levelno):
        try:
            logger.handle(record)
        except Exception:
            _for_errors.handleError(record)
