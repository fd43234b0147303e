"""Reading given partitions from given offsets, outside of any group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.structs import TopicPartition as ClientTopicPartition

from headrace.errors import BrokerError, BrokerUnreachable
from headrace.kafka.administration import Administration
from headrace.kafka.closing import close_client
from headrace.kafka.connection import Cluster
from headrace.kafka.polling import Polling
from headrace.kafka.positions import go_back, known_positions
from headrace.kafka.unplaced import take_unplaced, wait_for_records
from headrace.ports import Record, TopicPartition, UnplacedRecord

ResultT = TypeVar("ResultT")

_STOP_SECONDS = 2.0
_METADATA_ROUNDS = 3
_REQUEST_TIMEOUT_SECONDS = 30.0
# A broker answers the requests of a connection one after another: a question about offsets waits for the fetch before it.
_FETCH_WAIT_MILLISECONDS = 100
# A record is 2 MB at most. An answer is decoded in one go: a larger one would hold up the event loop for longer.
_PARTITION_BYTES = 4 * 1024 * 1024
_ANSWER_BYTES = 16 * 1024 * 1024


class KafkaReader:
    """The `LogReader` of a cluster."""

    def __init__(self, cluster: Cluster, administration: Administration) -> None:
        self._cluster = cluster
        self._administration = administration
        self._consumer: Any = None
        self._topics: set[str] = set()
        self._polling = Polling()
        self._ends: Mapping[Any, int] = {}
        # Whether something of what is assigned could not be taken without places.
        self._unusual = False

    async def start(self) -> None:
        """Raises: BrokerUnreachable, BrokerAuthenticationFailed, BrokerCertificateUntrusted."""
        self._consumer = await self._cluster.connect(
            lambda options: AIOKafkaConsumer(
                **options,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_bytes=_ANSWER_BYTES,
                max_partition_fetch_bytes=_PARTITION_BYTES,
                request_timeout_ms=int(_REQUEST_TIMEOUT_SECONDS * 1000),
                fetch_max_wait_ms=_FETCH_WAIT_MILLISECONDS,
            )
        )

    async def stop(self) -> None:
        """Ends within a few seconds, whatever the brokers do."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close_client(consumer, timeout=_STOP_SECONDS)

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises `TopicMissing`."""
        return await self._administration.partition_count(topic)

    async def assign(self, positions: Mapping[TopicPartition, int], *, ends: Mapping[TopicPartition, int] | None = None) -> None:
        """Reads these partitions from these offsets on; see `LogReader.assign`."""
        # Together: behind a fetch that waits for records each of them would wait as long.
        starts, latest = await asyncio.gather(self.start_offsets(positions), self.end_offsets(positions))
        self._running().assign([ClientTopicPartition(*partition) for partition in positions])
        for topic in self._topics:
            # aiokafka forgets where the others are, and would take a tenth of a second to answer the next question about them.
            self._running()._client.add_topic(topic)
        for partition, offset in positions.items():
            # At once: a partition without a position would be looked up, and the answer would undo a later seek.
            within = starts[partition] <= offset <= latest[partition]
            self._consumer.seek(ClientTopicPartition(*partition), offset if within else starts[partition])
        self._ends = {ClientTopicPartition(*partition): end for partition, end in (ends or {}).items()}
        self._unusual = False
        self._pause_read()

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        """The next records, or nothing after `timeout` seconds."""
        if not self._is_assigned():
            # aiokafka would wait for an assignment, however long that takes.
            await asyncio.sleep(timeout)
            return {}
        # Of a fetch that is taken in part the rest is aiokafka's own.
        self._unusual = True
        try:
            fetched = await self._polling.poll(self._consumer, (), timeout=timeout, maximum=maximum)
        except ConsumerStoppedError:
            return {}
        except KafkaError as error:
            raise BrokerError(f"Records cannot be read: {error}") from error
        self._pause_read()
        return {TopicPartition(*partition): records for partition, records in fetched.items()}

    async def fetch_unplaced(self, *, timeout: float) -> Mapping[TopicPartition, Sequence[UnplacedRecord]]:
        """The next records, or nothing after `timeout` seconds; see `LogReader.fetch_unplaced`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._is_assigned() and not self._unusual:
            left = deadline - loop.time()
            await wait_for_records(self._consumer, max(0.0, left))
            if not self._is_assigned():
                return {}
            before = known_positions(self._consumer)
            taken = take_unplaced(self._consumer)
            if taken is None:
                go_back(self._consumer, before)
                break
            # Nothing may have come but a transaction's end, or what was fetched before the partitions were assigned anew.
            if taken or left <= 0 or known_positions(self._consumer) != before:
                self._pause_read()
                return {TopicPartition(*partition): records for partition, records in taken.items()}
        return await self.fetch(timeout=max(0.0, deadline - loop.time()))

    def _is_assigned(self) -> bool:
        return self._consumer is not None and bool(self._consumer.assignment())

    def _pause_read(self) -> None:
        """Has no more fetched of partitions that were read to their ends.

        At the log's end a broker would hold that fetch back for a tenth of a second, and all that is asked behind it.
        """
        if self._ends:
            positions = known_positions(self._consumer)
            read = [partition for partition, end in self._ends.items() if positions.get(partition, -1) >= end]
            self._consumer.pause(*(each for each in read if each in self._consumer.assignment()))

    async def positions(self) -> Mapping[TopicPartition, int]:
        """The offset of the next record of each assigned partition."""
        partitions = self._running().assignment()
        return await self._bounded(self._positions_of(partitions))

    async def start_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The first offset that is still there of each partition. Raises `TopicMissing`."""
        await self._check(partitions)
        return _ours(await self._bounded(self._running().beginning_offsets(_theirs(partitions))))

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset that the next record written to each partition will have. Raises `TopicMissing`."""
        await self._check(partitions)
        return _ours(await self._bounded(self._running().end_offsets(_theirs(partitions))))

    async def offsets_since(self, partitions: Collection[TopicPartition], timestamp: int) -> Mapping[TopicPartition, int]:
        """The first offset not older than a time; see `LogReader.offsets_since`. Raises `TopicMissing`."""
        ends = await self.end_offsets(partitions)
        asked = self._running().offsets_for_times(dict.fromkeys(_theirs(partitions), timestamp))
        found = await self._bounded(asked)
        return {
            partition: ends[partition] if (entry := found.get(ClientTopicPartition(*partition))) is None else entry.offset
            for partition in partitions
        }

    def _running(self) -> Any:
        if self._consumer is None:
            raise BrokerError("The reader does not run.")
        return self._consumer

    async def _positions_of(self, partitions: Collection[Any]) -> dict[TopicPartition, int]:
        # One after another: a position that is known is there at once.
        return {TopicPartition(*partition): await self._consumer.position(partition) for partition in partitions}

    async def _check(self, partitions: Collection[TopicPartition]) -> None:
        topics = {partition.topic for partition in partitions}
        for topic in topics:
            self._topics.discard(topic)  # one that is gone must not be named: a broker might make it anew, with its defaults
            count = await self._administration.partition_count(topic)
            self._topics.add(topic)
            for _, number in (partition for partition in partitions if partition.topic == topic):
                if not 0 <= number < count:
                    raise ValueError(f"the topic {topic} has {count} partitions, and no {number}")
        await self._bounded(self._learn(topics))

    async def _learn(self, topics: Collection[str]) -> None:
        """Has aiokafka know who leads the partitions of topics, before it is asked about them.

        By itself it would find out about one topic after the other, and take a tenth of a second for each.
        """
        client = self._running()._client
        for _ in range(_METADATA_ROUNDS):
            unknown = [topic for topic in topics if client.cluster.partitions_for_topic(topic) is None]
            if not unknown:
                return
            for topic in unknown:
                client.add_topic(topic)
            # An answer that is under way may not have them yet: then the next round asks again.
            await client.force_metadata_update()

    async def _bounded(self, request: Awaitable[ResultT]) -> ResultT:
        try:
            async with asyncio.timeout(self._cluster.connect_timeout):
                return await request
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnreachable(
                f"{self._cluster.bootstrap_servers}: no answer within {self._cluster.connect_timeout:g} s ({error!r})."
            ) from error


def _theirs(partitions: Collection[TopicPartition]) -> list[Any]:
    return [ClientTopicPartition(*partition) for partition in partitions]


def _ours(offsets: Mapping[Any, int]) -> dict[TopicPartition, int]:
    return {TopicPartition(*partition): offset for partition, offset in offsets.items()}
