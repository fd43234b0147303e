"""What an engine knows of a job partition that it holds, and of each job of it that is in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from headrace.codec import decode_object
from headrace.core.checkpoint import Pointer
from headrace.core.duplicates import UNKNOWN, DerivedIds, End
from headrace.core.lease import HeldLease, LeaseTiming, Moment
from headrace.core.records import SOURCE_HEADER, source_prefix
from headrace.core.recovery import Begun, PartitionRecovery
from headrace.core.snapshots import CONTINUED, Snapshot, Writer, accepted, unbegun
from headrace.core.timestamps import parse_timestamp
from headrace.core.watermark import Watermark
from headrace.engine.states import State
from headrace.errors import RecordUndecodable
from headrace.models import Job
from headrace.ports import Header, Record, TopicPartition

_WINDOW_MILLISECONDS = 3_600_000


class Phase(Enum):
    """Where a job in an engine's hands stands, between its fetch and the acknowledgement of its end."""

    WAITING = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()
    INTERRUPTED = auto()
    RESTING = auto()
    REFUSED = auto()
    TELLING = auto()


LEFT_AS_THEY_ARE = frozenset({Phase.WAITING, Phase.RESTING, Phase.REFUSED, Phase.TELLING})
"""Of such jobs nothing runs and no snapshot is under way: they are left to the next owner as they are.

One that is refused waits for its dead letter, and one that has ended for its entry in `ended-keys`; the next owner writes
them again.
"""


@dataclass(slots=True)
class Statistics:
    """What one worker has done in one engine. Times are those of `time.perf_counter`, and 0 before the first.

    Attributes:
        fetched: jobs taken in.
        ended: jobs whose end was acknowledged.
    """

    fetched: int = 0
    ended: int = 0
    first_fetched_at: float = 0.0
    last_ended_at: float = 0.0


def _no_clock() -> Moment:
    return Moment(0.0, 0.0)


@dataclass(slots=True, eq=False)
class OwnedPartition:
    """A job partition under a claim of this instance.

    Attributes:
        source: the partition of the job topic.
        state_partition: number of the partition of `job-state` that holds the state of its jobs.
        recovery: the claims and snapshots as they were read at the take-over.
        read_position: where in `job-state` that reading ended.
        writer: under whose name this instance writes; its epoch is the claim's offset.
        watermark: what of it has ended, with the end acknowledged.
        next_offset: offset of the next record that is to be taken in.
        works: the jobs in hand, by offset.
        in_hand_bytes: what the records of the jobs in hand take.
        held_back: how many of the jobs in hand wait for a time that is to come, or behind another of their lane.
        checkpoint_at, checkpoint_pause: when its newest checkpoint was made, by the steady clock, and how many seconds are to
            pass until the next one.
        ended_before: ids of jobs that a former owner ended, by offset; each is passed over when its record comes.
        begun: jobs that a former owner began and did not end, by offset.
        untold: jobs that a former owner ended and of which `ended-keys` has nothing, by offset: that is written when they come.
        ids: which jobs have ids that are not fresh, and may come again.
        ended_keys_read: where in `ended-keys` the reading of these ended.
        committed: the watermark as it was last committed.
        committed_pointer: what that commit said of the newest checkpoint.
        live: False once the partition, or its claim, is lost: nothing more may be written about it.
        unbegun: how a job stands before its first attempt.
        clock: by which its lease is held.
        lease: how long it may be held without a renewal.
        lease_name: by which it was claimed last, and its lease records and checkpoints are known.
        last_lease: offset of the lease record that was written last.
        leaving: whether it is being handed over: nothing starts any more, and what runs is interrupted.
        pointer: to its newest checkpoint that is acknowledged.
        vacated: set when no job is in hand while it is `leaving`.
        runaways: attempts that go on though it is written that they failed: only the end of the process ends them, and before it
            the partition is released by nobody.
        control_read: whether everything that was asked before it was claimed is known: only then its jobs are taken in.
    """

    source: TopicPartition
    state_partition: int
    recovery: PartitionRecovery[bytes]
    read_position: int = 0
    writer: Writer = field(default_factory=lambda: Writer("", -1))
    watermark: Watermark = field(default_factory=lambda: Watermark(0))
    next_offset: int = 0
    works: dict[int, Work] = field(default_factory=dict)
    in_hand_bytes: int = 0
    held_back: int = 0
    checkpoint_at: float = 0.0
    checkpoint_pause: float = 0.0
    ended_before: dict[int, bytes] = field(default_factory=dict)
    begun: dict[int, Begun[bytes]] = field(default_factory=dict)
    untold: dict[int, Begun[bytes]] = field(default_factory=dict)
    ids: DerivedIds = field(default_factory=lambda: DerivedIds(_WINDOW_MILLISECONDS))
    ended_keys_read: int = 0
    committed: int = -1
    committed_pointer: str = ""
    live: bool = False
    clock: Callable[[], Moment] = _no_clock
    lease: HeldLease = field(default_factory=lambda: HeldLease(LeaseTiming(), Moment(0, 0)))
    lease_name: str = ""
    last_lease: int = -1
    leaving: bool = False
    pointer: Pointer | None = None
    runaways: set[Work] = field(default_factory=set)
    control_read: bool = False
    _ended_until: int = 0
    vacated: asyncio.Event = field(default_factory=asyncio.Event)
    unbegun: State = field(default_factory=lambda: State(unbegun()))
    _source_prefix: bytes = field(init=False)
    _source_field: bytes = field(init=False)

    def __post_init__(self) -> None:
        topic, number = self.source
        self._source_prefix = source_prefix(self.recovery.worker, number)
        self._source_field = b',"source":{"topic":"%b","partition":%d,"offset":' % (topic.encode(), number)

    def work(self, record: Record, raw: Snapshot, repeated: bytes) -> Work:
        """A job of this partition of which no attempt was made.

        Args:
            record: its record.
            raw: the JSON object in the record.
            repeated: the JSON of what its snapshots repeat of it.
        """
        offset = record.offset
        digits = b"%d" % offset
        head = b"".join((repeated[:-1], self._source_field, digits, b"}"))
        source = (SOURCE_HEADER, self._source_prefix + digits)
        size = len(record.value or b"")
        return Work(self, offset, None, self.unbegun, raw, size, raw["id"].encode(), head, source)

    def take_over(self, instance_id: str, lease: HeldLease) -> None:
        """The claim is valid and everything before it is known: the partition is this instance's."""
        recovery = self.recovery
        self.lease = lease
        self.last_lease = recovery.ledger.last_lease
        self.writer = Writer(instance_id, recovery.ledger.epoch)
        self.watermark = Watermark(recovery.watermark)
        for first, last in recovery.finished_ranges():
            self.watermark.skip(first, last + 1)
            self._ended_until = last + 1
        self.ended_before = recovery.finished()
        self.begun = recovery.begun()
        self._sort_out(recovery.untold())
        recovery.jobs.clear()
        self.next_offset = self.watermark.position
        self.committed = recovery.watermark
        self.live = True

    def _sort_out(self, ended: Mapping[int, Begun[bytes]]) -> None:
        """Jobs that may come again have ended: those of which `ended-keys` has nothing must not be forgotten."""
        for offset, job in ended.items():
            fields = job.fields if job.fields is not None else decode_object(job.snapshot)
            job_id = job.job_id.decode(errors="replace")
            if self.ids.has_ended(job_id, offset):
                self.ended_before[offset] = job.job_id
                continue
            self.ended_before.pop(offset, None)
            self.ids.end(job_id, End(offset, parse_timestamp(fields["updatedAt"]), UNKNOWN))
            self.untold[offset] = Begun(job.job_id, None, {name: fields[name] for name in CONTINUED if name in fields})

    @property
    def source_prefix(self) -> bytes:
        """What the source headers of its jobs begin with; the offset follows."""
        return self._source_prefix

    def is_held(self) -> bool:
        """Whether attempts may start and go on under its lease, and acknowledgements count."""
        return self.live and self.lease.is_held(self.clock())

    def has_ended(self, offset: int) -> bool:
        """Whether the job at an offset of the queue has ended, here or under a former owner, with the end acknowledged."""
        return self.watermark.is_finished(offset) or offset in self.ended_before

    @property
    def is_busy(self) -> bool:
        """Whether an attempt runs, or a record of one is under way."""
        return bool(self.runaways) or any(work.phase not in LEFT_AS_THEY_ARE for work in self.works.values())

    def hold(self, work: Work) -> None:
        """A job is in hand from now on; it may be so already."""
        if work.offset not in self.works:
            self.in_hand_bytes += work.size
        self.works[work.offset] = work

    def let_go(self, offset: int) -> None:
        """The end of a job is acknowledged: it is in hand no more, and the watermark may rise."""
        if (work := self.works.pop(offset, None)) is not None:
            self.in_hand_bytes -= work.size
        self.watermark.finish(offset)
        self._note_vacated()

    def leave_to_others(self, work: Work) -> None:
        """A job that has not ended is in hand no more: the next owner runs it."""
        if self.works.pop(work.offset, None) is not None:
            self.in_hand_bytes -= work.size
            if work.acknowledged is not None:
                # A checkpoint may still be written before the release: the next attempt has a higher number all the same.
                self.begun[work.offset] = Begun(work.key, None, work.acknowledged.fields)
        self._note_vacated()

    def leave(self) -> None:
        """The partition is being handed over."""
        self.leaving = True
        self._note_vacated()

    def _note_vacated(self) -> None:
        if self.leaving and not self.works and not self.runaways:
            self.vacated.set()

    def has_stopped(self, work: Work) -> bool:
        """An attempt has ended; tells whether it was a runaway."""
        if work not in self.runaways:
            return False
        self.runaways.discard(work)
        self._note_vacated()
        return True

    def pass_to(self, record: Record) -> bool:
        """This record comes next. Tells whether its job is still to be done."""
        offset = record.offset
        if offset < self.next_offset:
            return False
        if offset > self.next_offset:
            self.watermark.skip(self.next_offset, offset)
        self.next_offset = offset + 1
        if offset < self._ended_until and self.watermark.is_finished(offset):
            return False
        return not (self.ended_before and self._has_ended(record))

    def step_over_ended(self, least: int) -> bool:
        """Passes over the records that follow, if at least so many of them are of jobs that ended; tells whether it did.

        Beside one job that ran for an hour, a million may have ended: their records need not be read again.
        """
        if self.next_offset >= self._ended_until:
            return False
        unfinished = self.watermark.next_unfinished(self.next_offset)
        if unfinished - self.next_offset < least:
            return False
        self.next_offset = unfinished
        return True

    def _has_ended(self, record: Record) -> bool:
        """Whether a former owner ended this very job: a queue that was made anew has other jobs at the same offsets."""
        job_id = self.ended_before.pop(record.offset, None)
        if job_id is None or job_id != job_id_of(record):
            return False
        self.watermark.finish(record.offset)
        return True


def job_id_of(record: Record) -> bytes | None:
    """The id in a job record, as it is the key of the job's snapshots; None where there is none."""
    try:
        job_id = decode_object(record.value).get("id")
    except RecordUndecodable:
        return None
    return job_id.encode() if isinstance(job_id, str) else None


@dataclass(slots=True, eq=False)
class Work:
    """One job in an engine's hands.

    Attributes:
        lane: jobs of equal lane run one after another; None for a job that waits for nobody.
        state: how the job stands, as it was last written or is about to be.
        record: the job record as it was read.
        key: the key of its snapshots, which is its id.
        digest: of its arguments, if its id is not fresh; None for the others, of which nothing is remembered.
        acknowledged: how the job stands by the last acknowledgement; None before its first attempt.
        arguments: as the worker's model made them.
        task: the attempt, while it runs.
        stopped: whether the engine stops the attempt, for reasons that are not the job's.
        cancelled: whether somebody cancelled the job, and this engine has heard of it.
        size: bytes that its record takes.
        head: the JSON of what all its snapshots begin with, its record and where that stands, without the closing brace.
        source_header: the header that all its snapshots have.
        original: its record as it was fetched, of a job that runs in a process of its own since others died while it ran in them;
            None for any other.
    """

    partition: OwnedPartition
    offset: int
    lane: Hashable | None
    state: State
    record: Snapshot = field(default_factory=dict)
    size: int = 0
    key: bytes = b""
    head: bytes = b""
    source_header: Header = (SOURCE_HEADER, b"")
    arguments: Any = None
    phase: Phase = Phase.WAITING
    task: asyncio.Task[Any] | None = None
    stopped: bool = False
    cancelled: bool = False
    acknowledged: State | None = None
    original: Record | None = None
    digest: str | None = None

    def as_job(self) -> Job:
        """The job as its worker sees it: as it was accepted, with what former attempts left."""
        topic, partition = self.partition.source
        source = {"topic": topic, "partition": partition, "offset": self.offset}
        return Job.model_validate({**accepted(self.record), **self.state.fields, "source": source})
