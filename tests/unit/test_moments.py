"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.cli.moments import parse_moment, parse_since_and_until, parse_span, parse_span_in_export
from headrace.errors import ArgumentsInvalid
from headrace.replay.history import Span

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-01-31T09:15:00Z", datetime(2026, 1, 31, 9, 15, tzinfo=UTC)),
        ("2026-01-31 09:15:00Z", datetime(2026, 1, 31, 9, 15, tzinfo=UTC)),
        ("2026-01-31 09:15:00.250Z", datetime(2026, 1, 31, 9, 15, 0, 250_000, tzinfo=UTC)),
        ("2026-01-31T09:15:00.250+01:00", datetime(2026, 1, 31, 8, 15, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago_it_was(text: str, moment: datetime) -> None:
    assert parse_moment(text, NOW, "--at") == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2h ago", "-1h", "2026-01-31", "2026-01-31T09:15:00", "999999d999"),
        *("2026-01-31 09:15:00", "2026-01-31  09:15:00Z", "2026-01-31T09:15:00 Z", "2026-01-31 Z"),
    ],
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ArgumentsInvalid, match=r"--at .* is no time"):
        parse_moment(text, NOW, "--at")


def test_since_and_until_can_be_left_out_and_are_in_order() -> None:
    assert parse_since_and_until(None, None) == (None, None)
    assert parse_since_and_until(None, "2026-01-31T09:15:00Z") == (None, datetime(2026, 1, 31, 9, 15, tzinfo=UTC))
    first, last = parse_since_and_until("2h", "now")
    assert first is not None and last is not None and last - first == timedelta(hours=2)
    for since, until in (("1h", "2h"), ("now", "now")):
        with pytest.raises(ArgumentsInvalid, match=r"--since .* is not before --until"):
            parse_since_and_until(since, until)
    with pytest.raises(ArgumentsInvalid, match="--until 'soon' is no time"):
        parse_since_and_until(None, "soon")


def test_a_span_ends_after_it_begins() -> None:
    span = parse_span("2h", "1h")
    assert 3_599_000 < span.end - span.start < 3_601_000
    for start, end in (("1h", "2h"), ("now", "1h"), ("999999d", "now")):
        with pytest.raises(ArgumentsInvalid):
            parse_span(start, end)


@pytest.mark.parametrize(("start", "told"), [("1960-01-01T00:00:00Z", "1960-01-01T00:00:00.000Z"), ("300000d", "1[0-9]{3}-.*Z")])
@pytest.mark.parametrize("end", ["now", "1965-01-01T00:00:00Z"])
def test_a_span_that_begins_before_all_records_can_be_is_told_as_that(start: str, told: str, end: str) -> None:
    """It is not empty: its begin is before its end."""
    message = rf"^--from '{start}' is {told}: no record is of a time before 1970\.$"
    with pytest.raises(ArgumentsInvalid, match=message):
        parse_span(start, end)
    if end != "now":
        with pytest.raises(ArgumentsInvalid, match=message):
            parse_span_in_export(start, end, Span(0, 10_000))
