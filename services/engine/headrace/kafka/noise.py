"""What aiokafka logs, at a bearable rate.

While a broker is away its clients say so at every attempt, ten times a second and more. Each message is let through once, and
then again only after a while; none is lost for good, and `DEBUG` is left alone.
"""

from __future__ import annotations

import logging
from time import monotonic

_LOGGERS = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)
_QUIET_SECONDS = 30.0


class _Repetitions(logging.Filter):
    """Drops a message whose like was logged a short while ago; what it was about does not make it another."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return True
        now = monotonic()
        kind = (record.name, str(record.msg))
        if now - self._last.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return False
        self._last[kind] = now
        return True


_REPETITIONS = _Repetitions()


def bound_noise() -> None:
    """Puts the filter on aiokafka's loggers; a second call changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_REPETITIONS)
