"""Which workers there are, which engines are up, and what was asked of them: the topics `workers` and `control`, in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from headrace.codec import decode
from headrace.core.records import DEFINITION_PREFIX, INSTANCE_PREFIX
from headrace.core.topics import Topics
from headrace.errors import RecordUndecodable
from headrace.models import InstanceRecord, WorkerDefinition, WorkerSummary
from headrace.ports import Log, Record, TopicPartition
from headrace.sandbox_refusal import provide_topics
from headrace.views.control import ControlChanges, ControlReading
from headrace.views.follower import Batch, Follower, Undecodable

PRESENCE_INTERVAL_SECONDS: Final = 5.0
INTERVALS_UNSEEN: Final = 3
SKEW_SECONDS: Final = 2.0
"""How far the clock of an engine's machine may be behind ours before the engine seems gone."""


@dataclass(frozen=True, slots=True)
class _Seen:
    record: InstanceRecord
    milliseconds: int


class WorkerDirectory:
    """The defined workers and the live engines. `start` it, and `wait_ready` before its answers are believed.

    An engine is live when its last sign of life, by the record's timestamp, is at most three of its presence intervals old by
    this machine's clock; two seconds are allowed for clocks that differ. One whose clock is ahead counts from when its sign was
    read.

    Args:
        presence_interval_seconds: how often an engine gives a sign of life whose record does not say so.

    Attributes:
        control: what was asked of engines.
    """

    def __init__(
        self,
        log: Log,
        topics: Topics,
        *,
        presence_interval_seconds: float = PRESENCE_INTERVAL_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._topics = topics
        self._presence_interval_seconds = presence_interval_seconds
        self._clock = clock
        self._definitions: dict[str, WorkerDefinition] = {}
        self._instances: dict[str, _Seen] = {}
        self._follower = Follower(log, self._take_in, name="workers")
        self._changed: list[Callable[[], None]] = []
        self.undecodable = Undecodable("workers")
        self.control = ControlReading()
        self.control.on_change(self._control_changed)
        self._watchers: list[Callable[[], None]] = []
        self._moved = False

    async def start(self) -> None:
        """Begins to read the topics, which are made if they are missing, but for those of a replay's sandbox.

        Raises:
            SandboxUnknown: there is no sandbox of that name.
            BrokerError: no broker can be reached.
        """
        topics = [self._topics.workers, self._topics.control]
        await provide_topics(self._log, self._topics, topics)
        partitions = [
            TopicPartition(topic.name, number)
            for topic in topics
            for number in range(await self._log.partition_count(topic.name))
        ]
        await self._follower.start()
        self._follower.follow(dict.fromkeys(partitions, 0))

    async def stop(self) -> None:
        await self._follower.stop()

    @property
    def ready(self) -> bool:
        """Whether the topics have been read to the end that they had at the start."""
        return self._follower.caught_up

    @property
    def trouble(self) -> str | None:
        """Why the topics cannot be read at the moment, or None."""
        return self._follower.trouble

    async def wait_ready(self, timeout: float) -> None:
        """Waits until `ready`; raises TimeoutError after `timeout` seconds."""
        await self._follower.wait_caught_up(timeout)

    async def catch_up(self, timeout: float, partitions: Collection[TopicPartition] | None = None) -> None:
        """Reads up to what stands in the topics at the time of the call; raises TimeoutError after `timeout` seconds.

        Args:
            partitions: those of the topics that matter; all of them when left out.
        """
        await self._follower.catch_up(timeout, partitions)

    def on_change(self, call: Callable[[], None]) -> None:
        """Has `call` called in the event loop whenever a definition has changed."""
        self._changed.append(call)

    @property
    def topic(self) -> str:
        """Name of the topic in which definitions and engines stand."""
        return self._topics.workers.name

    @property
    def definitions(self) -> Mapping[str, WorkerDefinition]:
        """The definition of each worker, by name."""
        return self._definitions

    @contextmanager
    def watch(self, call: Callable[[], None]) -> Iterator[None]:
        """Has `call` called in the event loop, for as long as the block lasts, whenever records have changed what `summaries`
        tells. An engine that falls silent writes none: `seconds_to_lapse` says when to look."""
        self._watchers.append(call)
        try:
            yield
        finally:
            self._watchers.remove(call)

    def live_instances(self) -> list[InstanceRecord]:
        """The engines that are up, by id."""
        now = self._now()
        live = [seen.record for seen in self._instances.values() if self._left(seen, now) >= 0]
        return sorted(live, key=lambda record: record.instance_id)

    def seconds_to_lapse(self, name: str) -> float | None:
        """How long it takes at least until an engine that runs a worker seems gone, if none gives a sign of life; None where none
        is up."""
        now = self._now()
        left = [self._left(seen, now) for seen in self._instances.values() if name in seen.record.workers]
        return min((milliseconds / 1000 for milliseconds in left if milliseconds >= 0), default=None)

    def summaries(self) -> list[WorkerSummary]:
        """Each worker and how many live engines run it, sorted by name."""
        live = self.live_instances()
        return [self._summary(name, definition, live) for name, definition in sorted(self._definitions.items())]

    def summary(self, name: str) -> WorkerSummary | None:
        """One worker, as `summaries` has it; None where there is none of that name."""
        definition = self._definitions.get(name)
        return None if definition is None else self._summary(name, definition, self.live_instances())

    def _summary(self, name: str, definition: WorkerDefinition, live: Sequence[InstanceRecord]) -> WorkerSummary:
        return WorkerSummary(
            name=name,
            description=definition.description,
            category=definition.category,
            kind=definition.kind,
            arguments_schema=definition.arguments_schema,
            live_instances=sum(name in record.workers for record in live),
            paused=name in self.control.state.paused,
        )

    def _left(self, seen: _Seen, now: int) -> float:
        """How many milliseconds an engine may yet be silent; less than none where it seems gone."""
        return seen.milliseconds + self._patience(seen.record) - now

    def _patience(self, record: InstanceRecord) -> float:
        """How long an engine may be silent, in milliseconds."""
        interval = record.presence_interval_seconds or self._presence_interval_seconds
        return (INTERVALS_UNSEEN * interval + SKEW_SECONDS) * 1000

    def _now(self) -> int:
        return int(self._clock() * 1000)

    async def _take_in(self, batch: Batch) -> None:
        changed = False
        for records in batch.records.values():
            for record in records:
                try:
                    changed = self._apply(record) or changed
                except (RecordUndecodable, UnicodeDecodeError) as error:
                    self.undecodable.add("damaged", record, error)
        self.control.tell()
        if changed:
            for call in self._changed:
                call()
        if changed or self._moved:
            self._moved = False
            for call in list(self._watchers):
                call()
        # Many records of one turn must not hold up the event loop for what else waits in it.
        await asyncio.sleep(0)

    def _apply(self, record: Record) -> bool:
        """Takes in one record, and tells whether a definition has changed."""
        if record.topic == self._topics.control.name:
            self.control.take(record)
            return False
        key = record.key or b""
        if key.startswith(DEFINITION_PREFIX):
            name = key.removeprefix(DEFINITION_PREFIX).decode()
            before = self._definitions.get(name)
            if record.value is None:
                self._definitions.pop(name, None)
            else:
                self._definitions[name] = decode(WorkerDefinition, record.value)
            return before != self._definitions.get(name)
        if key.startswith(INSTANCE_PREFIX):
            instance = key.removeprefix(INSTANCE_PREFIX).decode()
            runs = self._runs(instance)
            if record.value is None:
                self._instances.pop(instance, None)
            else:
                self._instances[instance] = _Seen(decode(InstanceRecord, record.value), min(record.timestamp, self._now()))
            # Signs of life come all the time, and most of them change nothing.
            self._moved = self._moved or runs != self._runs(instance)
            return False
        raise RecordUndecodable("its key names neither a definition nor an instance")

    def _runs(self, instance: str) -> Collection[str]:
        """The workers that an engine runs, as far as it is up."""
        seen = self._instances.get(instance)
        return () if seen is None or self._left(seen, self._now()) < 0 else seen.record.workers

    def _control_changed(self, changes: ControlChanges) -> None:
        self._moved = self._moved or bool(changes.workers)
