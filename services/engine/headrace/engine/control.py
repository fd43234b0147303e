"""What was asked of this engine: it hears of it by the topic `control`, and says there what is done.

Before the first job of a partition is taken in, `control` is read up to what it holds then: a request that was acknowledged
before this engine claimed the partition is heeded, whoever held it when it was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from headrace.core.control import Cancellation
from headrace.errors import HeadraceError
from headrace.ports import Acknowledged, LogWriter, NewRecord, Outcome, TopicPartition
from headrace.views.control import ControlChanges
from headrace.views.workers import WorkerDirectory

_logger = logging.getLogger(__name__)

_READ_SECONDS = 10.0
_AGAIN_SECONDS = 0.5


class Controlled(Protocol):
    """What is asked of it: the group of a worker."""

    def cancel(self, cancellation: Cancellation) -> None: ...

    def pause(self, paused: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerControl:
    """What stands for one worker.

    Attributes:
        cancellations: by key; empty as a rule.
        settle: called with the key of one of which the job has ended.
    """

    cancellations: Mapping[bytes, Cancellation]
    settle: Callable[[bytes], None]


class EngineControl:
    """Hands on to the groups of an engine what is asked of their workers.

    Args:
        directory: reads `control`, and has read it to its end when the first group starts.
        topic: name of `control`.
    """

    def __init__(self, directory: WorkerDirectory, writer: LogWriter, topic: str) -> None:
        self._directory = directory
        self._writer = writer
        self._target = TopicPartition(topic, 0)
        self._groups: dict[str, Controlled] = {}
        directory.control.on_change(self._hand_on)

    def of(self, worker: str) -> WorkerControl:
        """What stands for a worker."""
        return WorkerControl(self._directory.control.state.cancellations(worker), self.settle)

    def attach(self, worker: str, group: Controlled) -> None:
        """From now on the group hears what is asked of its worker."""
        self._groups[worker] = group
        group.pause(worker in self._directory.control.state.paused)

    def detach(self, worker: str) -> None:
        """The group hears nothing any more."""
        self._groups.pop(worker, None)

    async def read_up_to_now(self) -> None:
        """Returns when everything was handed on that stood in `control` at the time of the call. It waits for brokers."""
        while True:
            try:
                await self._directory.catch_up(_READ_SECONDS, [self._target])
            except (HeadraceError, TimeoutError) as error:
                _logger.warning("jobs wait until %s has been read: %s", self._target.topic, str(error) or "no answer in time")
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def settle(self, key: bytes) -> None:
        """The job of a request has ended: the request goes. Should that fail, whoever next takes over the partition does it."""
        self._writer.submit(self._target, [NewRecord(key, None)], self._settled)

    def _settled(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Acknowledged):
            _logger.warning("a request in %s that is done stays there for now: %s", self._target.topic, outcome.reason)

    def _hand_on(self, changes: ControlChanges) -> None:
        for cancellation in changes.cancellations:
            if (group := self._groups.get(cancellation.worker)) is not None:
                group.cancel(cancellation)
        for worker in changes.workers & self._groups.keys():
            self._groups[worker].pause(worker in self._directory.control.state.paused)
