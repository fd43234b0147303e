"""One worker in one engine: a member of the worker's consumer group, from the fetch of its jobs to the commit of their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.abstract_worker import AbstractWorker
from headrace.core.checkpoint import parse_pointer
from headrace.core.control import Cancellation
from headrace.core.duplicates import DerivedIds
from headrace.core.identifiers import is_fresh
from headrace.core.lease import LeaseTiming, Moment
from headrace.core.partitions import state_partition
from headrace.core.recovery import PartitionRecovery
from headrace.core.topics import Topics
from headrace.engine.admission import NotAdmitted, admit
from headrace.engine.closing import Closing
from headrace.engine.commits import Commits
from headrace.engine.control import EngineControl
from headrace.engine.dead_letters import DeadLetters
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.ended_keys import EndedKeys
from headrace.engine.endings import Duplicate
from headrace.engine.guardian import Guardian
from headrace.engine.health import AppendWatch, WorkerHealth
from headrace.engine.holdings import Holdings, Surroundings
from headrace.engine.intake import Intake, Room
from headrace.engine.limiting import warn_of_uneven_starts
from headrace.engine.means import Means, slots_of
from headrace.engine.partition import OwnedPartition, Phase, Work
from headrace.engine.poison import given_up
from headrace.engine.takeover import Claimant
from headrace.errors import HeadraceError
from headrace.job_context import JobServices
from headrace.ports import Acknowledged, Committed, GroupListener, Log, LogWriter, Outcome, Record, TopicPartition
from headrace.settings import EngineSettings

_logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 5.0
_STOP_SECONDS = 5.0
# What ends so soon after a stop has begun is committed still.
_MOMENT_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a worker group gets from its engine.

    Attributes:
        chance: any number from 0 up to, not including, 1, anew with each call.
        crashed: called when a part of the group ends by an error that nobody expected: the engine cannot go on without it.
        guardian: hears of the claims.
    """

    log: Log
    topics: Topics
    settings: EngineSettings
    instance_id: str
    writer: LogWriter
    services: JobServices
    clock: Callable[[], Moment]
    chance: Callable[[], float]
    crashed: Callable[[BaseException], None]
    control: EngineControl
    means: Means
    guardian: Guardian
    ended_keys: EndedKeys


class WorkerGroup:
    """Runs the jobs of one worker on the partitions that its consumer group gives this instance."""

    def __init__(self, worker: AbstractWorker[Any], environment: Environment) -> None:
        self.worker = worker
        self._environment = environment
        self.is_paused = False
        self._guard = environment.means.guard
        topics, settings = environment.topics, environment.settings
        self._state_topic = topics.job_state.name
        self._group_name = topics.group(worker.name)
        slots = slots_of(worker, settings)
        self.dispatcher = Dispatcher(
            worker,
            slots,
            environment.services,
            (environment.writer, self._state_topic),
            self._claim_lost,
            environment.clock,
            environment.chance,
            environment.control.of(worker.name),
            self._give_up,
            environment.means,
            (environment.writer, topics.ended_keys(settings.idempotency_window_seconds).name),
        )
        self._dead_letters = DeadLetters(environment.writer, topics.dead_letters.name, environment.instance_id)
        self._consumer = environment.log.group_consumer(
            topics.jobs_name(worker.name), self._group_name, GroupListener(self._guard(self._assigned), self._revoked)
        )
        self._reader = environment.log.reader()
        self._holdings = self._make_holdings()
        # Few enough that they stay near to the processor, and as many as may run even if all are of one partition.
        room = Room(max(settings.buffer_per_partition, slots), settings.buffer_bytes_per_partition)
        self._intake = Intake(self._consumer, self._holdings.ready, self._take, room, self.dispatcher.progressed)
        self._intaking: asyncio.Task[None] | None = None
        self._committing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._outside: list[OwnedPartition] = []
        self._gate: asyncio.Task[None] | None = None
        self._commits = Commits(worker.name, self._consumer, self._holdings)
        self.closing = Closing()
        self._appends = AppendWatch()

    def _make_holdings(self) -> Holdings:
        environment = self._environment
        settings = environment.settings
        claimant = Claimant(
            self._reader,
            environment.writer,
            self._state_topic,
            environment.instance_id,
            environment.clock,
            LeaseTiming(settings.lease_seconds),
            settings.lease_by_log_time,
            environment.ended_keys.learn,
        )
        surroundings = Surroundings(self._fresh, self._available, self._unavailable, environment.crashed, environment.guardian)
        return Holdings(claimant, self.dispatcher, surroundings)

    @property
    def ready(self) -> Collection[TopicPartition]:
        """The partitions whose jobs this instance runs now."""
        return self._holdings.ready.keys()

    def health(self) -> WorkerHealth:
        """How it is doing."""
        now, dispatcher = asyncio.get_running_loop().time(), self.dispatcher
        return WorkerHealth(
            assigned=self._commits.partitions,
            ready=len(self.ready),
            running=dispatcher.running,
            waiting=dispatcher.waiting,
            since_poll=now - (self._intake.polled_at or now),
            since_commit=now - self._commits.answered_at if self._commits.partitions else 0.0,
            since_append=self._appends.seconds(now, dispatcher.statistics.last_ended_at, dispatcher.unacknowledged),
            since_hand_over=self._holdings.since_hand_over,
        )

    async def start(self) -> None:
        """Joins the group, and begins to fetch."""
        await self._reader.start()
        await self._ask_ahead()
        self._await_group()
        await self._consumer.start()
        if (limit := self.worker.rate_limit) is not None:
            topic = self._environment.topics.jobs_name(self.worker.name)
            warn_of_uneven_starts(self.worker.name, limit, await self._environment.log.partition_count(topic))
        self._tell_membership()
        self._holdings.start()
        self._environment.control.attach(self.worker.name, self)
        self._intaking = self._begin(self._intake.run(), "intake")
        self._committing = self._begin(self._commits.run(self._environment.settings.commit_interval_seconds), "commit")

    async def _ask_ahead(self) -> None:
        """A client's first question about a topic takes a while: it is not to be asked while partitions wait to be taken over."""
        topics = self._environment.topics.jobs_name(self.worker.name), self._state_topic
        with contextlib.suppress(HeadraceError):  # it is asked again when the answer is needed
            await self._reader.end_offsets([TopicPartition(topic, 0) for topic in topics])

    async def drain(self, grace_seconds: float) -> bool:
        """Starts nothing more, leaves the group at once, and gives running attempts `grace_seconds`.

        Returns False when an attempt runs on all the same, in a thread.
        """
        self._intake.close()
        self.dispatcher.wind_up()
        if self._leaving is None:
            self._leaving = self._begin(self._leave(), "leaving")
        drained = await self.dispatcher.drain(grace_seconds, self.closing, lambda: self._holdings.hears_nothing)
        if not self._leaving.done():
            with self.closing.step(_STOP_SECONDS) as most:
                await asyncio.wait({self._leaving}, timeout=most)
        return drained

    async def _leave(self) -> None:
        """Gives back what nothing runs of, and leaves the group: others have those partitions within a second or two.

        The others are kept, and renewed, until their last attempt has ended: who is given one waits for that (C1). Of what ends
        in them nothing is committed any more. The checkpoints tell it to the next owner, who reads on from what the last commit
        names. Nor is the group asked whether it still knows this member (H4): that is for those whose holding has no end.
        """
        await self.dispatcher.quiet(_MOMENT_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COMMIT_SECONDS):
                await self._commits.commit()
        await self._end(self._committing)
        await self._holdings.leave()
        self._commits.revoked()
        await self._consumer.stop(timeout=_STOP_SECONDS)
        self._holdings.news.joined()
        self._environment.guardian.left(self._group_name)

    async def stop(self) -> None:
        """Gives back what nothing runs of, and leaves the group. Nothing is written from now on, whatever ends in a thread."""
        await self._end(self._leaving)
        await self._holdings.stop(self.closing)
        self._environment.control.detach(self.worker.name)
        await self._end(self._intaking, self._committing, self._gate)
        with self.closing.step(_STOP_SECONDS) as most:
            await self._consumer.stop(timeout=most)
        self._holdings.news.joined()
        self._environment.guardian.left(self._group_name)
        await self._reader.stop()

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"{name}-{self.worker.name}")
        task.add_done_callback(self._note_crash)
        return task

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.critical("%s ended by an error that nobody expected", task.get_name(), exc_info=error)
            self._environment.crashed(error)

    @staticmethod
    async def _end(*tasks: asyncio.Task[None] | None) -> None:
        begun = [task for task in tasks if task is not None]
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)

    # --- what is asked --------------------------------------------------------------------------------------------------

    def cancel(self, cancellation: Cancellation) -> None:
        """Somebody wants a job cancelled. Whoever holds its partition sees to that, or will hold it next."""
        source = TopicPartition(self._environment.topics.jobs_name(self.worker.name), cancellation.partition)
        partition = self._holdings.held.get(source)
        if partition is not None and partition.live:
            with self._guard.within("a cancellation"):
                self.dispatcher.cancelling.take(partition, cancellation)

    def pause(self, paused: bool) -> None:
        """Whether the worker is to start nothing."""
        self.is_paused = paused
        self.dispatcher.pause(paused)

    # --- jobs -----------------------------------------------------------------------------------------------------------

    def _take(self, partition: OwnedPartition, record: Record) -> None:
        if partition.untold and self.dispatcher.endings.write_again(partition, record):
            return
        refusal: NotAdmitted | None = None
        work: Work | None
        try:
            work = admit(record, partition, self.worker)
        except NotAdmitted as refused:
            refusal, work = refused, refused.work
        if work is not None and not is_fresh(work.record["id"]):
            try:
                refusal = self.dispatcher.endings.judge(work, record, refusal)
            except Duplicate:
                return
        if refusal is not None:
            self._put_aside(partition, record, refusal)
        elif work is not None:
            self.dispatcher.admit(work)

    def _give_up(self, work: Work) -> None:
        """A job that took too many processes with it: its record is made a dead letter, and then it has failed."""
        refusal = given_up(work)
        _logger.error("job %s of %s goes to dead-letters: %s", work.record["id"], self.worker.name, refusal.message)
        if work.original is not None:
            done = partial(self._dead_letter_written, work.partition, work.offset, refusal)
            self._dead_letters.submit(work.original, self.worker.name, refusal, self._guard(done))

    def _put_aside(self, partition: OwnedPartition, record: Record, refusal: NotAdmitted) -> None:
        place = record.topic, record.partition, record.offset
        _logger.warning("the record at %s/%d/%d goes to dead-letters: %s", *place, refusal.message)
        # It holds the watermark until it is where it belongs.
        work = refusal.work or Work(partition, record.offset, None, partition.unbegun, size=len(record.value or b""))
        work.phase = Phase.REFUSED
        partition.hold(work)
        done = partial(self._dead_letter_written, partition, record.offset, refusal)
        self._dead_letters.submit(record, self.worker.name, refusal, self._guard(done))

    def _dead_letter_written(self, partition: OwnedPartition, offset: int, refusal: NotAdmitted, outcome: Outcome) -> None:
        if not partition.live or offset not in partition.works:
            return
        if not isinstance(outcome, Acknowledged):
            self._claim_lost(partition, outcome.reason)
        elif refusal.work is not None and refusal.fails:
            self.dispatcher.refuse(refusal.work, {"type": refusal.reason, "message": refusal.message})
        else:
            partition.let_go(offset)
            self.dispatcher.progressed.set()

    # --- partitions -----------------------------------------------------------------------------------------------------

    async def _revoked(self, _: Collection[TopicPartition]) -> None:
        """An eager rebalance takes every partition away; most come straight back, so work in flight goes on."""
        with self._guard.within("a revocation"):
            self._holdings.revoked()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COMMIT_SECONDS):
                    await self._commits.commit()
            self._commits.revoked()
            self._holdings.put_aside()
            self._intake.forget()
            self._await_group()

    def _await_group(self) -> None:
        self._holdings.news.joins(self._environment.settings.session_timeout_seconds)

    def _tell_membership(self) -> None:
        self._environment.guardian.belongs(self._group_name, lambda: self._consumer.member_id)

    def _assigned(self, sources: Collection[TopicPartition]) -> None:
        self._holdings.news.joined()
        self._tell_membership()
        self._intake.forget()
        self._commits.assigned(sources)
        self._holdings.assigned(sources)

    def _claim_lost(self, partition: OwnedPartition, reason: Exception) -> None:
        self._holdings.claim_lost(partition, reason)

    def _available(self, partition: OwnedPartition) -> None:
        if partition.control_read:
            self._let_in(partition)
            return
        self._outside.append(partition)
        if self._gate is None:
            self._gate = self._begin(self._open_gate(), "control")

    async def _open_gate(self) -> None:
        """Lets the jobs of partitions in when everything is known that was asked before these were claimed."""
        while self._outside:
            waiting, self._outside = self._outside, []
            await self._environment.control.read_up_to_now()
            for partition in waiting:
                partition.control_read = True
                if self._holdings.ready.get(partition.source) is partition:
                    self._let_in(partition)
                    self.dispatcher.cancelling.settle_ended(partition)
        self._gate = None

    def _let_in(self, partition: OwnedPartition) -> None:
        self._consumer.seek(partition.source, partition.next_offset)
        self._consumer.resume([partition.source])

    def _unavailable(self, source: TopicPartition) -> None:
        self._consumer.pause([source])
        self._intake.forget_partition(source)

    async def _fresh(self, sources: Collection[TopicPartition]) -> list[OwnedPartition]:
        if not sources:
            return []
        committed = await self._consumer.committed(sources)
        starts = await self._reader.start_offsets(sources)
        ends = await self._reader.end_offsets(sources)
        count = await self._environment.log.partition_count(self._state_topic)
        name = self.worker.name
        if self.dispatcher.limiting is not None:
            self.dispatcher.limiting.partitions = await self._environment.log.partition_count(
                self._environment.topics.jobs_name(name)
            )
        made = []
        for source in sources:
            known = committed[source]
            if known is None or known.offset > ends[source]:
                # Above the end: the queue was deleted and made anew, and what was committed is of one that is gone.
                known = Committed(0)
            watermark, pointer = max(known.offset, starts[source]), parse_pointer(known.metadata)
            recovery: PartitionRecovery[bytes] = PartitionRecovery(name, source.partition, watermark, pointer)
            number = state_partition(name, source.partition, count)
            ids = DerivedIds(round(self._environment.settings.idempotency_window_seconds * 1000))
            made.append(OwnedPartition(source, number, recovery, recovery.begins_at, clock=self._environment.clock, ids=ids))
        return made
