"""How an instance takes over job partitions: it waits for the lease before it to end, claims, and reads up to its claim.

The rules are C1 to C4 of the ownership protocol. A claim names the last lease record its writer saw, and is void if another
stands between; the claimant reads up to its own claim, and only then knows everything that came before it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

from headrace.codec import encode
from headrace.core.lease import HeldLease, LeaseTiming, LeaseWatch, Moment
from headrace.core.ownership import PartitionLedger
from headrace.core.records import instance_of, lease_key, lease_name
from headrace.engine.folding import fold
from headrace.engine.news import WorkerNews
from headrace.engine.partition import OwnedPartition
from headrace.errors import HeadraceError
from headrace.models import ClaimRecord, ReleaseRecord
from headrace.ports import Acknowledged, LogReader, LogWriter, NewRecord, Record, TopicPartition

_logger = logging.getLogger(__name__)

_FETCH_SECONDS = 0.1
_APPEND_SECONDS = 30.0
_MOST_RECORDS = 2_000
# As a rule a lease is released within a moment; what was not by then is looked at more closely, and now and then.
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims, where, and by which clocks.

    Attributes:
        topic: name of `job-state`.
        clock: the clocks by which a lease is held.
        by_log_time: whether a lease is over, too, when the brokers' own times say so.
        learn: reads what else a new owner must know of partitions, as it stands in the log at the time of the call.
        claims: how many were sent of each job partition.
    """

    reader: LogReader
    writer: LogWriter
    topic: str
    instance_id: str
    clock: Callable[[], Moment]
    timing: LeaseTiming
    by_log_time: bool
    learn: Callable[[Sequence[OwnedPartition]], Awaitable[None]] | None = None
    claims: Counter[TopicPartition] = field(default_factory=Counter)

    def next_name(self, source: TopicPartition) -> str:
        """A name for the lease of a job partition that this instance has given to none before."""
        self.claims[source] += 1
        return lease_name(self.instance_id, self.claims[source])

    def is_own(self, ledger: PartitionLedger) -> bool:
        """Whether the newest valid claim is this instance's."""
        return ledger.holder is not None and instance_of(ledger.holder) == self.instance_id


@dataclass(slots=True)
class _Candidate:
    """A partition on its way.

    Attributes:
        target: the offset that is to be read up to before anything is decided.
        asked_at: when that was the end of the log, by the loop's clock.
        sent: just before the claim was sent.
        append: the claim, or a look at the log's clock, on its way.
        claimed_at: offset of the claim.
        log_time: the log's time when `target` was written, if this instance wrote there.
        look_at: when the log's end is asked for again.
        looks: how often the lease was found to hold.
        resumed_at: nothing is done before this, by the loop's clock.
        owed: the fate of a claim is unknown, or nobody is left to use it: where it landed, it has to be released.
    """

    partition: OwnedPartition
    source_prefix: bytes
    target: int
    asked_at: float
    watch: LeaseWatch
    sent: Moment | None = None
    append: asyncio.Task[Acknowledged] | None = None
    claiming: bool = False
    claimed_at: int | None = None
    log_time: int | None = None
    look_at: float | None = None
    looks: int = 0
    resumed_at: float = 0.0
    owed: bool = False


class Takeover:
    """Takes over job partitions of one worker.

    Args:
        ready: called with each partition that has been taken over, as soon as it has.
        watches: of the leases that are waited for, by job partition; they outlast a take-over that is wound up.
        news: says what is waited for.
    """

    def __init__(
        self,
        claimant: Claimant,
        ready: Callable[[OwnedPartition], None],
        watches: MutableMapping[TopicPartition, LeaseWatch],
        news: WorkerNews,
    ) -> None:
        self._claimant = claimant
        self._ready = ready
        self._watches = watches
        self._news = news
        self._winding_up = False
        self._rewound = False
        self._by_state: dict[TopicPartition, list[_Candidate]] = {}
        self._valid: list[tuple[OwnedPartition, HeldLease]] = []

    def wind_up(self) -> None:
        """Claims nothing more. What is claimed already is still read back, so that it can be used, or released."""
        self._winding_up = True

    async def run(self, partitions: Sequence[OwnedPartition]) -> None:
        """Takes the partitions over, each as soon as it can be had; returns when all are, or when it was wound up.

        Raises what the reader raises as long as nothing is claimed. Once something may be, it goes on until that is read back: a
        claim that landed and that nobody knows of would keep the partition from everybody for its term.

        Cancelled, it may leave claims behind of which nobody knows here: others have to wait for their term.
        """
        topic, reader = self._claimant.topic, self._claimant.reader
        states = dict.fromkeys(TopicPartition(topic, partition.state_partition) for partition in partitions)
        asked_at = _now()
        # Asked before the reading begins: later the answer would wait behind a fetch that waits for records.
        ends, _ = await asyncio.gather(reader.end_offsets(states), self._learn(partitions))
        for partition in partitions:
            state = TopicPartition(topic, partition.state_partition)
            prefix = f"{partition.recovery.worker}/{partition.source.partition}/".encode()
            if partition.read_position > ends[state]:
                _read_from_the_start(partition)  # `job-state` was deleted and made anew
            watch = self._watches.setdefault(partition.source, LeaseWatch())
            self._by_state.setdefault(state, []).append(_Candidate(partition, prefix, ends[state], asked_at, watch))
        await reader.assign(self._positions())
        try:
            await self._advance(await reader.positions())
            while self._by_state or self._valid:
                try:
                    await self._read_on()
                except (HeadraceError, TimeoutError) as error:
                    if not self._drop_unclaimed():
                        raise
                    self._news.trouble("reading", "claims cannot be read back, and that is tried again: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)
            await reader.assign({})  # nobody is to wait behind its fetches
        finally:
            await self._give_up()

    async def _read_on(self) -> None:
        reader = self._claimant.reader
        if self._rewound:
            await reader.assign(self._positions())
            self._rewound = False
        self._apply(await reader.fetch(timeout=_FETCH_SECONDS, maximum=_MOST_RECORDS))
        await self._look_again()
        await self._advance(await reader.positions())

    def _drop_unclaimed(self) -> bool:
        """Leaves those that nothing was claimed of to the next take-over; tells whether others are left."""
        for state, candidates in list(self._by_state.items()):
            candidates[:] = [each for each in candidates if each.append or each.claimed_at is not None or each.owed]
            if not candidates:
                del self._by_state[state]
        return bool(self._by_state or self._valid)

    def _positions(self) -> dict[TopicPartition, int]:
        return {
            state: min(candidate.partition.read_position for candidate in candidates)
            for state, candidates in self._by_state.items()
        }

    async def _give_up(self) -> None:
        appends = [candidate.append for candidate in self._candidates() if candidate.append]
        for append in appends:
            append.cancel()
        await asyncio.gather(*appends, return_exceptions=True)

    def _candidates(self) -> list[_Candidate]:
        return [candidate for candidates in self._by_state.values() for candidate in candidates]

    def _apply(self, batches: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for state, records in batches.items():
            candidates = self._by_state.get(state, ())
            for record in records:
                for candidate in candidates:
                    if record.offset >= candidate.partition.read_position:
                        fold(record, candidate.partition, candidate.source_prefix)

    async def _look_again(self) -> None:
        """Asks for the log's end where a lease is waited for: only what was read up to it tells that nobody renewed it."""
        now = _now()
        due = [candidate for candidate in self._candidates() if candidate.look_at is not None and candidate.look_at <= now]
        if not due:
            return
        self._news.waits_for({each.partition.source: each.partition.recovery.ledger for each in due if self._is_anothers(each)})
        topic = self._claimant.topic
        ends = await self._claimant.reader.end_offsets({TopicPartition(topic, c.partition.state_partition) for c in due})
        for candidate in due:
            candidate.target = ends[TopicPartition(topic, candidate.partition.state_partition)]
            candidate.asked_at, candidate.look_at = now, None

    def _is_anothers(self, candidate: _Candidate) -> bool:
        ledger = candidate.partition.recovery.ledger
        return not ledger.released and ledger.holder is not None and not self._claimant.is_own(ledger)

    async def _advance(self, positions: Mapping[TopicPartition, int]) -> None:
        for state, candidates in list(self._by_state.items()):
            position = positions.get(state, 0)
            for candidate in list(candidates):
                candidate.partition.read_position = max(candidate.partition.read_position, position)
                if self._step(candidate, position):
                    candidates.remove(candidate)
            if not candidates:
                del self._by_state[state]
        if self._valid:
            await self._take_over()

    async def _take_over(self) -> None:
        """The claims are valid, and nobody else writes any more about these partitions."""
        await self._learn([partition for partition, _ in self._valid])
        # Not before: if that fails, it is tried again, and meanwhile the claims are this take-over's.
        valid, self._valid = self._valid, []
        for partition, lease in valid:
            partition.take_over(self._claimant.instance_id, lease)
            self._watches.pop(partition.source, None)
            self._ready(partition)

    async def _learn(self, partitions: Sequence[OwnedPartition]) -> None:
        if self._claimant.learn is not None:
            await self._claimant.learn(partitions)

    def _step(self, candidate: _Candidate, position: int) -> bool:
        """Moves one partition on as far as what was read allows; tells whether it is settled."""
        self._note_append(candidate)
        if self._winding_up and candidate.append is None and candidate.claimed_at is None and not candidate.owed:
            return True
        ledger = candidate.partition.recovery.ledger
        waits = candidate.look_at is not None and (candidate.owed or not ledger.released)
        if candidate.append is not None or position < candidate.target or waits or _now() < candidate.resumed_at:
            return False
        if candidate.owed and self._winding_up:
            return self._settle(candidate)
        candidate.owed = False
        if candidate.claimed_at is not None and candidate.sent is not None:
            if not candidate.partition.recovery.is_complete:
                self._read_all(candidate)
                return False
            lease = HeldLease(self._claimant.timing, candidate.sent)
            if ledger.epoch == candidate.claimed_at and lease.is_held(self._claimant.clock()):
                self._valid.append((candidate.partition, lease))
                return True
            # Void, since another came first; or read back too late, so that it has lapsed.
            candidate.claimed_at = None
            if self._winding_up:
                return self._settle(candidate)
        # What this instance itself held before ended in it: nobody starts there what has not been stopped.
        own = self._claimant.is_own(ledger)
        if own or candidate.watch.is_over(ledger, candidate.asked_at, candidate.log_time, seen_at=_now()):
            self._claim(candidate, ledger.last_lease)
        else:
            self._wait(candidate)
        return False

    def _settle(self, candidate: _Candidate) -> bool:
        """Releases a claim that landed all the same, of which nothing was done; tells whether that is done with."""
        ledger = candidate.partition.recovery.ledger
        candidate.owed = self._claimant.is_own(ledger) and not ledger.released
        if not candidate.owed or ledger.holder is None:
            return True
        partition = candidate.partition
        release = ReleaseRecord(
            worker_name=partition.recovery.worker,
            partition=partition.source.partition,
            instance_id=ledger.holder,
            epoch=ledger.epoch,
            reason="stopped",
        )
        candidate.claiming = False
        candidate.append = asyncio.create_task(self._append(partition, ledger.holder, encode(release)))
        return False

    def _read_all(self, candidate: _Candidate) -> None:
        """The checkpoint that was to be met is not there: the whole partition tells the same."""
        partition = candidate.partition
        _logger.warning("no checkpoint was found of %s/%d: its whole state is read", *partition.source)
        _read_from_the_start(partition)
        self._rewound = True

    def _note_append(self, candidate: _Candidate) -> None:
        if candidate.append is None or not candidate.append.done():
            return
        append, candidate.append = candidate.append, None
        try:
            written = append.result()
        except (HeadraceError, TimeoutError) as error:
            self._note_failure(candidate, error)
            return
        candidate.target = written.offset + 1
        if candidate.claiming:
            candidate.claimed_at = written.offset
        else:
            candidate.log_time = written.timestamp

    def _note_failure(self, candidate: _Candidate, error: Exception) -> None:
        """What was appended for this partition may have landed or not; of the others it says nothing."""
        source = candidate.partition.source
        self._news.trouble("claim", "a claim of %s/%d failed, and is tried again: %s", *source, error)
        candidate.owed = candidate.claiming
        candidate.resumed_at = _now() + _RETRY_SECONDS
        # Only what was read up to an end that was asked for afterwards tells whether it landed.
        candidate.look_at = candidate.resumed_at

    def _wait(self, candidate: _Candidate) -> None:
        """The lease holds still (rule C1): it is looked at again in a moment.

        Once, what is written then tells the log's time: a lease whose last record is old by that is over at once, where this
        process would have to watch it for half a minute.
        """
        candidate.log_time = None
        candidate.looks += 1
        if candidate.looks == 2 and self._claimant.by_log_time:
            candidate.claiming = False
            candidate.asked_at = _now()
            # A tombstone: under a name that no claim has it takes nothing away, whenever it lands.
            name = lease_name(self._claimant.instance_id, 0)
            candidate.append = asyncio.create_task(self._append(candidate.partition, name, None))
            return
        candidate.look_at = _now() + _LOOK_SECONDS

    def _claim(self, candidate: _Candidate, previous: int) -> None:
        partition = candidate.partition
        candidate.look_at = None
        candidate.sent = self._claimant.clock()
        candidate.claiming = True
        partition.lease_name = self._claimant.next_name(partition.source)
        record = ClaimRecord(
            worker_name=partition.recovery.worker,
            partition=partition.source.partition,
            instance_id=partition.lease_name,
            previous=previous,
            term_seconds=self._claimant.timing.term,
        )
        candidate.append = asyncio.create_task(self._append(partition, partition.lease_name, encode(record)))

    async def _append(self, partition: OwnedPartition, name: str, value: bytes | None) -> Acknowledged:
        key = lease_key(partition.recovery.worker, partition.source.partition, name)
        target = TopicPartition(self._claimant.topic, partition.state_partition)
        return await self._claimant.writer.append(target, NewRecord(key, value), timeout=_APPEND_SECONDS)


def _read_from_the_start(partition: OwnedPartition) -> None:
    partition.recovery = partition.recovery.from_the_start()
    partition.read_position = 0


def _now() -> float:
    return asyncio.get_running_loop().time()
