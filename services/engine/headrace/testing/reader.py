"""Reading: positions in partitions, waiting for what comes, and the reader outside of any group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from headrace.errors import BrokerError
from headrace.ports import TopicPartition
from headrace.testing.cluster import InMemoryCluster
from headrace.testing.link import Link
from headrace.testing.storage import StoredRecord

Batches = dict[TopicPartition, Sequence[StoredRecord]]


class Positions:
    """Where somebody stands in partitions, and what comes next in them."""

    def __init__(self, cluster: InMemoryCluster, link: Link) -> None:
        self._cluster = cluster
        self._link = link
        self.at: dict[TopicPartition, int] = {}
        self.ends: Mapping[TopicPartition, int] = {}
        self.wake = asyncio.Event()

    def take(self, partitions: Iterable[TopicPartition], maximum: int | None) -> Batches:
        """The next records, at most so many of all partitions together; moves on past them."""
        found: Batches = {}
        left = maximum
        for partition in list(partitions):
            if left == 0:
                break
            records, self.at[partition] = self._read(partition, self.at[partition], left)
            if records:
                found[partition] = records
                left = None if left is None else left - len(records)
                # To the end of the line, so that every partition has its turn.
                self.at[partition] = self.at.pop(partition)
        return found

    @property
    def unread(self) -> list[TopicPartition]:
        """The partitions that are not read to their ends, where they have one."""
        return [each for each, offset in self.at.items() if (end := self.ends.get(each)) is None or offset < end]

    def _read(self, partition: TopicPartition, offset: int, maximum: int | None) -> tuple[Sequence[StoredRecord], int]:
        records, position = self._cluster.read(partition, offset, maximum)
        if self._link.horizon is None:
            return records, position
        end = self._link.horizon.get(partition, offset)
        return [record for record in records if record.offset < end], min(position, max(offset, end))

    async def poll(self, take: Callable[[], Batches | None], timeout: float) -> Batches:
        """What `take` gives, as soon as it is something: asked again whenever there may be more, until the time is over.

        `take` gives None when there will never be anything. Raises BrokerError while the cluster refuses requests.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        await asyncio.sleep(self._link.latency())
        # Cheaper than a timeout of its own for each wait: most fetches find nothing.
        over = asyncio.Event()
        timer = loop.call_at(deadline, self._end_wait, over)
        try:
            while True:
                self.wake.clear()
                if self._link.refusal is not None:
                    raise self._link.refusal
                found = take() if self._link.is_open else {}
                if found or found is None:
                    return found or {}
                if over.is_set():
                    return {}
                with self._cluster.watched((partition.topic for partition in self.at), self.wake):
                    await self.wake.wait()
        finally:
            timer.cancel()

    def _end_wait(self, over: asyncio.Event) -> None:
        over.set()
        self.wake.set()


class InMemoryReader:
    """The `LogReader` of a cluster in memory."""

    def __init__(self, cluster: InMemoryCluster, link: Link) -> None:
        self._cluster = cluster
        self._link = link
        self._positions = Positions(cluster, link)
        self._running = False

    async def start(self) -> None:
        """Raises: BrokerError."""
        await self._link.request(lambda: None)
        self._running = True

    async def stop(self) -> None:
        """Ends a fetch that waits."""
        self._running = False
        self._positions.at.clear()
        self._positions.wake.set()

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises TopicMissing."""
        return await self._link.request(lambda: self._cluster.partition_count(topic))

    async def assign(self, positions: Mapping[TopicPartition, int], *, ends: Mapping[TopicPartition, int] | None = None) -> None:
        """Reads these partitions from these offsets on; see `LogReader.assign`."""
        self._check_running()
        self._positions.ends = dict(ends or {})
        self._positions.at = await self._link.request(lambda: self._within(positions)) if positions else {}
        self._positions.wake.set()

    def _within(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        self._check(positions)
        return {partition: self._cluster.partition(partition).within(offset) for partition, offset in positions.items()}

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[StoredRecord]]:
        """The next records, or nothing after `timeout` seconds."""
        if not self._running:
            await asyncio.sleep(timeout)
            return {}
        return await self._positions.poll(lambda: self._take(maximum), timeout)

    async def fetch_unplaced(self, *, timeout: float) -> Mapping[TopicPartition, Sequence[StoredRecord]]:
        """The next records, or nothing after `timeout` seconds; here they have their place all the same."""
        return await self.fetch(timeout=timeout)

    def _take(self, maximum: int | None) -> Batches | None:
        return self._positions.take(self._positions.unread, maximum) if self._running else None

    async def positions(self) -> Mapping[TopicPartition, int]:
        """The offset of the next record of each assigned partition; known without asking the cluster."""
        self._check_running()
        return dict(self._positions.at)

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The first offset that is still there of each partition. Raises TopicMissing."""
        ranges = await self._ranges(partitions)
        return {partition: start for partition, (start, _) in ranges.items()}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset that the next record of each partition will have. Raises TopicMissing."""
        ranges = await self._ranges(partitions)
        return {partition: end for partition, (_, end) in ranges.items()}

    async def offsets_since(self, partitions: Collection[TopicPartition], timestamp: int) -> Mapping[TopicPartition, int]:
        """The first offset not older than a time; see `LogReader.offsets_since`. Raises TopicMissing."""
        self._check_running()

        def look() -> dict[TopicPartition, int]:
            self._check(partitions)
            stored = map(self._cluster.partition, partitions)
            return {partition.name: partition.since(timestamp) for partition in stored}

        return await self._link.request(look)

    async def _ranges(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        self._check_running()

        def look() -> dict[TopicPartition, tuple[int, int]]:
            self._check(partitions)
            stored = map(self._cluster.partition, partitions)
            return {partition.name: (partition.start, partition.end) for partition in stored}

        return await self._link.request(look)

    def _check(self, partitions: Collection[TopicPartition]) -> None:
        for topic, number in partitions:
            count = self._cluster.partition_count(topic)
            if not 0 <= number < count:
                raise ValueError(f"the topic {topic} has {count} partitions, and no {number}")

    def _check_running(self) -> None:
        if not self._running:
            raise BrokerError("The reader does not run.")
