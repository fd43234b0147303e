"""Which records of a job partition ask for the same job, and so are done once (rules E1 and E2 of the ownership protocol)."""

from __future__ import annotations

import heapq
from enum import Enum, auto
from typing import NamedTuple

UNKNOWN = ""
"""In place of the digest of arguments that nobody knows any more. It equals every other."""


class Verdict(Enum):
    """What a record is whose id follows from something else: a new job, one that there is already, or the abuse of its id."""

    NEW = auto()
    DUPLICATE = auto()
    CONFLICT = auto()


class End(NamedTuple):
    """A job that has ended.

    Attributes:
        offset: of its record.
        at: when it ended, in milliseconds since the Unix epoch.
        digest: of its arguments.
    """

    offset: int
    at: int
    digest: str


class DerivedIds:
    """The ids of one job partition that are not fresh: those of jobs in hand, and of jobs that ended.

    Args:
        window: how long after its end a job is not done again, in milliseconds.
    """

    __slots__ = ("_ended", "_in_hand", "_order", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._in_hand: dict[str, tuple[int, str]] = {}
        self._ended: dict[str, tuple[End, ...]] = {}
        # By time, and not as they came: one that a wrong clock dated in the future must not keep all that came after it.
        self._order: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._in_hand) + len(self._ended)

    def judge(self, job_id: str, offset: int, at: int, digest: str) -> Verdict:
        """What a record is that comes next in the order of the log.

        A job in hand stands before it, and is the one that is done. One that has ended counts where it ended at another offset
        and within the window before the record's own time: how long the record waited to be read makes no difference.

        Args:
            at: the record's own time, in milliseconds since the Unix epoch.
            digest: of its arguments.
        """
        first = self._in_hand.get(job_id)
        if first is not None and first[0] != offset:
            return _compare(first[1], digest)
        for end in self._ended.get(job_id, ()):
            if end.offset != offset and end.at >= at - self._window:
                return _compare(end.digest, digest)
        return Verdict.NEW

    def take(self, job_id: str, offset: int, digest: str) -> None:
        """A job is in hand from now on."""
        self._in_hand.setdefault(job_id, (offset, digest))

    def end(self, job_id: str, end: End) -> None:
        """A job has ended; to hear of it again changes nothing, but that its digest may be known now."""
        first = self._in_hand.get(job_id)
        if first is not None and first[0] == end.offset:
            del self._in_hand[job_id]
        others = tuple(known for known in self._ended.get(job_id, ()) if known.offset != end.offset)
        self._ended[job_id] = (*others, end)
        heapq.heappush(self._order, (end.at, job_id))

    def has_ended(self, job_id: str, offset: int) -> bool:
        """Whether it is known that the job of this id and offset has ended."""
        return any(end.offset == offset for end in self._ended.get(job_id, ()))

    def forget(self, at: int) -> None:
        """Lets go of ends that no record can meet whose time is not more than a window before this one.

        Args:
            at: the time of a record that was read just now, in milliseconds since the Unix epoch: records that land late, and
                clocks of their senders that differ, have as long as a window.
        """
        before = at - 2 * self._window
        while self._order and self._order[0][0] < before:
            _, job_id = heapq.heappop(self._order)
            left = tuple(end for end in self._ended.get(job_id, ()) if end.at >= before)
            if left:
                self._ended[job_id] = left
            else:
                self._ended.pop(job_id, None)


def _compare(first: str, second: str) -> Verdict:
    return Verdict.DUPLICATE if first == second or UNKNOWN in (first, second) else Verdict.CONFLICT
