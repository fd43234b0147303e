"""What an attempt in a child process says while it runs: how far it is, and what it logs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from headrace.core.snapshots import shorten
from headrace.engine.processes.frames import Kind

Send = Callable[[Kind, bytes], None]

# It is written down once a second; an attempt that says it in a tight loop must not keep its engine busy.
_APART_SECONDS = 0.2
_LONGEST_MESSAGE_BYTES = 64 * 1024
_for_errors = logging.Handler()
_OWN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Reports:
    """Takes what attempts say of their progress, from any thread, and sends the newest of it a few times a second."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._said = threading.Condition()
        self._unsent: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None

    def progress(self, number: int, fraction: float, text: str | None) -> None:
        """An attempt says how far it is.

        Args:
            number: of the call, so that nothing is taken for another's.
        """
        with self._said:
            self._unsent = {"number": number, "fraction": float(fraction), "text": None if text is None else str(text)[:1000]}
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_sending, name="headrace-progress", daemon=True)
                self._thread.start()
            self._said.notify()

    def flush(self) -> None:
        """Sends what was not sent: the attempt is over."""
        with self._said:
            unsent, self._unsent = self._unsent, None
            if unsent is not None:
                self._send(Kind.PROGRESS, _encode(unsent))

    def _keep_sending(self) -> None:
        while True:
            with self._said:
                self._said.wait_for(lambda: self._unsent is not None)
            self.flush()
            time.sleep(_APART_SECONDS)


class LogForwarder(logging.Handler):
    """Hands log records on to the engine, whose handlers decide what becomes of them."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def install(self, levels: Mapping[str, int]) -> None:
        """From now on nothing is logged here, and all that the engine would log is sent.

        Args:
            levels: of the engine's loggers, by name.
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
            self._send(Kind.LOG, orjson.dumps(told, default=repr, option=orjson.OPT_NON_STR_KEYS))
        except Exception:
            self.handleError(record)


def levels_of(loggers: Mapping[str, object]) -> dict[str, int]:
    """The levels that were set of the loggers of a process, by name; "" is the root."""
    levels = {name: each.level for name, each in loggers.items() if isinstance(each, logging.Logger) and each.level}
    return {"": logging.getLogger().level, **levels}


def log_again(told: Mapping[str, Any]) -> None:
    """Logs in the engine what was logged in a child process. What filters and handlers raise is not the attempt's."""
    logger, record = logging.getLogger(told["name"]), logging.makeLogRecord(told)
    if logger.isEnabledFor(record.levelno):
        try:
            logger.handle(record)
        except Exception:
            _for_errors.handleError(record)


def _encode(said: Mapping[str, Any]) -> bytes:
    text = said["text"]
    return orjson.dumps({**said, "text": None if text is None else text.encode(errors="replace").decode()})
