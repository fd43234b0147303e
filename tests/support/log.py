"""What tests of a log need again and again: topics, outcomes to wait for, and a member of a group that remembers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, cast

from headrace.core.topics import Topic
from headrace.ports import (
    Acknowledged,
    AppendFailed,
    GroupConsumer,
    GroupListener,
    Log,
    LogReader,
    LogWriter,
    NewRecord,
    Outcome,
    Record,
    TopicPartition,
    UnplacedRecord,
)

PATIENCE_SECONDS = 20.0


def plain_topic(name: str, partitions: int = 1, **configuration: str) -> Topic:
    """A topic with little to it. Underscores in the names of settings stand for dots."""
    settings = {
        "max.message.bytes": str(2 * 1024 * 1024),
        **{key.replace("_", "."): value for key, value in configuration.items()},
    }
    return Topic(name=name, partitions=partitions, configuration=settings)


def numbered(numbers: Sequence[int], size: int = 0) -> list[NewRecord]:
    """A record for each number, which is its value, padded to `size` bytes."""
    return [NewRecord(b"key", str(number).encode().ljust(size)) for number in numbers]


def numbers_of(records: Sequence[UnplacedRecord]) -> list[int]:
    """The numbers that `numbered` put in."""
    return [int(record.value) for record in records if record.value is not None]


class Outcomes:
    """Callbacks for `submit`, and what they were told, in the order of their being told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, Outcome]] = []
        self._expected = 0
        self._arrived = asyncio.Event()

    def expect(self, name: Any = None) -> Callable[[Outcome], None]:
        """A callback that is to be called once."""
        self._expected += 1
        self._arrived.clear()

        def done(outcome: Outcome) -> None:
            self.told.append((name, outcome))
            if len(self.told) >= self._expected:
                self._arrived.set()

        return done

    async def all(self) -> dict[Any, Outcome]:
        """Waits for every callback; none may have been called twice."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._arrived.wait()
        assert max(Counter(name for name, _ in self.told).values()) == 1, "a callback was called twice"
        return dict(self.told)

    async def offsets(self) -> dict[Any, int]:
        """Waits for every callback; all must have been acknowledged."""
        offsets = {}
        for name, outcome in (await self.all()).items():
            assert isinstance(outcome, Acknowledged), outcome
            offsets[name] = outcome.offset
        return offsets

    async def failures(self) -> dict[Any, AppendFailed]:
        """Waits for every callback; all must have failed."""
        failures = {}
        for name, outcome in (await self.all()).items():
            assert isinstance(outcome, AppendFailed), outcome
            failures[name] = outcome
        return failures


@contextlib.asynccontextmanager
async def started(client: LogWriter | LogReader) -> AsyncIterator[Any]:
    """Starts a writer or reader, and stops it at the end."""
    await client.start()
    try:
        yield client
    finally:
        await (cast("LogWriter", client).stop(timeout=5.0) if hasattr(client, "submit") else client.stop())


async def read(reader: LogReader, count: int) -> dict[TopicPartition, list[Record]]:
    """The next `count` records of all partitions that the reader has; fails when they do not come."""
    found: dict[TopicPartition, list[Record]] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(map(len, found.values())) < count:
            for partition, records in (await reader.fetch(timeout=0.2)).items():
                found.setdefault(partition, []).extend(records)
    return found


async def read_topic(log: Log, topic: str, count: int, *, start: int = 0) -> dict[TopicPartition, list[Record]]:
    """The first `count` records of a topic, from offset `start` of each partition on."""
    async with started(log.reader()) as reader:
        await reader.assign({TopicPartition(topic, number): start for number in range(await reader.partitions(topic))})
        return await read(reader, count)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits until something holds that other tasks bring about."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while not condition():
        assert loop.time() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"
        await asyncio.sleep(0.01)


class Member:
    """A member of a group that polls all the time, resumes what it is given, and remembers what happened.

    Attributes:
        held: the partitions that it holds.
        history: ("assigned" or "revoked", partitions), in order.
        records: all that it was given.
    """

    def __init__(self, log: Log, topic: str, group: str, *, resumes: bool = True) -> None:
        self.held: frozenset[TopicPartition] = frozenset()
        self.history: list[tuple[str, frozenset[TopicPartition]]] = []
        self.records: list[Record] = []
        self.consumer: GroupConsumer = log.group_consumer(topic, group, GroupListener(self._assigned, self._revoked))
        self._on_revoked: Callable[[Collection[TopicPartition]], Any] | None = None
        self._resumes = resumes
        self._polling: asyncio.Task[None] | None = None

    def when_revoked(self, action: Callable[[Collection[TopicPartition]], Any]) -> None:
        """What to await in every revocation."""
        self._on_revoked = action

    @property
    def numbers(self) -> list[int]:
        return numbers_of(self.records)

    async def start(self) -> None:
        await self.consumer.start()
        self._polling = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        await self.pause_polling()
        await self.consumer.stop(timeout=5.0)

    async def pause_polling(self) -> None:
        """Leaves it to the test to fetch."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
            self._polling = None

    async def joined(self, partitions: int) -> None:
        """Waits until it holds so many partitions."""
        await eventually(lambda: len(self.held) == partitions, f"{partitions} partitions for a member with {len(self.held)}")

    async def received(self, count: int) -> None:
        """Waits until it was given so many records."""
        await eventually(lambda: len(self.records) >= count, f"{count} records for a member with {len(self.records)}")

    async def _poll(self) -> None:
        while True:
            for records in (await self.consumer.fetch(timeout=0.1, maximum=1_000)).values():
                self.records.extend(records)

    def _assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.held = frozenset(partitions)
        self.history.append(("assigned", self.held))
        if self._resumes:
            self.consumer.resume(partitions)

    async def _revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.history.append(("revoked", frozenset(partitions)))
        if self._on_revoked is not None:
            await self._on_revoked(partitions)
        self.held = frozenset()


@contextlib.asynccontextmanager
async def members(*joining: Member) -> AsyncIterator[None]:
    """Starts members, and stops those that still run at the end."""
    try:
        for member in joining:
            await member.start()
        yield
    finally:
        for member in joining:
            await member.stop()


def by_offset(positions: Mapping[TopicPartition, int]) -> dict[int, int]:
    """Offsets by the number of their partition, for topics of which there is one."""
    return {partition.partition: offset for partition, offset in positions.items()}
