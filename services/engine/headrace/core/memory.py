"""The memory of a conversation, as its records in the order of the log make it: what is live, and which compactions hold.

Every reader folds the same records with `Conversation` and so comes to the same end. Nothing here looks at a text: an entry has
an id and a weight (its estimated tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

NO_VERSION = -1


@dataclass(frozen=True, slots=True)
class EntryFact:
    """Something was said: what the fold needs to know of an entry's record."""

    offset: int
    id: str
    weight: int


@dataclass(frozen=True, slots=True)
class CompactionFact:
    """A summary was written to take the place of entries. `weight` is the summary's."""

    offset: int
    id: str
    weight: int
    job_id: str
    base_version: int
    supersedes: Sequence[str]


class Verdict(StrEnum):
    """What became of a record. All but `APPLIED` change nothing."""

    APPLIED = "applied"
    READ_BEFORE = "read before"
    ID_TAKEN = "the id is taken"
    STALE = "another compaction came first"
    JOB_DONE = "the job has compacted already"
    NOTHING_LIVE = "nothing that it supersedes is live"


class Place(NamedTuple):
    """Where an entry or a summary stands. Places sort in reading order.

    Attributes:
        position: an entry's offset; for a summary, the position of the first entry that it replaced.
        offset: of the record that holds the text.
    """

    position: int
    offset: int
    id: str
    weight: int


@dataclass(frozen=True, slots=True)
class AppliedCompaction:
    """A compaction that holds, and the conversation's size before and after it.

    Attributes:
        version: the offset of its record, which is the conversation's version from there to the next one.
        superseded: how many live entries and summaries it replaced.
    """

    id: str
    job_id: str
    version: int
    superseded: int
    entries_before: int
    entries_after: int
    weight_before: int
    weight_after: int


class Conversation:
    """A conversation's records, folded in the order of the log.

    A compaction holds if its base version is the offset of the last compaction that held before it (a compare-and-set on the
    log), its job has no other, and something that it supersedes is live. Entries never make one void: what is appended while a
    summary is being written stays, behind it. An id belongs to the first record that has it.
    """

    def __init__(self) -> None:
        self.version = NO_VERSION
        self.weight = 0
        self._next_offset = 0
        self._live: dict[str, Place] = {}
        self._superseded: dict[str, tuple[Place, str]] = {}
        self._by_job: dict[str, AppliedCompaction] = {}

    def apply(self, fact: EntryFact | CompactionFact) -> Verdict:
        """Takes in the next record, and tells what became of it. A record that was read before changes nothing."""
        if fact.offset < self._next_offset:
            return Verdict.READ_BEFORE
        self._next_offset = fact.offset + 1
        if fact.id in self._live or fact.id in self._superseded:
            return Verdict.ID_TAKEN
        if isinstance(fact, CompactionFact):
            return self._compact(fact)
        self._add(Place(fact.offset, fact.offset, fact.id, fact.weight))
        return Verdict.APPLIED

    def _compact(self, fact: CompactionFact) -> Verdict:
        # The job first: a record that was written twice is told apart from one that lost to another job.
        if fact.job_id in self._by_job:
            return Verdict.JOB_DONE
        if fact.base_version != self.version:
            return Verdict.STALE
        replaced = [self._live[entry_id] for entry_id in dict.fromkeys(fact.supersedes) if entry_id in self._live]
        if not replaced:
            return Verdict.NOTHING_LIVE
        entries_before, weight_before = len(self._live), self.weight
        for place in replaced:
            del self._live[place.id]
            self.weight -= place.weight
            self._superseded[place.id] = (place, fact.id)
        self._add(Place(min(replaced).position, fact.offset, fact.id, fact.weight))
        self.version = fact.offset
        self._by_job[fact.job_id] = AppliedCompaction(
            id=fact.id,
            job_id=fact.job_id,
            version=fact.offset,
            superseded=len(replaced),
            entries_before=entries_before,
            entries_after=len(self._live),
            weight_before=weight_before,
            weight_after=self.weight,
        )
        return Verdict.APPLIED

    def _add(self, place: Place) -> None:
        self._live[place.id] = place
        self.weight += place.weight

    def place(self, entry_id: str) -> Place | None:
        """Where an entry or a summary stands that is live; None for any other."""
        return self._live.get(entry_id)

    def is_live(self, entry_id: str) -> bool:
        """Whether the entry or summary is part of what is read now."""
        return entry_id in self._live

    def knows(self, entry_id: str) -> bool:
        """Whether the id is taken, by something live or superseded."""
        return entry_id in self._live or entry_id in self._superseded

    def live(self) -> list[Place]:
        """What is read now, in reading order: a summary stands where the entries stood that it replaced."""
        return sorted(self._live.values())

    def history(self) -> list[tuple[Place, str | None]]:
        """All that was ever live, each with the id of the summary that replaced it. What a summary replaced stands before it."""
        replaced: dict[str, list[Place]] = {}
        for place, summary in sorted(self._superseded.values()):
            replaced.setdefault(summary, []).append(place)
        told: list[tuple[Place, str | None]] = []
        # From the end backwards, each before what it replaced; not by recursion, for a chain of summaries may be long.
        waiting: list[tuple[Place, str | None]] = [(place, None) for place in self.live()]
        while waiting:
            place, by = waiting.pop()
            told.append((place, by))
            waiting.extend((child, place.id) for child in replaced.get(place.id, ()))
        return told[::-1]

    def compactions(self) -> list[AppliedCompaction]:
        """The compactions that hold, oldest first."""
        return list(self._by_job.values())

    def compaction_of(self, job_id: str) -> AppliedCompaction | None:
        """The one compaction of a job that holds, or None."""
        return self._by_job.get(job_id)
