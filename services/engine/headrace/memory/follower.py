"""Reads partitions of the memory topic into the tables, to an end that is asked for, and only those that somebody needs.

It differs from a view that follows whole topics for as long as it lives: a job, or a command, needs one conversation, at once
and to the end of its partition.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence

from headrace.errors import BrokerUnreachable
from headrace.memory.tables import add_rows, rows_of
from headrace.ports import Log, Record, TopicPartition
from headrace.views.database import Database, Position, Positions, store_positions

_FETCH_SECONDS = 0.5
_FETCH_RECORDS = 5_000


class PartitionFollower:
    """Keeps the tables of `database` equal to the partitions that were asked for.

    One turn of reading at a time serves all who wait. Being cancelled is safe: a turn is finished without its caller.
    """

    def __init__(self, log: Log, database: Database, *, partitions: int, timeout: float) -> None:
        self._reader = log.reader()
        # A broker answers the requests of a connection one after another: where a partition ends would be told only after the
        # fetch that waits for new records, half a second later. So another connection asks.
        self._ends = log.reader()
        self._database = database
        self._partitions = partitions
        self._timeout = timeout
        self._wanted: set[TopicPartition] = set()
        self._reached: dict[TopicPartition, int] = {}
        self._resumed: dict[TopicPartition, Position] = {}
        self._turn: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects. Raises: BrokerError."""
        await self._reader.start()
        try:
            await self._ends.start()
        except BaseException:
            await self._reader.stop()
            raise

    async def stop(self) -> None:
        """Waits for the turn that is under way, and ends the connections."""
        if self._turn is not None:
            await asyncio.wait([self._turn])
        await self._ends.stop()
        await self._reader.stop()

    async def catch_up(self, partition: TopicPartition, end: int | None = None) -> None:
        """Returns when all records of the partition below `end` are in the tables.

        Args:
            end: an offset; where the partition ends now when None.

        Raises:
            BrokerUnreachable: that took longer than the timeout.
        """
        self._wanted.add(partition)
        try:
            async with asyncio.timeout(self._timeout):
                if end is None:
                    end = (await self._ends.end_offsets([partition]))[partition]
                while partition not in self._reached or self._reached[partition] < end:
                    await self._advance()
        except TimeoutError:
            raise BrokerUnreachable(
                f"{partition.topic}/{partition.partition} could not be read to its end within {self._timeout:g} s: "
                "see whether the broker is up and reachable."
            ) from None

    async def _advance(self) -> None:
        if self._turn is None or self._turn.done():
            self._turn = asyncio.create_task(self._read_once())
            self._turn.add_done_callback(_retrieve)
        await asyncio.shield(self._turn)

    async def _read_once(self) -> None:
        try:
            if self._wanted - self._reached.keys() and not await self._assign():
                return  # to wait for records, as where nobody has said anything yet, would be in vain
            batches = await self._reader.fetch(timeout=_FETCH_SECONDS, maximum=_FETCH_RECORDS)
            positions = {partition: at for partition, at in (await self._reader.positions()).items() if partition in self._wanted}
            if reason := self._is_another_log(batches, positions):
                await self._begin_anew(reason)
                return
            if batches:
                partitions = self._partitions
                await self._database.write(lambda connection: _take_in(connection, batches, positions, partitions))
            self._reached.update(positions)
        except BaseException:
            # The reader may have gone on past records that are not in the tables: go back to where those are.
            self._reached.clear()
            raise

    async def _assign(self) -> bool:
        """Gives the reader all partitions: those it reads go on, others resume at the last record that is in the tables.

        That record is read again, to see that this is still the log it came from.

        Returns whether there is anything to read in any of them.
        """
        stored = await self._database.positions()
        ends = await self._ends.end_offsets(self._wanted)
        starts: dict[TopicPartition, int] = {}
        for partition in self._wanted:
            position = stored.get(partition)
            if partition in self._reached:
                starts[partition] = self._reached[partition]
            elif position is None or position.last < 0:
                starts[partition] = 0 if position is None else position.next
            else:
                if ends[partition] < position.next:
                    return await self._begin_anew(f"{partition.topic}/{partition.partition} ends before what was read of it.")
                starts[partition] = position.last
                self._resumed[partition] = position
        await self._reader.assign(starts)
        self._reached.update(starts)
        return any(start < ends[partition] for partition, start in starts.items())

    def _is_another_log(
        self, batches: Mapping[TopicPartition, Sequence[Record]], positions: Mapping[TopicPartition, int]
    ) -> str | None:
        for partition, position in list(self._resumed.items()):
            records = batches.get(partition, ())
            if not records and positions.get(partition, 0) <= position.last:
                continue
            del self._resumed[partition]
            if not records or (records[0].offset, records[0].timestamp) != (position.last, position.last_timestamp):
                return f"{partition.topic}/{partition.partition} is not the log that was read before."
        return None

    async def _begin_anew(self, reason: str) -> bool:
        """Has all partitions read from their beginnings; returns as `_assign` does."""
        await self._database.discard(reason)
        self._reached.clear()
        self._resumed.clear()
        return await self._assign()


def _take_in(
    connection: sqlite3.Connection,
    batches: Mapping[TopicPartition, Sequence[Record]],
    positions: Mapping[TopicPartition, int],
    partitions: int,
) -> None:
    reached: Positions = {}
    for partition, records in batches.items():
        add_rows(connection, rows_of(records, partitions))
        reached[partition] = Position(positions[partition], records[-1].offset, records[-1].timestamp)
    store_positions(connection, reached)


def _retrieve(turn: asyncio.Task[None]) -> None:
    # Where all who waited have gone, nobody else looks at a turn's exception.
    if not turn.cancelled():
        turn.exception()
