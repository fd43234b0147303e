"""The jobs that were accepted here and have no row in the view yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from headrace.models import Job
from headrace.ports import TopicPartition

ACCEPTED_SECONDS: Final = 0.5
"""How long the row of a job that was accepted here may wait to be written with others, while nobody reads."""
MOST_UNWRITTEN: Final = 5_000
"""So many accepted jobs may wait for their rows; from then on whoever adds one waits, too."""


class AcceptedJobs:
    """Those that wait, and those that are being written.

    Attributes:
        hand_overs: how often jobs were handed over to be written.
    """

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._in_hand: Sequence[Job] = ()
        self.hand_overs = 0

    def add(self, jobs: Sequence[Job]) -> None:
        """These were accepted."""
        self._waiting.extend(jobs)

    @property
    def waiting(self) -> int:
        """How many have no row, and are not being written."""
        return len(self._waiting)

    @property
    def oldest(self) -> Job | None:
        """The one of these that was accepted first."""
        return self._waiting[0] if self._waiting else None

    @property
    def owed(self) -> bool:
        """Whether a job has no row yet."""
        return bool(self._waiting or self._in_hand)

    @contextmanager
    def hand_over(self) -> Iterator[Sequence[Job]]:
        """Those that wait, to be written by the block. If it fails, they wait again."""
        self._in_hand, self._waiting = self._waiting, []
        self.hand_overs += 1
        try:
            yield self._in_hand
        except BaseException:
            self._waiting[:0] = self._in_hand
            raise
        finally:
            self._in_hand = ()

    def passed(self, positions: Mapping[TopicPartition, int]) -> None:
        """The log was read up to these offsets, and with it the records of jobs that wait: they have their rows."""
        if self._waiting:
            self._waiting = [job for job in self._waiting if not _is_below(job, positions)]

    def forget(self, *, but: int = 0) -> None:
        """Leaves the rows to the records, but for those of so many newest jobs."""
        del self._waiting[: max(0, len(self._waiting) - but)]


def _is_below(job: Job, positions: Mapping[TopicPartition, int]) -> bool:
    source = job.source
    return source is not None and source.offset < positions.get(TopicPartition(source.topic, source.partition), 0)
