"""Times on the wire: RFC 3339. headrace writes them in UTC, always with milliseconds, so that they sort as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
"""The first moment that can be written: its year has four digits, so that times sort as text."""
TOO_LATE = datetime(3000, 1, 1, tzinfo=UTC)
"""The first moment after all that can be written."""

# The years are those that a time has in its own zone; in UTC it may lie in one before or after them, and is refused then.
TIMESTAMP_PATTERN = r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-5][0-9])$"
"""A time on the wire, for every reader of one: text, with a zone, since nobody could say which moment it means without."""
_TIMESTAMP = re.compile(TIMESTAMP_PATTERN, re.ASCII)


@lru_cache(maxsize=64)
def _format_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


def format_timestamp(milliseconds: int) -> str:
    """`milliseconds` since the Unix epoch as `2026-01-31T09:15:00.123Z`."""
    second, rest = divmod(milliseconds, 1000)
    return f"{_format_second(second)}.{rest:03d}Z"


@lru_cache(maxsize=4_096)
def _parse_second(text: str) -> int:
    return _parse(f"{text}Z")


def _parse(text: str) -> int:
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError("a time is text as in RFC 3339, with its zone: 2026-01-31T09:15:00.123Z")
    moment = datetime.fromisoformat(text)
    if not EARLIEST <= moment < TOO_LATE:
        raise ValueError(f"a time is from the year {EARLIEST.year} to {TOO_LATE.year - 1} in UTC")
    return to_milliseconds(moment)


def parse_timestamp(text: str) -> int:
    """Milliseconds since the Unix epoch of a time on the wire, rounded down.

    Raises:
        TypeError: it is no text.
        ValueError: it is no time, has no zone, or cannot be written in UTC.
    """
    # As headrace writes it: the second is known from the record before, as a rule.
    if len(text) == 24 and text[19] == "." and text[23] == "Z" and (fraction := text[20:23]).isdecimal() and text.isascii():
        return _parse_second(text[:19]) + int(fraction)
    return _parse(text)


def to_milliseconds(moment: datetime) -> int:
    """Milliseconds since the Unix epoch, rounded down; a time without zone is taken for UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(milliseconds: int) -> datetime:
    """The UTC time that is `milliseconds` after the Unix epoch."""
    return _EPOCH + timedelta(milliseconds=milliseconds)
