"""A limit, shared out by partition: never more starts than it has, and as many where there are jobs enough."""

from __future__ import annotations

import heapq
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.rate import MOST_STARTS, RateLimit, Share
from headrace.errors import ConfigurationError

limits = st.builds(RateLimit, count=st.integers(1, 60), per_seconds=st.sampled_from([0.5, 1.0, 60.0, 3_600.0]))
partitions = st.integers(1, 12)


def shares(limit: RateLimit, count: int, now: float = 0.0) -> list[Share]:
    return [Share(limit, number, count, now) for number in range(count)]


def most_in_a_window(starts: list[float], seconds: float) -> int:
    """The most starts in any time of this length, its end not included."""
    most = first = 0
    for last, at in enumerate(starts):
        while starts[first] <= at - seconds + 1e-6:
            first += 1
        most = max(most, last - first + 1)
    return most


def start_all(limit: RateLimit, count: int, windows: int) -> list[float]:
    """When jobs start if there are always enough in each partition."""
    dealt = shares(limit, count)
    due = [(share.next_at(), number) for number, share in enumerate(dealt)]
    heapq.heapify(due)
    starts = []
    while due[0][0] < windows * dealt[0].window:
        at, number = heapq.heappop(due)
        dealt[number].start(at)
        starts.append(at)
        heapq.heappush(due, (dealt[number].next_at(), number))
    return starts


@given(limits, partitions)
def test_the_shares_are_the_limit_and_each_has_one(limit: RateLimit, count: int) -> None:
    dealt = shares(limit, count)
    assert all(share.count >= 1 for share in dealt)
    assert {share.window for share in dealt} == {dealt[0].window}
    assert math.isclose(sum(share.count for share in dealt) / dealt[0].window, limit.count / limit.per_seconds)
    if limit.count >= count:
        assert dealt[0].window == limit.per_seconds
    assert max(share.count for share in dealt) - min(share.count for share in dealt) <= 1


@given(limits, partitions)
def test_with_jobs_enough_as_many_start_as_may_and_no_more_in_any_time(limit: RateLimit, count: int) -> None:
    starts = start_all(limit, count, 4)
    window = shares(limit, count)[0].window
    allowed = sum(share.count for share in shares(limit, count))
    assert most_in_a_window(starts, window) <= allowed
    assert len(starts) == 4 * allowed
    assert most_in_a_window(starts, limit.per_seconds) <= limit.count + 1, "also the first ones come evenly"


@given(limits, partitions, st.data())
def test_whenever_jobs_come_no_time_has_more_starts_than_the_limit(limit: RateLimit, count: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, count - 1))
    share = Share(limit, number, count, 0.0)
    now, starts = 0.0, []
    for wait in data.draw(st.lists(st.floats(0, 3), max_size=80)):
        now += wait * share.window / share.count
        free = share.free(now)
        assert (free > 0) == (share.next_at() <= now)
        assert free == 0 or share.next_at(free - 1) <= now
        assert free == share.count or share.next_at(free) > now
        if free:
            share.start(now)
            starts.append(now)
    assert most_in_a_window(starts, share.window) <= share.count


def test_who_waited_for_long_may_start_all_of_the_share_at_once() -> None:
    share = Share(RateLimit(80, 60.0), 3, 8, 0.0)
    assert share.free(1_000.0) == share.count == 10
    for _ in range(10):
        share.start(1_000.0)
    assert (share.free(1_059.9), share.free(1_060.0)) == (0, 10)


def test_a_limit_that_is_smaller_than_the_number_of_partitions_lets_each_have_its_turn() -> None:
    assert start_all(RateLimit(1, 60.0), 8, 2) == [60.0 * each for each in range(16)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"count": 0}, "count"),
        ({"count": True}, "count"),
        ({"count": 1.5}, "count"),
        ({"count": MOST_STARTS + 1}, "count"),
        ({"count": 1, "per_seconds": 0}, "per_seconds"),
        ({"count": 1, "per_seconds": "a minute"}, "per_seconds"),
        ({"count": 1, "per_seconds": math.inf}, "per_seconds"),
        ({"count": 1, "per_seconds": math.nan}, "per_seconds"),
    ],
)
def test_what_is_no_limit_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RateLimit(**values)
