"""Times on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from headrace.core.timestamps import format_timestamp, from_milliseconds, parse_timestamp, to_milliseconds
from headrace.errors import ArgumentsInvalid
from headrace.replay.history import Span

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# As tables show times, which are in UTC: with a Z after them they can be given back.
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
            f"{option} {text!r} is no time: give one with its zone, such as 2026-01-31T09:15:00Z (tables show times in UTC: put a"
            " Z after them), or how long ago it was:"
            " 90s, 30m, 2h, 7d; or now."
        ) from None


def parse_span_in_export(start: str | None, end: str, exported: Span) -> Span:
    """The span of `--from` and `--to` of what is read from an export: its begin where no start is given, its end for `now`.

    Raises:
        ArgumentsInvalid: one of them is no time, or the span is empty.
    """
    now = datetime.now(UTC)
    first = exported.start if start is None else to_milliseconds(parse_moment(start, now, "--from"))
    if end == "now":
        return Span(first, exported.end)
    last = to_milliseconds(parse_moment(end, now, "--to"))
    if first < 0 or first >= last:
        begin = format_timestamp(exported.start) if start is None else start
        raise ArgumentsInvalid(f"--from {begin!r} is not before --to {end!r}: the span is empty.")
    return Span(first, last)


def parse_span(start: str, end: str) -> Span:
    """The span of `--from` and `--to`.

    Raises:
        ArgumentsInvalid: one of them is no time, or the span is empty.
    """
    now = datetime.now(UTC)
    span = Span(*(to_milliseconds(parse_moment(text, now, option)) for text, option in ((start, "--from"), (end, "--to"))))
    if span.start < 0 or span.start >= span.end:
        raise ArgumentsInvalid(f"--from {start!r} is not before --to {end!r}: the span is empty.")
    return span
