"""A member of a consumer group.

Each change of a group revokes all partitions of all members (aiokafka has the eager protocol only). What may outlive such a
change - a commit under way, records fetched but not handed out - is bound here to a number that rises with every change.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.client import ConnectionGroup
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as ClientTopicPartition

from headrace.errors import BrokerError, BrokerUnreachable
from headrace.kafka.administration import Administration
from headrace.kafka.assignor import sticky_assignor
from headrace.kafka.closing import close_client
from headrace.kafka.committed import committed_of
from headrace.kafka.committing import look_at, look_at_commits
from headrace.kafka.connection import Cluster
from headrace.kafka.polling import Polling
from headrace.ports import Committed, GroupListener, Record, TopicPartition

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_MAX_POLL_INTERVAL_SECONDS = 300
_LEAVE_SECONDS = 2.0
_REBALANCE_SECONDS = 30
_FETCH_WAIT_SECONDS = 0.5
_PARTITION_BYTES = 4 * 1024 * 1024
_ANSWER_BYTES = 16 * 1024 * 1024
_POLL_MARGIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Membership:
    """What makes a member: the group, the topic it reads, and how soon it is taken for dead, in seconds.

    Attributes:
        client_id: what the brokers know its client by; None for what aiokafka calls itself.
    """

    group: str
    topic: str
    session_timeout: float
    heartbeat_interval: float
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """The records of a poll, and the state of things when it got them."""

    generation: int
    seeks: Mapping[Any, int]
    records: Mapping[Any, Sequence[Record]]


class KafkaGroupConsumer:
    """The `GroupConsumer` of a cluster."""

    def __init__(self, cluster: Cluster, administration: Administration, membership: Membership, listener: GroupListener) -> None:
        self._cluster = cluster
        self._administration = administration
        self._membership = membership
        self._listener = listener
        self._assignor = sticky_assignor()
        self._consumer: Any = None
        self._held: frozenset[TopicPartition] = frozenset()
        self._generation = 0
        self._commits: set[asyncio.Task[None]] = set()
        self._poll: asyncio.Task[_Fetched] | None = None
        self._seeks: Counter[Any] = Counter()
        self._as_polled = (0, self._seeks)
        self._polling = Polling(self._stays)

    @property
    def member_id(self) -> str:
        """See `GroupConsumer.member_id`."""
        return "" if self._consumer is None else self._consumer._coordinator.member_id or ""

    async def start(self) -> None:
        """Connects and begins to join; see `GroupConsumer.start`."""
        await self._administration.partition_count(self._membership.topic)
        self._consumer = await self._cluster.connect(self._make_consumer)
        look_at_commits(self._consumer._coordinator)
        # After the start, which would otherwise wait until the group has found together.
        self._consumer.subscribe([self._membership.topic], listener=_Listener(self))

    async def stop(self, *, timeout: float) -> None:
        """Leaves the group; see `GroupConsumer.stop`."""
        self._held = frozenset()
        self._cancel_commits()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            leaving = asyncio.create_task(self._leave_unjoined(consumer))
            await close_client(consumer, timeout=timeout)
            leaving.cancel()
            await asyncio.wait({leaving})
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait({self._poll})
            self._poll = None

    async def _leave_unjoined(self, consumer: Any) -> None:
        """Leaves the group while it is still dealing out its partitions.

        aiokafka leaves only what it has joined. A member that goes in the middle of it would be given partitions all the same,
        and keep them from everybody until its session is over. Its own connection is no way to say so: the coordinator reads no
        further request there before it has answered the one to join.
        """
        coordinator = consumer._coordinator
        joined = coordinator.generation > 0 and not consumer._subscription.reassignment_in_progress
        if joined or not coordinator.member_id or coordinator.coordinator_id is None:
            return
        request = LeaveGroupRequest(self._membership.group, coordinator.member_id)
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                # A turn of the loop, so that the client knows that it is closing before its request to join is answered.
                await asyncio.sleep(0)
                await consumer._client.send(coordinator.coordinator_id, request, group=ConnectionGroup.DEFAULT)
        except (KafkaError, TimeoutError) as error:
            logger.info("group %s could not be left: %r", self._membership.group, error)

    async def fetch(
        self, *, timeout: float, maximum: int, partitions: Collection[TopicPartition] | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        """The next records of partitions that are not paused; see `GroupConsumer.fetch`.

        After `resume` of a partition its first records may take up to half a second, when nothing comes for the others:
        the broker holds back the answer to the request that is under way, and there is one at a time.
        """
        if self._consumer is None:
            await asyncio.sleep(timeout)
            return {}
        if self._poll is None:
            self._poll = asyncio.create_task(self._poll_once(timeout, maximum, partitions))
        poll = self._poll
        # A task: aiokafka's poll goes on for as long as the group is changing, whatever its timeout, and must not be cancelled.
        await asyncio.wait({poll}, timeout=timeout + _POLL_MARGIN_SECONDS)
        if not poll.done():
            return {}
        if self._poll is poll:
            self._poll = None
        if poll.cancelled() or self._consumer is None:
            return {}
        try:
            fetched = poll.result()
        except ConsumerStoppedError:
            return {}
        except KafkaError as error:
            raise BrokerError(f"Records of group {self._membership.group} cannot be read: {error}") from error
        return self._still_wanted(fetched, partitions)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Hands out no more records of these partitions; what is fetched already is fetched again after `resume`."""
        if held := self._held_of(partitions):
            self._consumer.pause(*held)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        if held := self._held_of(partitions):
            self._consumer.resume(*held)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        for held in self._held_of([partition]):
            self._seeks[held] += 1
            self._consumer.seek(held, offset)

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed | None]:
        """What the group has committed of these partitions, whoever did it; None for nothing yet."""
        if self._consumer is None:
            raise BrokerError(f"This member of {self._membership.group} does not run.")
        named = list(partitions)
        asked = committed_of(self._consumer._coordinator, [ClientTopicPartition(*partition) for partition in named])
        try:
            async with asyncio.timeout(self._cluster.connect_timeout):
                offsets = await asked
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnreachable(
                f"{self._cluster.bootstrap_servers}: the committed offsets of {self._membership.group} cannot be had ({error!r})."
            ) from error
        return {partition: _ours(offsets.get(ClientTopicPartition(*partition))) for partition in named}

    async def commit(self, offsets: Mapping[TopicPartition, Committed], *, timeout: float = 10.0) -> bool:
        """Commits what is held; see `GroupConsumer.commit`."""
        mine = {
            ClientTopicPartition(*partition): OffsetAndMetadata(*committed)
            for partition, committed in offsets.items()
            if partition in self._held
        }
        if not mine:
            return not offsets
        # A task that a revocation cancels: aiokafka would repeat it with the next generation, and so undo the new owner's.
        task = asyncio.create_task(self._consumer.commit(mine))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        task.add_done_callback(look_at)  # also when whoever waits for it is cancelled
        try:
            await asyncio.wait({task}, timeout=timeout)
        finally:
            task.cancel()
        if not task.done() or task.cancelled():
            logger.info("offsets of group %s were not committed: revoked, or no answer in time", self._membership.group)
            return False
        return self._committed_by(task) and len(mine) == len(offsets)

    def _committed_by(self, task: asyncio.Task[None]) -> bool:
        error = task.exception()
        if isinstance(error, CommitFailedError | IllegalStateError):
            logger.info("offsets of group %s were not committed: %s", self._membership.group, error)
            return False
        if error is not None:
            raise BrokerError(f"Offsets of group {self._membership.group} cannot be committed: {error}") from error
        return True

    def _make_consumer(self, options: Mapping[str, Any]) -> Any:
        session = int(self._membership.session_timeout * 1000)
        client_id = self._membership.client_id
        return AIOKafkaConsumer(
            **(options if client_id is None else {**options, "client_id": client_id}),
            group_id=self._membership.group,
            partition_assignment_strategy=[self._assignor],
            session_timeout_ms=session,
            # Shorter than the time after which a member that cannot commit gives its partitions back.
            rebalance_timeout_ms=min(session, _REBALANCE_SECONDS * 1000),
            heartbeat_interval_ms=int(self._membership.heartbeat_interval * 1000),
            max_poll_interval_ms=_MAX_POLL_INTERVAL_SECONDS * 1000,
            # Joining takes as long as the slowest member gives up its partitions; a request must not end before that.
            request_timeout_ms=session + 5_000,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_uncommitted",
            fetch_min_bytes=1,
            fetch_max_wait_ms=int(_FETCH_WAIT_SECONDS * 1000),
            fetch_max_bytes=_ANSWER_BYTES,
            max_partition_fetch_bytes=_PARTITION_BYTES,
        )

    async def _poll_once(self, timeout: float, maximum: int, partitions: Collection[TopicPartition] | None) -> _Fetched:
        chosen = self._held_of(partitions or ())
        if partitions is not None and not chosen:
            # To aiokafka, no partitions at all mean every partition.
            await asyncio.sleep(timeout)
            return _Fetched(self._generation, {}, {})
        if self._consumer is None:  # it was stopped before this began
            return _Fetched(self._generation, {}, {})
        self._as_polled = self._generation, self._seeks.copy()
        records = await self._polling.poll(self._consumer, chosen, timeout=timeout, maximum=maximum)
        return _Fetched(self._generation, dict(self._seeks), records)

    def _stays(self, partition: Any) -> bool:
        """Whether nothing was assigned, and nothing sought, since the poll began."""
        generation, sought = self._as_polled
        return self._generation == generation and self._seeks[partition] == sought[partition]

    def _still_wanted(
        self, fetched: _Fetched, partitions: Collection[TopicPartition] | None
    ) -> dict[TopicPartition, Sequence[Record]]:
        """What may be handed out of a poll that perhaps began, or ended, when other things were wanted."""
        if fetched.generation != self._generation:
            return {}
        wanted = {}
        paused = self._consumer.paused()
        for partition, records in fetched.records.items():
            if fetched.seeks.get(partition, 0) != self._seeks[partition]:
                continue
            if partition in paused or (partitions is not None and partition not in partitions):
                self._consumer.seek(partition, records[0].offset)
            else:
                wanted[TopicPartition(*partition)] = records
        return wanted

    def _held_of(self, partitions: Iterable[TopicPartition]) -> list[Any]:
        return [ClientTopicPartition(*partition) for partition in partitions if partition in self._held]

    def _cancel_commits(self) -> None:
        for commit in list(self._commits):
            commit.cancel()

    async def _give_up(self, partitions: Collection[TopicPartition]) -> None:
        self._generation += 1
        self._cancel_commits()
        try:
            if partitions:
                await self._listener.revoked(partitions)
        finally:
            self._held = frozenset()
            self._cancel_commits()

    def _take_over(self, partitions: Collection[TopicPartition]) -> None:
        self._generation += 1
        self._held = frozenset(partitions)
        # aiokafka leaves it out: with it, a member that comes back late cannot claim what another was given since.
        self._assignor.on_generation_assignment(self._consumer._coordinator.generation)
        self._listener.assigned(partitions)


def _ours(committed: Any) -> Committed | None:
    return None if committed is None or committed.offset < 0 else Committed(committed.offset, committed.metadata or "")


class _Listener(ConsumerRebalanceListener):
    """What aiokafka calls."""

    def __init__(self, member: KafkaGroupConsumer) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._member._give_up([TopicPartition(*partition) for partition in revoked])

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        # First of all: records are delivered from the moment of the assignment on.
        if self._member._consumer is None:
            return  # stopped while the group was dealing out its partitions
        self._member._consumer.pause(*assigned)
        self._member._take_over([TopicPartition(*partition) for partition in assigned])
