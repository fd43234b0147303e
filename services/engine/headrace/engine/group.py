"""One worker in one engine: a member of the worker's consumer group, from the fetch of its jobs to the commit of their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.core.partitions import state_partition
from headrace.core.recovery import PartitionRecovery
from headrace.core.topics import Topics
from headrace.engine.admission import NotAdmitted, admit
from headrace.engine.dead_letters import DeadLetters
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.intake import Intake, Room
from headrace.engine.partition import OwnedPartition, Phase, Work
from headrace.engine.takeover import Takeover
from headrace.errors import HeadraceError
from headrace.ports import Acknowledged, GroupListener, Log, LogWriter, Outcome, Record, TopicPartition
from headrace.settings import EngineSettings
from headrace.worker import AbstractWorker, JobServices

_logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_COMMIT_SECONDS = 5.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Environment:
    """What a worker group gets from its engine.

    Attributes:
        crashed: called when a part of the group ends by an error that nobody expected: the engine cannot go on without it.
    """

    log: Log
    topics: Topics
    settings: EngineSettings
    instance_id: str
    writer: LogWriter
    services: JobServices
    crashed: Callable[[BaseException], None]


class WorkerGroup:
    """Runs the jobs of one worker on the partitions that its consumer group gives this instance."""

    def __init__(self, worker: AbstractWorker[Any], environment: Environment) -> None:
        self.worker = worker
        self._environment = environment
        topics, settings = environment.topics, environment.settings
        self._state_topic = topics.job_state.name
        slots = worker.concurrency or settings.concurrency
        self.dispatcher = Dispatcher(
            worker,
            slots,
            environment.services,
            (environment.writer, self._state_topic),
            self._claim_lost,
        )
        self._dead_letters = DeadLetters(environment.writer, topics.dead_letters.name, environment.instance_id)
        self._consumer = environment.log.group_consumer(
            topics.jobs_name(worker.name), topics.group(worker.name), GroupListener(self._assigned, self._revoked)
        )
        self._reader = environment.log.reader()
        self._ready: dict[TopicPartition, OwnedPartition] = {}
        self._held: dict[TopicPartition, OwnedPartition] = {}
        self._wanted: frozenset[TopicPartition] = frozenset()
        # Few enough that they stay near to the processor, and as many as may run even if all are of one partition.
        room = Room(max(settings.buffer_per_partition, slots), settings.buffer_bytes_per_partition)
        self._intake = Intake(self._consumer, self._ready, self._take, room, self.dispatcher.progressed)
        self._takeover: asyncio.Task[None] | None = None
        self._ending: dict[asyncio.Task[Any], TopicPartition] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> Collection[TopicPartition]:
        """The partitions whose jobs this instance runs now."""
        return self._ready.keys()

    async def start(self) -> None:
        """Joins the group, and begins to fetch."""
        await self._reader.start()
        await self._consumer.start()
        self._tasks = [
            asyncio.create_task(self._intake.run(), name=f"intake-{self.worker.name}"),
            asyncio.create_task(self._commit_now_and_then(), name=f"commit-{self.worker.name}"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._note_crash)

    async def drain(self, grace_seconds: float) -> bool:
        """Starts nothing more, gives running attempts `grace_seconds`, and commits what has ended.

        Returns False when an attempt runs on all the same, in a thread.
        """
        self._intake.close()
        drained = await self.dispatcher.drain(grace_seconds)
        await self._commit()
        return drained

    async def stop(self) -> None:
        """Leaves the group. Nothing is written or taken over from now on, whatever still ends in a thread."""
        self._wanted = frozenset()
        for partition in self._held.values():
            partition.live = False
        await self._end([*self._tasks, *([self._takeover] if self._takeover else [])])
        self._tasks = []
        await self._consumer.stop(timeout=_STOP_SECONDS)
        await self._reader.stop()

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.critical("%s ended by an error that nobody expected", task.get_name(), exc_info=error)
            self._environment.crashed(error)

    @staticmethod
    async def _end(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- jobs -----------------------------------------------------------------------------------------------------------

    def _take(self, partition: OwnedPartition, record: Record) -> None:
        try:
            work = admit(record, partition, self.worker)
        except NotAdmitted as refusal:
            _logger.warning(
                "the record at %s/%d/%d goes to dead-letters: %s",
                record.topic,
                record.partition,
                record.offset,
                refusal.message,
            )
            # It holds the watermark until it is where it belongs.
            partition.hold(refusal.work or Work(partition, record.offset, None, partition.unbegun, phase=Phase.ENDING))
            done = partial(self._dead_letter_written, partition, record.offset, refusal)
            self._dead_letters.submit(record, self.worker.name, refusal, done)
        else:
            self.dispatcher.admit(work)

    def _dead_letter_written(self, partition: OwnedPartition, offset: int, refusal: NotAdmitted, outcome: Outcome) -> None:
        if not partition.live:
            return
        if not isinstance(outcome, Acknowledged):
            self._claim_lost(partition, outcome.reason)
        elif refusal.work is not None:
            self.dispatcher.refuse(refusal.work, {"type": refusal.reason, "message": refusal.message})
        else:
            partition.let_go(offset)
            self.dispatcher.progressed.set()

    # --- partitions -----------------------------------------------------------------------------------------------------

    async def _revoked(self, _: Collection[TopicPartition]) -> None:
        """An eager rebalance takes every partition away; most come straight back, so work in flight goes on."""
        self.dispatcher.suspend()
        if self._takeover is not None:
            self._takeover.cancel()
        self._wanted = frozenset()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._commit(), _COMMIT_SECONDS)
        self._ready.clear()
        self._intake.forget()

    def _assigned(self, sources: Collection[TopicPartition]) -> None:
        self._wanted = frozenset(sources)
        self._ready.clear()
        self._intake.forget()
        for source in self._held.keys() - self._wanted:
            self._drop(self._held[source])
        self._begin_takeover()

    def _drop(self, partition: OwnedPartition) -> None:
        self._held.pop(partition.source, None)
        self._ready.pop(partition.source, None)
        for task in self.dispatcher.drop(partition):
            self._ending[task] = partition.source
            task.add_done_callback(self._ending.pop)

    def _claim_lost(self, partition: OwnedPartition, reason: Exception) -> None:
        """Nothing more may be written under this claim (rule H6): what was in hand is read again, under a new one."""
        if not partition.live:
            return
        _logger.warning("the claim of %s/%d ends: %s", partition.source.topic, partition.source.partition, reason)
        self._drop(partition)
        if partition.source in self._wanted:
            self._consumer.pause([partition.source])
            self._begin_takeover()

    def _begin_takeover(self) -> None:
        previous = self._takeover
        if previous is not None:
            previous.cancel()
        self._takeover = asyncio.create_task(self._take_over(previous), name=f"takeover-{self.worker.name}")
        self._takeover.add_done_callback(self._note_crash)

    async def _take_over(self, previous: asyncio.Task[None] | None) -> None:
        """Takes over what is wanted and not ready; what was held before first, since its work goes on."""
        if previous is not None:
            await asyncio.gather(previous, return_exceptions=True)
        while missing := self._wanted - self._ready.keys():
            try:
                await self._run_takeover([self._held[source] for source in missing if source in self._held])
                self.dispatcher.resume()
                # An attempt of a partition that was lost may still be stopping here: it must not meet its successor.
                ending = {task for task, source in self._ending.items() if source in missing}
                busy = {self._ending[task] for task in ending}
                await self._run_takeover(await self._fresh(missing - self._held.keys() - busy))
                if ending:
                    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            except (HeadraceError, TimeoutError) as error:
                _logger.warning("taking over partitions of %s failed, and is tried again: %s", self.worker.name, error)
                await asyncio.sleep(_RETRY_SECONDS)
        self.dispatcher.resume()

    async def _run_takeover(self, partitions: list[OwnedPartition]) -> None:
        if partitions:
            environment = self._environment
            takeover = Takeover(
                self._reader, environment.writer, self._state_topic, environment.instance_id, self._is_ready, self._drop
            )
            await takeover.run(partitions)

    async def _fresh(self, sources: Collection[TopicPartition]) -> list[OwnedPartition]:
        if not sources:
            return []
        committed = await self._consumer.committed(sources)
        starts = await self._reader.start_offsets(sources)
        count = await self._environment.log.partition_count(self._state_topic)
        name = self.worker.name
        return [
            OwnedPartition(
                source=source,
                state_partition=state_partition(name, source.partition, count),
                recovery=PartitionRecovery(name, source.partition, max(committed.get(source) or 0, starts[source])),
            )
            for source in sources
        ]

    def _is_ready(self, partition: OwnedPartition) -> None:
        source = partition.source
        if source not in self._wanted:
            return
        self._held[source] = self._ready[source] = partition
        self._consumer.seek(source, partition.next_offset)
        self._consumer.resume([source])

    # --- commits --------------------------------------------------------------------------------------------------------

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._environment.settings.commit_interval_seconds)
            await self._commit()

    async def _commit(self) -> None:
        """Commits the watermarks that rose: all that lies below them has ended, and its end is acknowledged."""
        risen = {
            source: partition.watermark.position
            for source, partition in self._ready.items()
            if partition.live and partition.watermark.position > partition.committed
        }
        if not risen:
            return
        try:
            committed = await self._consumer.commit(risen)
        except HeadraceError as error:
            _logger.warning("committing for %s failed, and is tried again: %s", self.worker.name, error)
            return
        if committed:
            for source, position in risen.items():
                if (partition := self._ready.get(source)) is not None:
                    partition.committed = position
