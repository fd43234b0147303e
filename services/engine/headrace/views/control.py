"""What was asked of engines, read from the topic `control`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.codec import decode
from headrace.core.control import Cancellation, ControlState, Pause
from headrace.core.records import CANCELLATION_PREFIX, PAUSE_PREFIX
from headrace.errors import RecordUndecodable
from headrace.models import CancelRequest, PauseRequest
from headrace.ports import Record


@dataclass(frozen=True, slots=True)
class ControlChanges:
    """What one reading brought.

    Attributes:
        cancellations: what was asked for, or asked for again; some may stand no more.
        workers: names of those that may have been paused or resumed.
    """

    cancellations: Sequence[Cancellation]
    workers: frozenset[str]


@dataclass(slots=True)
class ControlReading:
    """Takes in the records of `control`, and tells of what they bring.

    Attributes:
        state: what stands.
    """

    state: ControlState = field(default_factory=ControlState)
    _listeners: list[Callable[[ControlChanges], None]] = field(default_factory=list)
    _cancellations: list[Cancellation] = field(default_factory=list)
    _workers: set[str] = field(default_factory=set)

    def on_change(self, call: Callable[[ControlChanges], None]) -> None:
        """Has `call` called in the event loop after each reading that brought something."""
        self._listeners.append(call)

    def take(self, record: Record) -> None:
        """Takes in one record.

        Raises:
            RecordUndecodable: it is no request, or its key is not that of what it asks for.
        """
        key = record.key or b""
        if record.value is None:
            before = self.state.forget(key)
            if isinstance(before, Pause):
                self._workers.add(before.worker)
            return
        asked = _asked(key, record.value)
        self.state.ask(asked)
        if isinstance(asked, Pause):
            self._workers.add(asked.worker)
        else:
            self._cancellations.append(asked)

    def tell(self) -> None:
        """Tells all who listen of what was taken in since the last time."""
        if not self._cancellations and not self._workers:
            return
        changes = ControlChanges(self._cancellations, frozenset(self._workers))
        self._cancellations, self._workers = [], set()
        for call in self._listeners:
            call(changes)


def _asked(key: bytes, value: bytes) -> Cancellation | Pause:
    asked: Cancellation | Pause
    if key.startswith(CANCELLATION_PREFIX):
        cancel = decode(CancelRequest, value)
        source = cancel.source
        asked = Cancellation(cancel.tenant, cancel.job_id, cancel.worker_name, source.partition, source.offset)
    elif key.startswith(PAUSE_PREFIX):
        asked = Pause(decode(PauseRequest, value).worker_name)
    else:
        raise RecordUndecodable("its key names neither a job nor a worker")
    if asked.key != key:
        raise RecordUndecodable(f"its key is not that of what it asks for, which is {asked.key.decode()}")
    return asked
