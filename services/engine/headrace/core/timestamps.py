"""Times on the wire: RFC 3339, UTC, always with milliseconds, so that they sort as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)
def _format_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


def format_timestamp(milliseconds: int) -> str:
    """`milliseconds` since the Unix epoch as `2026-01-31T09:15:00.123Z`."""
    second, rest = divmod(milliseconds, 1000)
    return f"{_format_second(second)}.{rest:03d}Z"


def to_milliseconds(moment: datetime) -> int:
    """Milliseconds since the Unix epoch, rounded down; a time without zone is taken for UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(milliseconds: int) -> datetime:
    """The UTC time that is `milliseconds` after the Unix epoch."""
    return _EPOCH + timedelta(milliseconds=milliseconds)
