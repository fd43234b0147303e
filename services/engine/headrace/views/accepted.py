"""The jobs that were accepted here and have no row in the view yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

from headrace.models import Job
from headrace.ports import TopicPartition

ACCEPTED_SECONDS: Final = 0.5
"""How long the row of a job that was accepted here may wait to be written with others, while nobody reads."""
MOST_UNWRITTEN: Final = 10_000
"""So many accepted jobs may wait for their rows; from then on whoever adds one waits, too."""

_Place = tuple[str, int]


class AcceptedJobs:
    """Those that wait, and those that are being written.

    Attributes:
        hand_overs: how often jobs were handed over to be written.
        waiting: how many have no row, and are not being written.
    """

    def __init__(self) -> None:
        # By partition, with the offsets of their records: what was passed is found without a look at the jobs.
        self._waiting: dict[_Place | None, list[tuple[int, Job]]] = {}
        self._in_hand: Sequence[Job] = ()
        self.waiting = 0
        self.hand_overs = 0

    def add(self, jobs: Sequence[Job]) -> None:
        """These were accepted."""
        for job in jobs:
            source = job.source
            place, offset = (None, 0) if source is None else ((source.topic, source.partition), source.offset)
            some = self._waiting.get(place)
            if some is None:
                self._waiting[place] = [(offset, job)]
            else:
                some.append((offset, job))
        self.waiting += len(jobs)

    @property
    def oldest(self) -> Job | None:
        """One of those that wait: the same until it waits no more."""
        return next((some[0][1] for some in self._waiting.values()), None)

    @property
    def owed(self) -> bool:
        """Whether a job has no row yet."""
        return bool(self._waiting or self._in_hand)

    @contextmanager
    def hand_over(self) -> Iterator[Sequence[Job]]:
        """Those that wait, to be written by the block. If it fails, they wait again."""
        self._in_hand = [job for _, job in chain.from_iterable(self._waiting.values())]
        self.forget()
        self.hand_overs += 1
        try:
            yield self._in_hand
        except BaseException:
            self.add(self._in_hand)
            raise
        finally:
            self._in_hand = ()

    def passed(self, positions: Mapping[TopicPartition, int]) -> None:
        """The log was read up to these offsets, and with it the records of jobs that wait: they have their rows."""
        if not self._waiting:
            return
        for place, position in positions.items():
            before = self._waiting.pop(place, None)
            if before is None:
                continue
            left = [each for each in before if each[0] >= position]
            if left:
                self._waiting[place] = left
            self.waiting -= len(before) - len(left)

    def forget(self) -> None:
        """Leaves the rows to the records."""
        self._waiting = {}
        self.waiting = 0
