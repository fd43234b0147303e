"""A member of a consumer group: its own side of what `groups` does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from headrace.errors import BrokerError
from headrace.ports import Committed, GroupListener, TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.groups import Standing
from headrace.testing.link import Link
from headrace.testing.reader import Batches, Positions
from headrace.testing.storage import StoredRecord

_logger = logging.getLogger(__name__)


class _Phase(Enum):
    STOPPED = auto()
    GIVING_UP = auto()
    JOINING = auto()
    HOLDING = auto()
    # It did not poll for too long, and has left the group until it polls again.
    LEFT = auto()


@dataclass(frozen=True, slots=True)
class Membership:
    """What makes a member: its name, the group, the topic it reads, and its times in seconds.

    Attributes:
        session_timeout: the group takes it for dead when it was silent for so long.
        poll_interval: it leaves the group when nobody called `fetch` for so long.
    """

    name: str
    group: str
    topic: str
    session_timeout: float
    heartbeat_interval: float
    poll_interval: float


class InMemoryGroupConsumer:
    """The `GroupConsumer` of a cluster in memory.

    Args:
        link: by which it reads.
        coordinator: by which it speaks with its group.
    """

    def __init__(
        self, cluster: InMemoryCluster, link: Link, coordinator: Link, membership: Membership, listener: GroupListener
    ) -> None:
        self._cluster = cluster
        self._link = link
        self._coordinator = coordinator
        self._membership = membership
        self._group = cluster.group(membership.group)
        self._listener = listener
        self._positions = Positions(cluster, link)
        self._paused: set[TopicPartition] = set()
        self._phase = _Phase.STOPPED
        self._generation = -1
        self._last_poll = 0.0
        self._giving_up: asyncio.Task[None] | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._commits: set[asyncio.Future[bool]] = set()

    @property
    def name(self) -> str:
        """The member's name in its group."""
        return self._membership.name

    @property
    def member_id(self) -> str:
        """See `GroupConsumer.member_id`."""
        return "" if self._phase is _Phase.STOPPED else self.name

    @property
    def topic(self) -> str:
        return self._membership.topic

    @property
    def session_timeout(self) -> float:
        return self._membership.session_timeout

    async def start(self) -> None:
        """Begins to join; see `GroupConsumer.start`."""
        await self._link.request(lambda: self._cluster.partition_count(self.topic))
        self._last_poll = asyncio.get_running_loop().time()
        self._phase = _Phase.JOINING
        self._coordinator.send(self._join)
        self._beat()

    async def stop(self, *, timeout: float) -> None:
        """Leaves the group; see `GroupConsumer.stop`. Where the cluster is away, it must find out by itself."""
        if self._phase is _Phase.STOPPED:
            return
        self._phase = _Phase.STOPPED
        self._positions.at.clear()
        self._positions.wake.set()
        self._cancel_commits()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._giving_up is not None:
            self._giving_up.cancel()
            await asyncio.gather(self._giving_up, return_exceptions=True)
        await asyncio.sleep(min(timeout, self._link.latency()))
        if self._coordinator.is_open:
            self._group.leave(self.name)

    async def fetch(
        self, *, timeout: float, maximum: int, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[StoredRecord]]:
        """The next records of partitions that are not paused; see `GroupConsumer.fetch`."""
        if self._phase is _Phase.STOPPED:
            await asyncio.sleep(timeout)
            return {}
        self._last_poll = asyncio.get_running_loop().time()
        if self._phase is _Phase.LEFT:
            self._come_back()
        try:
            return await self._positions.poll(lambda: self._take(maximum, partitions), timeout)
        finally:
            self._last_poll = asyncio.get_running_loop().time()

    def _take(self, maximum: int, partitions: Collection[TopicPartition] | None) -> Batches | None:
        if self._phase is _Phase.STOPPED:
            return None
        if self._phase is not _Phase.HOLDING:
            return {}
        wanted = (
            partition
            for partition in self._positions.at
            if partition not in self._paused and (partitions is None or partition in partitions)
        )
        return self._positions.take(wanted, maximum)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Gives out no more records of these partitions."""
        self._paused.update(self._held_of(partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(self._held_of(partitions))
        self._positions.wake.set()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._positions.at:
            self._positions.at[partition] = offset
            self._positions.wake.set()

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed | None]:
        """What the group has committed of these partitions, whoever did it; None for nothing yet."""
        if self._phase is _Phase.STOPPED:
            raise BrokerError(f"This member of {self._membership.group} does not run.")
        known = await self._coordinator.request(lambda: dict(self._group.committed))
        return {partition: known.get(partition) for partition in partitions}

    async def commit(self, offsets: Mapping[TopicPartition, Committed], *, timeout: float = 10.0) -> bool:
        """Commits what is held; see `GroupConsumer.commit`."""
        mine = {partition: offset for partition, offset in offsets.items() if partition in self._positions.at}
        if not mine:
            return not offsets
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._commits.add(answer)
        self._coordinator.send(partial(self._commit_arrives, answer, mine, self._generation))
        await asyncio.wait({answer}, timeout=timeout)
        self._commits.discard(answer)
        return answer.done() and answer.result() and len(mine) == len(offsets)

    def _commit_arrives(self, answer: asyncio.Future[bool], offsets: Mapping[TopicPartition, Committed], generation: int) -> None:
        if answer in self._commits:
            accepted = self._group.commit(self.name, generation, offsets)
            self._coordinator.answer(partial(self._commit_answered, answer, accepted))

    def _commit_answered(self, answer: asyncio.Future[bool], accepted: bool) -> None:
        if not answer.done():
            answer.set_result(accepted)
        if not accepted:
            self.hear()

    def _cancel_commits(self) -> None:
        # What was sent may be kept all the same; nobody is told that it is.
        commits, self._commits = self._commits, set()
        for answer in commits:
            if not answer.done():
                answer.set_result(False)

    # --- the group ----------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """The group has something to say: the next sign of life is due now."""
        self._coordinator.answer(self._say_alive)

    def receive(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """The group has dealt out its partitions."""
        self._coordinator.answer(partial(self._take_over, generation, partitions))

    def _beat(self) -> None:
        if self._phase is _Phase.STOPPED:
            return
        self._heartbeat = asyncio.get_running_loop().call_later(self._membership.heartbeat_interval, self._beat)
        idle = asyncio.get_running_loop().time() - self._last_poll
        if idle > self._membership.poll_interval and self._phase is _Phase.HOLDING:
            self._phase = _Phase.LEFT
            self._coordinator.send(partial(self._group.leave, self.name))
        elif self._coordinator.is_open:
            self._say_alive()

    def _say_alive(self) -> None:
        if self._phase in (_Phase.STOPPED, _Phase.LEFT):
            return
        self._coordinator.send(self._sign_arrives)

    def _sign_arrives(self) -> None:
        standing = self._group.sign_of_life(self.name)
        if standing is not Standing.MEMBER:
            self._coordinator.answer(partial(self._stand, self._generation))

    def _stand(self, generation: int) -> None:
        """The group knows this member no more, or deals out its partitions anew; unless that is over by now."""
        if self._phase is _Phase.HOLDING and generation == self._generation:
            self._come_back()
        elif self._phase is _Phase.JOINING:
            self._coordinator.send(self._join)

    def _come_back(self) -> None:
        """Gives up what is held, and joins anew."""
        self._phase = _Phase.GIVING_UP
        self._giving_up = asyncio.create_task(self._give_up(), name=f"revoke-{self.name}")

    async def _give_up(self) -> None:
        self._cancel_commits()
        held = list(self._positions.at)
        try:
            if held:
                await self._listener.revoked(held)
        except Exception:
            # As with the client for Kafka, the group goes on.
            _logger.exception("the listener of %s failed", self.name)
        self._positions.at.clear()
        self._paused.clear()
        self._cancel_commits()
        self._phase = _Phase.JOINING
        self._coordinator.send(self._join)

    def _join(self) -> None:
        if self._phase is _Phase.JOINING:
            self._group.join(self.name, self)

    def _take_over(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        if self._phase is not _Phase.JOINING or generation != self._group.generation or self._group.rebalancing:
            self._say_alive()  # too late: the group is dealing them out again
            return
        self._generation = generation
        held = sorted(partitions)
        committed = self._group.committed
        self._positions.at = {
            partition: committed[partition].offset if partition in committed else self._cluster.partition(partition).start
            for partition in held
        }
        self._paused = set(held)
        self._phase = _Phase.HOLDING
        self._listener.assigned(held)
        self._positions.wake.set()

    def _held_of(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [partition for partition in partitions if partition in self._positions.at]
