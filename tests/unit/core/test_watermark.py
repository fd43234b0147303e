"""The watermark passes an offset only when all below it have ended."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.watermark import Watermark

offsets = st.lists(st.integers(min_value=0, max_value=60), max_size=80)


@given(st.integers(min_value=0, max_value=40), offsets)
def test_position_is_the_first_offset_that_has_not_ended(start: int, finished: list[int]) -> None:
    watermark = Watermark(start)
    for offset in finished:
        before = watermark.position
        rose = watermark.finish(offset)
        assert rose == (watermark.position > before)
    ended = set(finished) | set(range(start))
    expected = next(offset for offset in range(200) if offset >= start and offset not in ended)
    assert watermark.position == expected
    assert all(watermark.is_finished(offset) == (offset in ended) for offset in range(100))
    left = [offset for offset in range(200) if offset not in ended]
    assert all(watermark.next_unfinished(offset) == next(each for each in left if each >= offset) for offset in range(100))


@given(st.integers(min_value=0, max_value=40), offsets)
def test_ranges_are_what_ended_above_the_position(start: int, finished: list[int]) -> None:
    watermark = Watermark(start)
    for offset in finished:
        watermark.finish(offset)
    ranges = watermark.ranges()
    covered = {offset for first, last in ranges for offset in range(first, last + 1)}
    assert covered == {offset for offset in finished if offset > watermark.position}
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))


@given(st.integers(0, 30), offsets, st.integers(0, 40), st.integers(0, 20))
def test_skipping_a_gap_is_finishing_each_offset_of_it(start: int, finished: list[int], first: int, length: int) -> None:
    skipped, single = Watermark(start), Watermark(start)
    for offset in finished:
        skipped.finish(offset)
        single.finish(offset)
    skipped.skip(first, first + length)
    for offset in range(first, first + length):
        single.finish(offset)
    assert (skipped.position, skipped.ranges()) == (single.position, single.ranges())


def test_it_takes_room_by_the_number_of_gaps() -> None:
    watermark = Watermark(0)
    for offset in range(1, 100_000):
        watermark.finish(offset)
    assert watermark.ranges() == [(1, 99_999)]
    assert watermark.finish(0)
    assert (watermark.position, watermark.ranges()) == (100_000, [])
