"""What happened in a run, in one order: what was written and committed, and what workers did, noted down outside of the log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from headrace.ports import Committed as Kept
from headrace.ports import TopicPartition
from headrace.testing.storage import StoredRecord


@dataclass(frozen=True, slots=True)
class Written:
    """A record landed."""

    at: float
    record: StoredRecord


@dataclass(frozen=True, slots=True)
class Committed:
    """A group keeps this offset of a partition from now on."""

    at: float
    partition: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client was told that its job is accepted."""

    at: float
    job_id: str


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """The client was told that its job is not accepted, for certain."""

    at: float
    job_id: str


@dataclass(frozen=True, slots=True)
class Calm:
    """Nothing goes wrong any more."""

    at: float


class Step(Enum):
    """What a worker does with a job: it begins, works on, hears that it is to stop, and ends."""

    STARTED = "started"
    WORKED = "worked"
    STOPPED = "stopped"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Execution:
    """A step of an attempt, as the world outside saw it.

    Attributes:
        token: the fencing token: the epoch, and the number of the attempt.
        apart: whether it runs in a child process of its own.
    """

    at: float
    step: Step
    process: str
    job_id: str
    token: tuple[int, int]
    apart: bool = False


class Fate(Enum):
    """What became of a process."""

    FROZEN = "frozen"
    THAWED = "thawed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ProcessFate:
    """A process stopped running, or goes on.

    Attributes:
        excused_until: before this, what a thawed process does comes before the first check that it can make.
    """

    at: float
    process: str
    fate: Fate
    excused_until: float = 0.0


Event = Written | Committed | Accepted | NotAccepted | Calm | Execution | ProcessFate


class Chronicle:
    """Notes down what happens.

    Args:
        now: the time of the simulation, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.events: list[Event] = []

    def written(self, _: TopicPartition, records: Sequence[StoredRecord]) -> None:
        """Records landed."""
        self.events.extend(Written(self._now(), record) for record in records)

    def committed(self, _: str, offsets: Mapping[TopicPartition, Kept]) -> None:
        """A group committed."""
        self.events.extend(Committed(self._now(), partition, kept.offset) for partition, kept in offsets.items())

    def accepted(self, job_id: str) -> None:
        """A client was told that its job is accepted."""
        self.events.append(Accepted(self._now(), job_id))

    def not_accepted(self, job_id: str) -> None:
        """A client was told that its job is not accepted."""
        self.events.append(NotAccepted(self._now(), job_id))

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.events.append(Calm(self._now()))

    def step(self, step: Step, process: str, job_id: str, token: tuple[int, int], *, apart: bool = False) -> None:
        """A worker did something."""
        self.events.append(Execution(self._now(), step, process, job_id, token, apart))

    def fate(self, process: str, fate: Fate, *, excused_seconds: float = 0.0) -> None:
        """A process stopped running, or goes on."""
        now = self._now()
        self.events.append(ProcessFate(now, process, fate, now + excused_seconds))

    def digest(self, passed_over: str) -> str:
        """A short text that differs when anything in the run was different, records of the topic `passed_over` apart."""
        digest = hashlib.sha256()
        for event in self.events:
            if not (isinstance(event, Written) and event.record.topic == passed_over):
                digest.update(repr(event).encode())
        return digest.hexdigest()[:16]
