"""What of a job partition has ended: the watermark, and the offsets above it that ended already."""

from __future__ import annotations

from bisect import bisect_right


class Watermark:
    """The set of finished offsets of one partition, as intervals: all below `position`, and ranges above it.

    It takes room by the number of gaps, so that one job that runs for hours costs nothing while millions end behind it.

    Args:
        position: the offset below which every job has ended, as the last owner committed it.
    """

    __slots__ = ("_ends", "_starts", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        # Of the ranges above, rising and apart: the first offset, and the one after the last.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def finish(self, offset: int) -> bool:
        """Marks an offset as ended; tells whether the watermark rose. Ending twice changes nothing."""
        if offset == self.position:
            self._rise(offset + 1)
            return True
        if offset > self.position:
            self._add(offset, offset + 1)
        return False

    def skip(self, first: int, end: int) -> None:
        """Marks the offsets from `first` up to, not including, `end` as ended: the log has no records there."""
        first = max(first, self.position)
        if first >= end:
            return
        if first == self.position:
            self._rise(end)
        else:
            self._add(first, end)

    def is_finished(self, offset: int) -> bool:
        if offset < self.position:
            return True
        index = bisect_right(self._starts, offset)
        return index > 0 and offset < self._ends[index - 1]

    def next_unfinished(self, offset: int) -> int:
        """The first offset from this one on that has not ended."""
        if offset < self.position:
            return self.position
        index = bisect_right(self._starts, offset)
        return self._ends[index - 1] if index and offset < self._ends[index - 1] else offset

    def ranges(self) -> list[tuple[int, int]]:
        """The finished offsets above the watermark, as (first, last), rising and apart from each other."""
        return [(start, end - 1) for start, end in zip(self._starts, self._ends, strict=True)]

    def _rise(self, position: int) -> None:
        starts, ends = self._starts, self._ends
        passed = bisect_right(starts, position)
        if passed:
            position = max(position, ends[passed - 1])
            del starts[:passed], ends[:passed]
        self.position = position

    def _add(self, first: int, end: int) -> None:
        """Adds a range above the watermark, and joins it with those that it touches or overlaps."""
        starts, ends = self._starts, self._ends
        low = bisect_right(starts, first)
        if low and ends[low - 1] >= first:
            low -= 1
            first = starts[low]
        high = bisect_right(starts, end)
        if high > low:
            end = max(end, ends[high - 1])
        starts[low:high] = [first]
        ends[low:high] = [end]
