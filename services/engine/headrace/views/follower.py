"""Reads partitions of the log from given positions on, for ever, and hands what it reads to whoever keeps a view of it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from headrace.errors import HeadraceError
from headrace.ports import Log, LogReader, Record, TopicPartition

logger = logging.getLogger(__name__)

FETCH_SECONDS: Final = 0.25
HURRIED_SECONDS: Final = 0.02
"""How long a fetch waits for records where partitions are about to come that somebody waits for."""
FETCH_RECORDS: Final = 1_000
"""The most that is fetched at once: decoding them holds up the event loop."""
BATCH_RECORDS: Final = 5_000
"""The most that is taken in at once: what else waits for the writing thread, such as a job accepted here, waits for one batch."""

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0

Offsets = Mapping[TopicPartition, int]


class Batch(NamedTuple):
    """What was read at once.

    Attributes:
        records: by partition, in the order of the log.
        positions: the offset of the next record of each partition after this batch, also past what compaction removed.
    """

    records: Mapping[TopicPartition, Sequence[Record]]
    positions: Offsets


class Pace(NamedTuple):
    """How far apart batches are, once a view has caught up: where records keep coming, to take in many at once costs little more
    than a few. The first after a while is taken in at once.

    Attributes:
        least_seconds: after a small batch.
        most_seconds: after a large one.
        records_per_second: where more come than this, batches grow until `most_seconds` are between them.
    """

    least_seconds: float
    most_seconds: float
    records_per_second: float

    def after(self, records: int) -> float:
        """Seconds from a batch of so many records to the next one."""
        return min(self.most_seconds, max(self.least_seconds, records / self.records_per_second))


class LogReplaced(HeadraceError):
    """The log is not the one that was read before: what a view has of it says nothing about the one that is there now."""


class Undecodable:
    """Counts the records that could not be used, and logs the first of each kind: a bad record costs only itself."""

    def __init__(self, view: str) -> None:
        self._view = view
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, record: Record, reason: object) -> None:
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            logger.warning(
                "The %s view passes over a %s record (%s, partition %d, offset %d): %s. Further ones are only counted.",
                self._view,
                kind,
                record.topic,
                record.partition,
                record.offset,
                reason,
            )

    @property
    def total(self) -> int:
        return self.counts.total()


class Follower:
    """Follows partitions. `take_in` gets one batch after the other. While one is taken in, the next is gathered: batches grow
    where taking in is what takes the time.

    If `take_in` raises, its batch is read again and handed over again, after a pause; so is what a broker could not give. An
    error of a class in `fatal` ends the following instead: `ended` then raises it. With `LogReplaced` among them, a log that has
    become shorter is such an error; without, it is read from its new start.

    Args:
        pace: how far apart batches are; as they come when left out. Nobody who calls `catch_up` waits for it.

    Attributes:
        expects_more: set while more partitions are about to come, so that no fetch holds them up for long.
        positions: the offset of the next record of each partition that was not yet taken in.
        trouble: why nothing can be read at the moment, or None.
    """

    def __init__(
        self,
        log: Log,
        take_in: Callable[[Batch], Awaitable[None]],
        *,
        name: str,
        fatal: tuple[type[Exception], ...] = (),
        pace: Pace | None = None,
    ) -> None:
        self._log = log
        self._take_in = take_in
        self._name = name
        self._fatal = fatal
        self._pace = pace
        self._next_at = float("-inf")
        self._hurrying = 0
        self._hurry = asyncio.Event()
        self._pending: dict[TopicPartition, int] = {}
        self._targets: dict[TopicPartition, int] = {}
        self._assigned = False
        self._begun = False
        self._pause = FIRST_PAUSE_SECONDS
        self._moved = asyncio.Event()
        self._asked = asyncio.Event()
        self._reader: LogReader | None = None
        self._asking: LogReader | None = None
        self._read: dict[TopicPartition, int] = {}
        self._taking: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.expects_more = False
        self.positions: dict[TopicPartition, int] = {}
        self.trouble: str | None = None

    async def start(self) -> None:
        """Begins to read. Partitions come with `follow`."""
        self._reader = self._log.reader()
        await self._reader.start()
        # What is asked for over the connection of a reader waits for the records that it waits for.
        self._asking = self._log.reader()
        await self._asking.start()
        self._task = asyncio.create_task(self._run(), name=f"headrace-follow-{self._name}")

    async def stop(self) -> None:
        """Ends the reading. A batch that is being taken in is taken in to its end."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._task])
        await self._settle()
        for reader in (self._reader, self._asking):
            if reader is not None:
                await reader.stop()
        self._reader = self._asking = None

    def follow(self, positions: Offsets) -> None:
        """Reads these partitions, too, from these offsets on. Within `FETCH_SECONDS` it has begun."""
        self._pending.update(positions)
        self._asked.set()

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the following, or None."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def ended(self) -> None:
        """Waits until the following ends, and raises the error that ended it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    @property
    def behind(self) -> int:
        """How many offsets are still to be read of what stood in the log when the partitions were first read."""
        return sum(max(0, end - self.positions.get(partition, 0)) for partition, end in self._targets.items())

    @property
    def caught_up(self) -> bool:
        """Whether everything is read that stood in the log when the partitions were first read, as the log was then."""
        return self._begun and not self._pending and self.behind == 0

    async def wait_caught_up(self, timeout: float) -> None:
        """Waits until `caught_up`.

        Raises:
            TimeoutError: that took longer than `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not self.caught_up:
                if self.failure is not None:
                    raise self.failure
                await self.wait_moved()

    async def bounds(self, partitions: Collection[TopicPartition]) -> tuple[Offsets, Offsets]:
        """Where partitions begin and end in the log now."""
        reader = _started(self._asking)
        return await reader.start_offsets(partitions), await reader.end_offsets(partitions)

    async def ask(self, partitions: Collection[TopicPartition]) -> None:
        """Returns when the brokers have answered for these partitions. A fetch finds nothing where they are silent, too.

        Raises:
            BrokerError: they did not.
        """
        await _started(self._asking).end_offsets(partitions)

    async def catch_up(self, timeout: float, partitions: Collection[TopicPartition] | None = None) -> None:
        """Waits until everything is read that stands in the log at the time of the call, in these partitions or in all.

        Raises:
            TimeoutError: that took longer than `timeout` seconds.
            BrokerError: the ends of the partitions could not be asked for.
        """
        async with asyncio.timeout(timeout):
            while (self._pending or not self._assigned) and self.failure is None:
                await self.wait_moved()
            ends = await _started(self._asking).end_offsets(partitions or list(self.positions)) if self.positions else {}
            with self._without_pace():
                while any(self.positions.get(partition, 0) < end for partition, end in ends.items()):
                    if self.failure is not None:
                        raise self.failure
                    await self.wait_moved()

    @contextmanager
    def _without_pace(self) -> Iterator[None]:
        self._hurrying += 1
        self._hurry.set()
        try:
            yield
        finally:
            self._hurrying -= 1
            if not self._hurrying:
                self._hurry.clear()

    async def wait_moved(self) -> None:
        """Waits until partitions were taken up or records taken in, and not for ever."""
        self._moved.clear()
        with suppress(TimeoutError):
            # The bound is for the end of the task, which sets no event.
            async with asyncio.timeout(0.5):
                await self._moved.wait()

    async def _run(self) -> None:
        while True:
            try:
                if self._pending or not self._assigned:
                    await self._begin()
                await self._turn()
            except self._fatal:
                raise
            except Exception as error:
                # Whatever it was, the log still has the records: go back to what was taken in last, and try again.
                self._say(error)
                await self._settle()
                self._assigned = False
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _well(self) -> None:
        """What was read is taken in: no trouble is left."""
        self._pause = FIRST_PAUSE_SECONDS
        if self.trouble is not None:
            logger.info("The %s view reads again.", self._name)
            self.trouble = None

    def _say(self, error: Exception) -> None:
        told = str(error) or type(error).__name__
        if told != self.trouble:
            unexpected = None if isinstance(error, HeadraceError | OSError) else error
            logger.warning("The %s view cannot go on, and tries again: %s", self._name, told, exc_info=unexpected)
        self.trouble = told

    async def _begin(self) -> None:
        """Takes up the partitions that are wanted, and asks how far they go: that is what `caught_up` is measured by."""
        self._asked.clear()
        pending = dict(self._pending)
        if pending:
            for partition, end in (await _started(self._asking).end_offsets(list(pending))).items():
                self._targets.setdefault(partition, end)
        # What is under way is taken in before its positions are named again.
        await self._taken()
        wanted = {**self.positions, **pending}
        if wanted:
            await _started(self._reader).assign(wanted)
        self.positions = wanted
        self._read = dict(wanted)
        for partition in pending:
            del self._pending[partition]
        self._assigned = self._begun = True
        self._moved.set()

    async def _turn(self) -> None:
        """Reads a batch, hands it over, and does not wait until it is taken in."""
        if not self.positions:
            with suppress(TimeoutError):
                async with asyncio.timeout(FETCH_SECONDS):
                    await self._asked.wait()
            return
        await self._keep_pace()
        batch = await self._gather()
        for partition, offset in batch.positions.items():
            if offset < self._read[partition] and LogReplaced in self._fatal:
                raise LogReplaced(f"{partition.topic} was read up to {self._read[partition]}, and has no such offset any more.")
        await self._taken()
        if batch.records or batch.positions:
            self._read.update(batch.positions)
            if self._pace is not None:
                records = sum(map(len, batch.records.values()))
                self._next_at = asyncio.get_running_loop().time() + self._pace.after(records)
            self._taking = asyncio.create_task(self._take(batch), name=f"headrace-take-{self._name}")
        else:
            self._well()

    async def _keep_pace(self) -> None:
        left = self._next_at - asyncio.get_running_loop().time()
        if left > 0 and self.caught_up and not self.expects_more:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._hurry.wait()

    async def _gather(self) -> Batch:
        reader = _started(self._reader)
        gathered: dict[TopicPartition, list[Record]] = {}
        count = 0
        while True:
            timeout = HURRIED_SECONDS if self.expects_more else FETCH_SECONDS
            before = count
            for partition, records in (await reader.fetch(timeout=timeout, maximum=FETCH_RECORDS)).items():
                gathered.setdefault(partition, []).extend(records)
                count += len(records)
            # More may have come, which at the pace of batches has to go with this one.
            full = count - before >= FETCH_RECORDS
            if self._pending or count >= BATCH_RECORDS or not (full or self._is_taking()):
                break
        positions = await reader.positions()
        moved = {partition: offset for partition, offset in positions.items() if offset != self._read.get(partition)}
        return Batch(gathered, moved)

    def _is_taking(self) -> bool:
        return self._taking is not None and not self._taking.done()

    async def _take(self, batch: Batch) -> None:
        await self._take_in(batch)
        self.positions.update(batch.positions)
        self._well()
        self._moved.set()

    async def _taken(self) -> None:
        """Waits until the batch that was handed over last is taken in; raises why it was not."""
        taking, self._taking = self._taking, None
        if taking is not None:
            await taking

    async def _settle(self) -> None:
        """Waits until nothing is being taken in."""
        taking, self._taking = self._taking, None
        if taking is not None:
            # Why it failed does not matter any more: the log still has the records.
            await asyncio.gather(taking, return_exceptions=True)


def _started(reader: LogReader | None) -> LogReader:
    if reader is None:
        raise RuntimeError("the follower was not started")
    return reader
