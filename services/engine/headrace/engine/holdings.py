"""The job partitions that one worker has in this engine: claimed, kept, handed over, given back.

Kafka's group says who should have a partition; the lease says who has it. The two are told apart here: a partition that a
rebalance takes away and brings back keeps its claim and its work, and one that goes to another engine is released when nothing
of it runs here any more (rules H1, H5, H6 and R1 of the ownership protocol).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from headrace.codec import encode
from headrace.core.checkpoint import Pointer
from headrace.core.lease import LeaseWatch, Moment
from headrace.core.records import lease_key
from headrace.engine.checkpoints import make_checkpoint
from headrace.engine.closing import Closing
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.guardian import Guardian
from headrace.engine.guarding import Guard
from headrace.engine.kept import KeptPartitions
from headrace.engine.losses import Losses
from headrace.engine.news import WorkerNews
from headrace.engine.partition import OwnedPartition
from headrace.engine.takeover import Claimant, Takeover
from headrace.errors import HeadraceError, LeaseLost
from headrace.models import ReleaseRecord, RenewalRecord
from headrace.ports import Acknowledged, NewRecord, Outcome, TopicPartition

_logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_RELEASE_SECONDS = 5.0
_GIVE_BACK_SECONDS = 10.0
_MOMENT_SECONDS = 1.0
_SILENT_SECONDS = 2.0

Reason = Literal["handed-over", "stopped"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What holding partitions needs of the group around it.

    Attributes:
        fresh: makes what is known of partitions that are to be claimed.
        available: called with a partition whose jobs may be taken in from now on.
        unavailable: called with one of which nothing more may be taken in, for now or for good.
        stuck: called when an attempt cannot be stopped though its lease is about to end: the process has to.
        guardian: hears of every claim, and of its end.
    """

    fresh: Callable[[Collection[TopicPartition]], Awaitable[list[OwnedPartition]]]
    available: Callable[[OwnedPartition], None]
    unavailable: Callable[[TopicPartition], None]
    stuck: Callable[[BaseException], None]
    guardian: Guardian


class Holdings:
    """The partitions of one worker that this instance holds, or is to hold.

    Attributes:
        ready: those whose jobs are run now.
        news: says what becomes of them.
    """

    def __init__(self, claimant: Claimant, dispatcher: Dispatcher, surroundings: Surroundings) -> None:
        self._claimant = claimant
        self._dispatcher = dispatcher
        self._surroundings = surroundings
        self.news = WorkerNews(dispatcher.worker_name)
        self.ready: dict[TopicPartition, OwnedPartition] = {}
        self._held: dict[TopicPartition, OwnedPartition] = {}
        self._wanted: frozenset[TopicPartition] = frozenset()
        self._takeover: asyncio.Task[None] | None = None
        self._current: Takeover | None = None
        self._watches: dict[TopicPartition, LeaseWatch] = {}
        self._leaving: dict[TopicPartition, asyncio.Task[None]] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._stopped = False
        self._losses = Losses()
        self._renewing: set[OwnedPartition] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._kept = KeptPartitions(claimant.clock, Guard(surroundings.stuck))
        self._renewal_answered = Guard(surroundings.stuck)(self._renewed)

    @property
    def held(self) -> Mapping[TopicPartition, OwnedPartition]:
        """All that this instance has a claim on."""
        return self._held

    @property
    def hears_nothing(self) -> bool:
        """Whether a lease should have been renewed for a while, and is not: the brokers are away."""
        timing = self._claimant.timing
        now = self._claimant.clock()
        longest = timing.renewal + max(timing.renewal, _SILENT_SECONDS)
        return any(each.live and timing.term - each.lease.remaining(now) > longest for each in self._held.values())

    @property
    def since_hand_over(self) -> float:
        """Seconds since the oldest hand-over began that is not done; 0 when there is none."""
        return self._kept.longest()

    def start(self) -> None:
        """Begins to renew what is held."""
        self._watched(self._keep(), "leases")

    async def leave(self) -> None:
        """Wants nothing more. Releases at once what nothing runs of, and returns when that is done; the rest as it ends (R1).

        Until then its leases are renewed, whatever the group has given to others meanwhile: those wait.
        """
        self._stopped = True
        self.revoked()
        self.ready.clear()
        for source in sorted(self._held.keys() - self._leaving.keys()):
            self._hand_over(self._held[source])
        ends = [self._leaving[source] for source, partition in self._held.items() if partition.vacated.is_set()]
        if ends:
            await asyncio.wait(ends)  # each ends within its own time

    async def stop(self, closing: Closing) -> None:
        """Takes over nothing more, and gives back what nothing runs of. Nothing is written of the partitions afterwards."""
        self._stopped = True
        self._wanted = frozenset()
        if self._takeover is not None and self._current is not None:
            self._current.wind_up()
            with closing.step(_RELEASE_SECONDS) as most:
                await asyncio.wait({self._takeover}, timeout=most)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        idle = [partition for partition in self._held.values() if partition.is_held() and not partition.is_busy]
        for partition in self._held.values():
            partition.live = partition in idle
            if not partition.is_busy:
                self._surroundings.guardian.vacated(partition)
        with closing.step(_RELEASE_SECONDS) as most:
            await asyncio.gather(*(self._release(partition, "stopped", most) for partition in idle))
        for partition in self._held.values():
            partition.live = False
        if self._releasing:
            # Begun with other times, as a part of leaving.
            with closing.step(_RELEASE_SECONDS) as most:
                await asyncio.wait(self._releasing, timeout=most)
            for task in list(self._releasing):
                task.cancel()
        self._held.clear()
        self.ready.clear()

    # --- what the group says ------------------------------------------------------------------------------------------

    def revoked(self) -> None:
        """A rebalance has begun: nothing starts, what runs goes on, and every lease is kept."""
        self._dispatcher.suspend()
        self._wanted = frozenset()
        if self._current is not None:
            self._current.wind_up()

    def put_aside(self) -> None:
        """Nothing is taken in until the group has dealt out its partitions anew."""
        self.ready.clear()

    def assigned(self, sources: Collection[TopicPartition]) -> None:
        """These partitions are to be held from now on; others that are held go to another engine."""
        if self._stopped:
            return  # the member leaves its group a moment later
        self._wanted = frozenset(sources)
        self.news.wanted(sources)
        self.ready.clear()
        for source in sorted(self._held.keys() - self._wanted - self._leaving.keys()):
            self._hand_over(self._held[source])
        self._begin_takeover()

    def give_back(self) -> None:
        """Hands over all that is held, and wants nothing until the group deals out its partitions anew."""
        self._wanted = frozenset()
        if self._current is not None:
            self._current.wind_up()
        for partition in list(self._held.values()):
            self._surroundings.unavailable(partition.source)
            self.ready.pop(partition.source, None)
            if partition.source not in self._leaving:
                self._hand_over(partition, within=_GIVE_BACK_SECONDS)

    def claim_lost(self, partition: OwnedPartition, reason: Exception) -> None:
        """Nothing more may be written under this claim: what was in hand is read again, under a new one (H5, H6)."""
        if not partition.live:
            return
        source = partition.source
        self.news.claim_ended(source, reason)
        self._surroundings.unavailable(source)
        self.ready.pop(source, None)
        if (leaving := self._leaving.pop(source, None)) is not None:
            leaving.cancel()
        stopping = self._dispatcher.drop(partition)
        self._leaving[source] = self._watched(self._bury(partition, stopping), "ending")

    # --- ending ---------------------------------------------------------------------------------------------------------

    async def _bury(self, partition: OwnedPartition, stopping: Collection[asyncio.Task[object]]) -> None:
        """Waits for the attempts under a claim that was lost, then wants the partition anew if it is to be held still."""
        remaining = partition.lease.remaining(self._claimant.clock())
        if stopping:
            # A machine that wakes up finds the term over long ago: an attempt gets a moment to end all the same.
            _, left = await asyncio.wait(stopping, timeout=max(remaining, _MOMENT_SECONDS))
            if left:
                message = f"{len(left)} jobs of {partition.recovery.worker} cannot be stopped, and their lease is over"
                self._surroundings.stuck(LeaseLost(message))
                await asyncio.wait(left)
        self._surroundings.guardian.vacated(partition)
        await asyncio.sleep(self._losses.pause(partition.source, asyncio.get_running_loop().time()))
        self._forget(partition)

    def _hand_over(self, partition: OwnedPartition, *, within: float | None = None) -> None:
        self._dispatcher.hand_over(partition, interrupting=not self._stopped)
        self._leaving[partition.source] = self._watched(self._finish_handing_over(partition, within), "hand-over")

    async def _finish_handing_over(self, partition: OwnedPartition, within: float | None) -> None:
        """Releases a partition when nothing of it runs any more (R1); one with a thread is kept, and renewed, until it ends.

        Args:
            within: seconds after which the process has to end instead: nobody else could ever run the partition's jobs (H4).
        """
        try:
            with self._kept.watch(partition):
                async with asyncio.timeout(within):
                    await partition.vacated.wait()
        except TimeoutError:
            message = f"a job of {partition.recovery.worker} cannot be stopped, and the group has given this engine up"
            self._surroundings.stuck(LeaseLost(message))
            await partition.vacated.wait()
        await self._release(partition, "stopped" if self._stopped else "handed-over")
        self._forget(partition)

    def _forget(self, partition: OwnedPartition) -> None:
        source = partition.source
        partition.live = False
        self._surroundings.guardian.vacated(partition)
        self._leaving.pop(source, None)
        if self._held.get(source) is partition:
            del self._held[source]
        if source in self._wanted:
            self._begin_takeover()

    async def _release(self, partition: OwnedPartition, reason: Reason, seconds: float = _RELEASE_SECONDS) -> None:
        if not partition.is_held():
            return
        partition.live = False
        about = partition.recovery.worker, partition.source.partition, partition.lease_name
        record = ReleaseRecord(
            worker_name=about[0], partition=about[1], instance_id=about[2], epoch=partition.writer.epoch, reason=reason
        )
        # By a task of its own: whoever waits for it may be cancelled, and a release that is taken back is written by nobody.
        task = asyncio.create_task(self._write_release(partition, NewRecord(lease_key(*about), encode(record)), seconds))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)
        await asyncio.shield(task)

    async def _write_release(self, partition: OwnedPartition, record: NewRecord, seconds: float) -> None:
        try:
            await self._claimant.writer.append(self._state_of(partition), record, timeout=seconds)
        except (HeadraceError, TimeoutError) as error:
            # Whoever comes next waits for the term, and no longer.
            self.news.trouble("release", "releasing %s/%d failed: %s", *partition.source, error)
        else:
            self._surroundings.guardian.released(partition)

    # --- taking over ----------------------------------------------------------------------------------------------------

    def _begin_takeover(self) -> None:
        if self._current is not None:
            self._current.wind_up()
        previous, self._takeover = self._takeover, None
        self._takeover = self._watched(self._take_over(previous), "takeover")

    async def _take_over(self, previous: asyncio.Task[None] | None) -> None:
        """Goes on at once with what is held under a claim still; claims the rest, except for what is just being ended here."""
        for source, partition in list(self._held.items()):
            if source in self._wanted and source not in self._leaving and partition.is_held():
                self._is_ready(partition)
        self._dispatcher.resume()
        if previous is not None:
            await asyncio.wait({previous})
        mine = asyncio.current_task()
        while self._takeover is mine and (missing := self._wanted - self.ready.keys() - self._leaving.keys()):
            try:
                await self._claim(sorted(missing))
            except (HeadraceError, TimeoutError) as error:
                name = self._dispatcher.worker_name
                self.news.trouble("takeover", "taking over partitions of %s failed, and is tried again: %s", name, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _claim(self, sources: Collection[TopicPartition]) -> None:
        for partition in [self._held[source] for source in sources if source in self._held]:
            self.claim_lost(partition, LeaseLost("its lease was not renewed in time"))
        made = await self._surroundings.fresh([source for source in sources if source not in self._held])
        # A rebalance may have begun meanwhile, and found nothing that it could wind up.
        fresh = [partition for partition in made if partition.source in self._wanted]
        if not fresh or asyncio.current_task() is not self._takeover:
            return
        self._current = Takeover(self._claimant, self._is_ready, self._watches, self.news)
        try:
            await self._current.run(fresh)
        finally:
            self._current = None

    def _is_ready(self, partition: OwnedPartition) -> None:
        source = partition.source
        self._held[source] = partition
        self.news.held(source)
        self._surroundings.guardian.holds(partition)
        if source in self._wanted:
            self.ready[source] = partition
            self._surroundings.available(partition)
            if len(self.ready) == len(self._wanted):
                self.news.all_held(len(self.ready))
        else:
            self._hand_over(partition)

    # --- keeping --------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._claimant.timing.renewal)
            if (failure := self._claimant.writer.failure) is not None:
                # Nothing can be written any more, and so nothing run.
                self._surroundings.stuck(failure)
            for partition in list(self._held.values()):
                if partition.live and not partition.is_held():
                    self.claim_lost(partition, LeaseLost("its lease was not renewed in time"))
                elif partition.live and partition not in self._renewing:
                    self._renew(partition)

    def _renew(self, partition: OwnedPartition) -> None:
        about = partition.recovery.worker, partition.source.partition, partition.lease_name
        record = RenewalRecord(
            worker_name=about[0],
            partition=about[1],
            instance_id=about[2],
            epoch=partition.writer.epoch,
            previous=partition.last_lease,
            term_seconds=self._claimant.timing.term,
        )
        records = [NewRecord(lease_key(*about), encode(record))]
        # One past an acknowledgement, and all before it have come back too; whoever reads on from there knows the last lease.
        covers = partition.last_lease + 1
        pointer = partition.pointer
        now = self._claimant.clock()
        if partition.checkpoint_at + partition.checkpoint_pause <= now.steady:
            partition.checkpoint_at = now.steady
            if (checkpoint := make_checkpoint(partition, covers)) is not None:
                records.append(checkpoint)
                pointer = Pointer(partition.writer.epoch, covers)
        self._renewing.add(partition)
        renewed = partial(self._renewal_answered, partition, self._claimant.clock(), pointer)
        self._claimant.writer.submit(self._state_of(partition), records, renewed)

    def _renewed(self, partition: OwnedPartition, sent: Moment, pointer: Pointer | None, outcome: Outcome) -> None:
        self._renewing.discard(partition)
        if not partition.live:
            return
        if not isinstance(outcome, Acknowledged):
            self.claim_lost(partition, outcome.reason)
        elif not partition.is_held():
            self.claim_lost(partition, LeaseLost("its lease was not renewed in time"))
        else:
            partition.lease.renewed(sent)
            partition.last_lease = outcome.offset
            partition.pointer = pointer
            self._surroundings.guardian.holds(partition)

    def _state_of(self, partition: OwnedPartition) -> TopicPartition:
        return TopicPartition(self._claimant.topic, partition.state_partition)

    def _watched(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"{name}-{self._dispatcher.worker_name}")
        self._tasks[task] = None
        task.add_done_callback(self._note_crash)
        return task

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.critical("%s ended by an error that nobody expected", task.get_name(), exc_info=error)
            self._surroundings.stuck(error)
