"""The writer of `job-state`: gathers the snapshots of one turn of the loop, and tells when they are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import orjson

from headrace.core.records import VERSION_HEADER, source_header, status_header
from headrace.core.snapshots import Snapshot
from headrace.core.status import JobStatus
from headrace.engine.partition import OwnedPartition, Work
from headrace.ports import Acknowledged, Header, LogWriter, NewRecord, Outcome, TopicPartition

_STATUS_HEADERS: Mapping[str, Header] = {status: status_header(status) for status in JobStatus}


class Journal:
    """Writes snapshots for one worker's partitions.

    All snapshots of a turn of the event loop that go to one partition of `job-state` are submitted together, and come back
    together: there is no future and no task for a single one.

    Args:
        acknowledged: called with the works whose newest snapshot all in-sync replicas have.
        failed: called with a partition of which a snapshot was refused, or whose fate is unknown.
    """

    def __init__(
        self,
        writer: LogWriter,
        topic: str,
        acknowledged: Callable[[list[Work]], None],
        failed: Callable[[OwnedPartition, Exception], None],
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._acknowledged = acknowledged
        self._failed = failed
        self._gathered: dict[int, tuple[list[NewRecord], list[Work]]] = {}
        self._flush_scheduled = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def write(self, work: Work, state: Snapshot) -> None:
        """Hands over the next snapshot of a job, which stands so from now on."""
        work.state = state
        partition = work.partition
        record = NewRecord(
            work.record["id"].encode(),
            b"%b,%b" % (work.head, orjson.dumps(state)[1:]),
            (
                work.source_header or _source_header(work),
                (VERSION_HEADER, b"%d/%d/%d" % (state["epoch"], state["attempt"], state["sequence"])),
                _STATUS_HEADERS[state["status"]],
            ),
        )
        gathered = self._gathered.get(partition.state_partition)
        if gathered is None:
            self._gathered[partition.state_partition] = ([record], [work])
        else:
            gathered[0].append(record)
            gathered[1].append(work)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._flush)

    async def settled(self) -> None:
        """Waits until the fate of all that was handed over is known."""
        await self._idle.wait()

    def _flush(self) -> None:
        self._flush_scheduled = False
        gathered, self._gathered = self._gathered, {}
        self._under_way += len(gathered)
        for number, (records, works) in gathered.items():
            self._writer.submit(TopicPartition(self._topic, number), records, partial(self._done, works))

    def _done(self, works: list[Work], outcome: Outcome) -> None:
        self._under_way -= 1
        if isinstance(outcome, Acknowledged):
            self._acknowledged(works)
        else:
            for partition in {work.partition for work in works}:
                self._failed(partition, outcome.reason)
        if not self._under_way and not self._flush_scheduled:
            self._idle.set()


def _source_header(work: Work) -> Header:
    """Made once: every snapshot of a job has the same."""
    partition = work.partition
    work.source_header = source_header(partition.recovery.worker, partition.source.partition, work.offset)
    return work.source_header
