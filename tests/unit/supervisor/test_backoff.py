"""How long to wait before another engine is started."""

from __future__ import annotations

from headrace.supervisor.backoff import Backoff


def test_it_doubles_up_to_half_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after(1) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_it_begins_anew_after_an_engine_that_lived_for_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (0, 0, 59.9, 60, 0)] == [0.5, 1, 2, 0.5, 1]
