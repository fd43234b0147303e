"""One conversation's memory as it was after any of its records: which of them an attempt saw, and what it read of them.

The order of the log is exact, and so is what a job wrote itself. Between these stand the times of records, and where the memory's
are those of its writers, their clocks may differ from the brokers'.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.codec import decode_object
from headrace.core.memory import NO_VERSION, AppliedCompaction, CompactionFact, Conversation, EntryFact, Place, Verdict
from headrace.memory import tables
from headrace.models import MemoryEntry
from headrace.ports import MemorySnapshot
from headrace.replay.history import Began

BY_BROKER: Final = 1
"""The type of the time of a record that a broker has given it."""
_EARLIER_RUN_MILLISECONDS: Final = 60_000
"""What a job wrote so long before its first attempt is of another one that had its id, and ended long ago."""
_NEVER: Final = (1 << 63) - 1
_LEAST_BETWEEN: Final = 64


class TimedRow(NamedTuple):
    """A record of a conversation, the log's time of it, and whether that is by the broker's clock, or by its writer's."""

    at: int
    by_broker: bool
    row: tables.Row


class _Step(NamedTuple):
    """What a record changed of what is read: what came, and the ids of what it took the place of."""

    place: Place
    replaced: Sequence[str]


class PastConversation:
    """A conversation's records, folded once. What is told of a moment costs about as much as is read of it.

    Args:
        rows: in the order of the log.
    """

    def __init__(self, rows: Sequence[TimedRow]) -> None:
        self.rows = rows
        self._last = {by_broker: _least_from_here_on(rows, by_broker) for by_broker in (False, True)}
        self._own: dict[str, list[int]] = {}
        self._steps: list[_Step | None] = []
        # What is live before some of the records. In all they hold no more than there are records.
        self._marks: list[int] = [0]
        self._live: list[Sequence[Place]] = [()]
        self._compactions: list[AppliedCompaction] = []
        self._compacted: list[int] = []
        self._values: dict[int, bytes] = {}
        self._entries: dict[int, MemoryEntry] = {}
        self._fold()

    def seen(self, at: int | Began) -> int:
        """How many of the records, from the first on, were there at a time, or when an attempt began.

        What stands before a record that was there was there as well. The job's own records end what it can have seen.
        """
        if isinstance(at, int):
            return max(bisect_right(times, at) for times in self._last.values())
        # Where the time is the writer's, most likely the job's client wrote it, or somebody with a clock like his.
        limits = {True: at.at, False: max(at.at, at.accepted_at)}
        end = min((number for number in self._own.get(at.job_id, ()) if self._is_since(number, at)), default=len(self.rows))
        found = max(bisect_right(self._last[by_broker], limit) for by_broker, limit in limits.items())
        if found <= end:
            return found
        return next((number for number in range(end, 0, -1) if (row := self.rows[number - 1]).at <= limits[row.by_broker]), 0)

    def _is_since(self, number: int, began: Began) -> bool:
        """Whether that record of a job's was written by this attempt, or a later one."""
        row = self.rows[number]
        first = began.at if row.by_broker else began.started_at
        return row.at > (first - _EARLIER_RUN_MILLISECONDS if began.attempt == 1 else first)

    def after(self, count: int) -> MemorySnapshot:
        """What was read after so many of the records."""
        number = bisect_right(self._marks, count) - 1
        live = {place.id: place for place in self._live[number]}
        for step in self._steps[self._marks[number] : count]:
            if step is not None:
                _take(live, step)
        places = sorted(live.values())
        compactions = tuple(self._compactions[: bisect_left(self._compacted, count)])
        return MemorySnapshot(
            version=compactions[-1].version if compactions else NO_VERSION,
            entries=tuple(map(self._entry, places)),
            tokens=sum(place.weight for place in places),
            compactions=compactions,
        )

    def _entry(self, place: Place) -> MemoryEntry:
        if (known := self._entries.get(place.offset)) is None:
            known = self._entries[place.offset] = tables.entry_of(self._values[place.offset])
        return known

    def _fold(self) -> None:
        folded, live = Conversation(), dict[str, Place]()
        for number, (_, _, row) in enumerate(self.rows):
            if number - self._marks[-1] >= max(_LEAST_BETWEEN, len(live)):
                self._marks.append(number)
                self._live.append(tuple(live.values()))
            replaced: Sequence[str] = ()
            writer = row.id.rpartition("-")[0]  # as a job's entries are numbered
            fact: EntryFact | CompactionFact = EntryFact(row.offset, row.id, row.weight)
            if row.compacts:
                raw = decode_object(row.value)
                writer, superseded = raw["jobId"], raw["supersedes"]
                fact = CompactionFact(row.offset, row.id, row.weight, writer, raw["baseVersion"], superseded)
                replaced = [each for each in dict.fromkeys(superseded) if folded.is_live(each)]
            self._own.setdefault(writer, []).append(number)
            step = None
            if folded.apply(fact) is Verdict.APPLIED and (place := folded.place(row.id)) is not None:
                step = _Step(place, replaced)
                _take(live, step)
                self._values[row.offset] = row.value
                if row.compacts and (applied := folded.compaction_of(writer)) is not None:
                    self._compactions.append(applied)
                    self._compacted.append(number)
            self._steps.append(step)


def _take(live: dict[str, Place], step: _Step) -> None:
    for each in step.replaced:
        del live[each]
    live[step.place.id] = step.place


def _least_from_here_on(rows: Sequence[TimedRow], by_broker: bool) -> array[int]:
    """Of each record the earliest time of those by that clock from it on: they rise, so that the last before a time is found."""
    least, found = _NEVER, array("q", bytes(8 * len(rows)))
    for number in range(len(rows) - 1, -1, -1):
        if rows[number].by_broker is by_broker:
            least = min(least, rows[number].at)
        found[number] = least
    return found
