"""How an instance takes over job partitions: it reads, claims, and reads up to its claim.

The rules are C2 to C4 of the ownership protocol: a claim names the last lease record its writer saw, and is void if another
stands between; the claimant reads up to its own claim, and only then knows everything that came before it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.codec import decode, encode
from headrace.core.records import LEASE_PREFIX, SOURCE_HEADER, lease_key, parse_lease_key, parse_snapshot_headers
from headrace.engine.partition import OwnedPartition
from headrace.errors import RecordUndecodable
from headrace.models import ClaimRecord
from headrace.ports import LogReader, LogWriter, NewRecord, Record, TopicPartition

_logger = logging.getLogger(__name__)

_FETCH_SECONDS = 0.1
_CLAIM_SECONDS = 30.0


@dataclass(slots=True)
class _Candidate:
    """A partition on its way: first `target` is the end of its state as it was found, then the offset after the claim."""

    partition: OwnedPartition
    source_prefix: bytes
    target: int
    claim: asyncio.Task[int] | None = None
    claimed_at: int | None = None


@dataclass(slots=True)
class Takeover:
    """Takes over job partitions of one worker. Cancelling `run` gives up those that are not ready yet.

    Attributes:
        topic: name of `job-state`.
        ready: called with each partition that has been taken over, as soon as it has.
        lost: called with a partition that was held already, and that somebody else claimed meanwhile.
    """

    reader: LogReader
    writer: LogWriter
    topic: str
    instance_id: str
    ready: Callable[[OwnedPartition], None]
    lost: Callable[[OwnedPartition], None]
    _by_state: dict[TopicPartition, list[_Candidate]] = field(default_factory=dict)

    async def run(self, partitions: Sequence[OwnedPartition]) -> None:
        """Takes the partitions over. One that is `live` already is kept if nobody claimed it since, else it is lost."""
        states = {TopicPartition(self.topic, partition.state_partition) for partition in partitions}
        positions = {state: min(p.read_position for p in partitions if p.state_partition == state.partition) for state in states}
        # Asked before the reading begins: later the answer would wait behind a fetch that waits for records.
        ends = await self.reader.end_offsets(states)
        await self.reader.assign(positions)
        for partition in partitions:
            state = TopicPartition(self.topic, partition.state_partition)
            prefix = f"{partition.recovery.worker}/{partition.source.partition}/".encode()
            self._by_state.setdefault(state, []).append(_Candidate(partition, prefix, ends[state]))
        try:
            await self._advance(await self.reader.positions())
            while self._by_state:
                self._apply(await self.reader.fetch(timeout=_FETCH_SECONDS))
                await self._advance(await self.reader.positions())
            await self.reader.assign({})  # nobody is to wait behind its fetches
        finally:
            claims = [candidate.claim for candidate in self._candidates() if candidate.claim]
            for claim in claims:
                claim.cancel()
            await asyncio.gather(*claims, return_exceptions=True)

    def _candidates(self) -> list[_Candidate]:
        return [candidate for candidates in self._by_state.values() for candidate in candidates]

    def _apply(self, batches: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for state, records in batches.items():
            candidates = self._by_state.get(state, ())
            for record in records:
                for candidate in candidates:
                    if record.offset >= candidate.partition.read_position:
                        _fold(record, candidate)

    async def _advance(self, positions: Mapping[TopicPartition, int]) -> None:
        for state, candidates in list(self._by_state.items()):
            position = positions.get(state, 0)
            for candidate in list(candidates):
                candidate.partition.read_position = max(candidate.partition.read_position, position)
                if await self._step(candidate, position):
                    candidates.remove(candidate)
            if not candidates:
                del self._by_state[state]

    async def _step(self, candidate: _Candidate, position: int) -> bool:
        """Moves one partition on as far as what was read allows; tells whether it is settled."""
        partition = candidate.partition
        if candidate.claim is not None and candidate.claim.done():
            candidate.claimed_at = candidate.claim.result()
            candidate.target = candidate.claimed_at + 1
            candidate.claim = None
        if candidate.claim is not None or position < candidate.target:
            return False
        ledger = partition.recovery.ledger
        if partition.live:
            (self.ready if ledger.epoch == partition.writer.epoch else self.lost)(partition)
            return True
        if candidate.claimed_at is not None and ledger.epoch == candidate.claimed_at:
            partition.take_over(self.instance_id)
            self.ready(partition)
            return True
        # Not claimed yet, or the claim was void because another came first: claim with what is known now.
        candidate.claimed_at = None
        candidate.claim = asyncio.create_task(self._claim(partition, ledger.last_lease))
        return False

    async def _claim(self, partition: OwnedPartition, previous: int) -> int:
        worker, number = partition.recovery.worker, partition.source.partition
        record = ClaimRecord(worker_name=worker, partition=number, instance_id=self.instance_id, previous=previous)
        acknowledged = await self.writer.append(
            TopicPartition(self.topic, partition.state_partition),
            NewRecord(lease_key(worker, number, self.instance_id), encode(record)),
            timeout=_CLAIM_SECONDS,
        )
        return acknowledged.offset


def _fold(record: Record, candidate: _Candidate) -> None:
    """Takes one record of `job-state` into what is known of the partition, if it is about it."""
    recovery = candidate.partition.recovery
    key = record.key or b""
    if key.startswith(LEASE_PREFIX):
        lease = parse_lease_key(key)
        if lease is None or lease.worker != recovery.worker or lease.partition != recovery.partition or record.value is None:
            return
        try:
            claim = decode(ClaimRecord, record.value)
        except RecordUndecodable as error:
            _logger.warning("a claim in %s/%d at offset %d was skipped: %s", record.topic, record.partition, record.offset, error)
            return
        recovery.claim(record.offset, claim.previous, claim.instance_id)
        return
    if candidate.partition.live:
        return  # held already: only a claim can be news
    for name, value in record.headers:
        if name == SOURCE_HEADER:
            if value.startswith(candidate.source_prefix) and (headers := parse_snapshot_headers(record.headers)):
                recovery.snapshot(headers, key, record.value)
            return
