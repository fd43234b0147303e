"""Times on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from headrace.core.timestamps import format_timestamp, from_milliseconds, parse_timestamp, to_milliseconds
from headrace.errors import ArgumentsInvalid

# A time by itself takes nothing of a replay, which takes long to import.
if TYPE_CHECKING:
    from headrace.replay.history import Span

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# As people write it.
_BETWEEN_DATE_AND_TIME = re.compile(r"(?<=^[0-9]{4}-[0-9]{2}-[0-9]{2}) (?=[0-9])")
_AGO = re.compile(r"([0-9]{1,6})([smhd])")


def parse_moment(text: str, now: datetime, option: str) -> datetime:
    """A time as in RFC 3339, or with a space between date and time, or how long ago it was: 90s, 30m, 2h, 7d; or `now`.

    Raises:
        ArgumentsInvalid: it is none of them.
    """
    try:
        if text == "now":
            return now
        if ago := _AGO.fullmatch(text):
            return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        return from_milliseconds(parse_timestamp(_BETWEEN_DATE_AND_TIME.sub("T", text)))
    except (ValueError, OverflowError):
        raise ArgumentsInvalid(
            f"{option} {text!r} is no time: give one with its zone, as tables show it, such as 2026-01-31T09:15:00Z, or how long "
            "ago it was: 90s, 30m, 2h, 7d; or now."
        ) from None


def parse_since_and_until(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """The times of `--since` and `--until`, of which either may be left out.

    Raises:
        ArgumentsInvalid: one of them is no time, or the first is not before the second.
    """
    now = datetime.now(UTC)
    first = None if since is None else parse_moment(since, now, "--since")
    last = None if until is None else parse_moment(until, now, "--until")
    if first is not None and last is not None and first >= last:
        raise ArgumentsInvalid(f"--since {since!r} is not before --until {until!r}: nothing is of that time.")
    return first, last


def parse_span_in_export(start: str | None, end: str, exported: Span) -> Span:
    """The span of `--from` and `--to` of what is read from an export: its begin where no start is given, its end for `now`.

    Raises:
        ArgumentsInvalid: one of them is no time, or the span is empty.
    """
    from headrace.replay.history import Span

    now = datetime.now(UTC)
    first = exported.start if start is None else to_milliseconds(parse_moment(start, now, "--from"))
    if end == "now":
        return Span(first, exported.end)
    last = to_milliseconds(parse_moment(end, now, "--to"))
    _check_span(first, last, format_timestamp(exported.start) if start is None else start, end)
    return Span(first, last)


def parse_span(start: str, end: str) -> Span:
    """The span of `--from` and `--to`.

    Raises:
        ArgumentsInvalid: one of them is no time, or the span is empty.
    """
    from headrace.replay.history import Span

    now = datetime.now(UTC)
    span = Span(*(to_milliseconds(parse_moment(text, now, option)) for text, option in ((start, "--from"), (end, "--to"))))
    _check_span(*span, start, end)
    return span


def _check_span(first: int, last: int, start: str, end: str) -> None:
    """Raises ArgumentsInvalid where nothing can be in a span, which is told as it was given."""
    if first < 0:
        raise ArgumentsInvalid(f"--from {start!r} is {format_timestamp(first)}: no record is of a time before 1970.")
    if first >= last:
        raise ArgumentsInvalid(f"--from {start!r} is not before --to {end!r}: the span is empty.")
