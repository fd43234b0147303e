"""One process' way to a cluster in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from headrace.core.topics import Topic
from headrace.errors import BrokerError, HeadraceError
from headrace.ports import GroupListener, TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.consumer import InMemoryGroupConsumer, Membership
from headrace.testing.faults import Faults
from headrace.testing.link import Link
from headrace.testing.reader import InMemoryReader
from headrace.testing.writer import InMemoryWriter


class InMemoryLog(Faults):
    """The `Log` of one process. The faults of `Faults` meet here the writes of this process alone.

    Args:
        cluster: shared by the processes of a test; one of its own when left out.
        session_timeout: a group takes this process' members for dead after so many seconds of silence.
        heartbeat_interval: how often its members say that they live, in seconds.
        poll_interval: a member that nobody polls for so many seconds leaves its group.
        connect_timeout: how many seconds a request waits for a cluster that is away.

    Attributes:
        name: of the process, in this cluster; the names of its members begin with it.
    """

    def __init__(
        self,
        cluster: InMemoryCluster | None = None,
        *,
        session_timeout: float = 45.0,
        heartbeat_interval: float = 1.0,
        poll_interval: float = 300.0,
        connect_timeout: float = 10.0,
    ) -> None:
        super().__init__()
        self.cluster = cluster or InMemoryCluster()
        self.name = self.cluster.next_name()
        self._link = Link(self.cluster.latency, connect_timeout, self.cluster.wake_all, self.cluster.context)
        self._coordinator = Link(self.cluster.latency, connect_timeout, self.cluster.wake_all, self.cluster.context)
        self._times = (session_timeout, heartbeat_interval, poll_interval)
        self._groups: dict[str, list[str]] = {}
        self._writers: list[InMemoryWriter] = []

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut_off(self) -> None:
        """Nothing comes through any more, there or back, until `reconnect`: what is under way waits, as for a lost network."""
        self._link.cut()
        self._coordinator.cut()

    def cut_off_from_groups(self) -> None:
        """As `cut_off`, but for what this process' members say to their groups, and hear from them: reading and writing go on."""
        self._coordinator.cut()

    def reconnect(self) -> None:
        """Ends `cut_off` and `cut_off_from_groups`: what waited comes through."""
        self._link.mend()
        self._coordinator.mend()

    def read_late(self) -> None:
        """Nothing is read that comes from now on, until `read_on`: what a process that does not run will find in its sockets."""
        self._link.horizon = self.cluster.ends()

    def read_on(self) -> None:
        """Ends `read_late`."""
        self._link.horizon = None
        self.cluster.wake_all()

    def refuse_requests(self, reason: BrokerError) -> None:
        """All that is asked is answered with an error, fetches included, until `accept_requests`; writes go on."""
        self._link.refusal = self._coordinator.refusal = reason
        self.cluster.wake_all()

    def accept_requests(self) -> None:
        """Ends `refuse_requests`."""
        self._link.refusal = self._coordinator.refusal = None

    def break_writers(self, reason: HeadraceError) -> None:
        """The writers of this process end as by an error that nobody expected; new ones can be made."""
        for writer in self._writers:
            writer.break_down(reason)

    def evict(self, group: str) -> None:
        """The group takes this process' members for dead, and gives their partitions to others.

        Those that have partitions are not told: they read on, until one of their commits is refused, or `tell_evicted`.
        """
        for name in self._groups.get(group, ()):
            self.cluster.group(group).evict(name)

    def tell_evicted(self, group: str) -> None:
        """Members that were evicted hear of it with their next heartbeat."""
        for name in self._groups.get(group, ()):
            self.cluster.group(group).tell(name)

    # --- the log ------------------------------------------------------------------------------------------------------

    async def create_topics(self, topics: Collection[Topic]) -> None:
        """Creates what is missing and checks what exists; see `Log.create_topics`. Raises TopicMisconfigured."""
        await self._link.request(partial(self.cluster.create_topics, topics))

    async def delete_topics(self, names: Collection[str]) -> None:
        """Deletes topics with all their records; those that do not exist are passed over."""
        await self._link.request(partial(self.cluster.delete_topics, names))

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Deletes what stands below an offset of each partition; see `Log.delete_records`. Raises BrokerError, TopicMissing."""
        await self._link.request(partial(self._delete_records, offsets))

    def _delete_records(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            if offset > (end := self.cluster.partition(partition).end):
                raise BrokerError(f"{partition.topic}/{partition.partition} ends at {end}, before {offset}.")
            self.cluster.delete_records(partition, offset)

    async def topic_names(self) -> set[str]:
        """Every topic of the cluster, whoever made it."""
        return await self._link.request(self.cluster.topic_names)

    async def partition_count(self, topic: str) -> int:
        """How many partitions the topic has. Raises TopicMissing."""
        return await self._link.request(partial(self.cluster.partition_count, topic))

    async def committed_offsets(self, group: str) -> Mapping[TopicPartition, int]:
        """What a group has committed, whether or not it has members."""
        return await self._link.request(partial(self.cluster.committed_offsets, group))

    async def close(self) -> None:
        """Nothing is open. Writers, readers and members are stopped by whoever made them."""

    def writer(self) -> InMemoryWriter:
        """A writer of this process."""
        self._writers.append(InMemoryWriter(self.cluster, self._link, self))
        return self._writers[-1]

    def reader(self) -> InMemoryReader:
        """A reader of this process."""
        return InMemoryReader(self.cluster, self._link)

    def group_consumer(self, topic: str, group: str, listener: GroupListener) -> InMemoryGroupConsumer:
        """A new member of the group, which joins when it is started."""
        names = self._groups.setdefault(group, [])
        names.append(f"{self.name}-{len(names) + 1}")
        membership = Membership(names[-1], group, topic, *self._times)
        return InMemoryGroupConsumer(self.cluster, self._link, self._coordinator, membership, listener)
