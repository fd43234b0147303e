"""What aiokafka logs, at a bearable rate.

While a broker is away its clients say so at every attempt, ten times a second and more; and a reader tells of all partitions that
it is given, as if it subscribed to something. Each message is let through once, and as long as it keeps coming, again only after
half a minute, then a minute, and so on; none is lost for good, and `DEBUG` is left alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic

# A filter sees what is said to its own logger alone, and nothing of those below.
_LOGGERS = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
)
_QUIET_SECONDS = 30.0
_LONGEST_QUIET_SECONDS = 3_600.0


@dataclass(slots=True)
class _Kind:
    """Messages that differ in what they are about alone.

    Attributes:
        said_at: when one was let through last.
        tried_at: when one came last.
        quiet: seconds after `said_at` in which none is let through.
    """

    said_at: float
    tried_at: float
    quiet: float = _QUIET_SECONDS


class _Repetitions(logging.Filter):
    """Drops a message whose like was logged a while ago; what it was about does not make it another."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return True
        now, name = monotonic(), (record.name, str(record.msg))
        kind = self._kinds.get(name)
        if kind is None or now - kind.tried_at >= _QUIET_SECONDS:
            self._kinds[name] = _Kind(said_at=now, tried_at=now)
            return True
        kind.tried_at = now
        if now - kind.said_at < kind.quiet:
            return False
        kind.said_at, kind.quiet = now, min(kind.quiet * 2, _LONGEST_QUIET_SECONDS)
        return True


_REPETITIONS = _Repetitions()


def bound_noise() -> None:
    """Puts the filter on aiokafka's loggers; a second call changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_REPETITIONS)
