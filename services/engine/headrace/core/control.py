"""What was asked of engines: jobs that are to be cancelled, and workers that pause, as the topic `control` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.core.records import cancellation_key, pause_key


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Somebody wants a job cancelled. It stands until the job has ended.

    Attributes:
        partition, offset: where the job's record stands in the queue of its worker; whoever holds that partition ends the job.
    """

    tenant: str
    job_id: str
    worker: str
    partition: int
    offset: int

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return cancellation_key(self.tenant, self.job_id)


@dataclass(frozen=True, slots=True)
class Pause:
    """Somebody wants a worker to start nothing, in any engine. It stands until the worker is resumed."""

    worker: str

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return pause_key(self.worker)


@dataclass(slots=True)
class ControlState:
    """Folds the records of `control`, in the order of the log: of each key the last one counts, and a tombstone ends it.

    Attributes:
        paused: names of the workers that start nothing.
    """

    paused: set[str] = field(default_factory=set)
    _cancellations: dict[str, dict[bytes, Cancellation]] = field(default_factory=dict)
    _standing: dict[bytes, Cancellation | Pause] = field(default_factory=dict)

    def cancellations(self, worker: str) -> Mapping[bytes, Cancellation]:
        """What stands for the jobs of a worker, by key. It is always the same object, and empty as a rule."""
        return self._cancellations.setdefault(worker, {})

    def ask(self, asked: Cancellation | Pause) -> None:
        """Takes in a record."""
        self.forget(asked.key)
        self._standing[asked.key] = asked
        if isinstance(asked, Pause):
            self.paused.add(asked.worker)
        else:
            self._cancellations.setdefault(asked.worker, {})[asked.key] = asked

    def forget(self, key: bytes) -> Cancellation | Pause | None:
        """Takes in a tombstone; what stood there until then."""
        before = self._standing.pop(key, None)
        if isinstance(before, Pause):
            self.paused.discard(before.worker)
        elif before is not None:
            del self._cancellations[before.worker][key]
        return before
