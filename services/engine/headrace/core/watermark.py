"""What of a job partition has ended: the watermark, and the offsets above it that ended already."""

from __future__ import annotations

from collections.abc import Iterable


class Watermark:
    """The set of finished offsets of one partition, as intervals: all below `position`, and single ranges above it.

    Args:
        position: the offset below which every job has ended, as the last owner committed it.
    """

    __slots__ = ("_above", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        self._above: set[int] = set()

    def finish(self, offset: int) -> bool:
        """Marks an offset as ended; tells whether the watermark rose. Ending twice changes nothing."""
        if offset != self.position:
            if offset > self.position:
                self._above.add(offset)
            return False
        position = offset + 1
        above = self._above
        while position in above:
            above.remove(position)
            position += 1
        self.position = position
        return True

    def skip(self, first: int, end: int) -> None:
        """Marks the offsets from `first` up to, not including, `end` as ended: the log has no records there."""
        if first <= self.position < end:
            self.position = end - 1
            self._above = {offset for offset in self._above if offset >= end}
            self.finish(end - 1)
            return
        for offset in range(max(first, self.position), end):
            self.finish(offset)

    def is_finished(self, offset: int) -> bool:
        return offset < self.position or offset in self._above

    def ranges(self) -> list[tuple[int, int]]:
        """The finished offsets above the watermark, as (first, last), rising and apart from each other."""
        return merge_ranges(self._above)


def merge_ranges(offsets: Iterable[int]) -> list[tuple[int, int]]:
    """Single offsets as ranges (first, last)."""
    ranges: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if ranges and offset == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], offset)
        else:
            ranges.append((offset, offset))
    return ranges
