"""Ways to break an engine: for each rule of the protocol, and for the other promises, what it would be without them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headrace.codec import decode_object
from headrace.core import lease, recovery, snapshots
from headrace.core.lanes import Lanes
from headrace.core.lease import HeldLease, LeaseWatch, Moment
from headrace.core.ownership import PartitionLedger
from headrace.core.recovery import PartitionRecovery
from headrace.core.snapshots import Writer
from headrace.core.status import TERMINAL, JobStatus
from headrace.core.watermark import Watermark
from headrace.engine import admission, checkpoints, commits, folding
from headrace.engine.attempts import Attempts
from headrace.engine.cancelling import Cancelling
from headrace.engine.control import EngineControl
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.endings import Endings
from headrace.engine.holdings import Holdings
from headrace.engine.journal import Journal
from headrace.engine.partition import OwnedPartition, Phase, Work
from headrace.engine.takeover import Takeover
from headrace.errors import LeaseLost
from headrace.leases import take_lease
from headrace.ports import Acknowledged
from headrace.testing.simulation.process import SimulatedProcess
from headrace.testing.simulation.supervision import SimulatedSupervisor
from simulation import breaks_of_jobs, breaks_of_leases, breaks_of_records
from simulation.broken import Break, Patch


def c1_does_not_wait(patch: Patch) -> None:
    patch.setattr(LeaseWatch, "is_over", lambda *_, **__: True)


def c2_every_claim_is_valid(patch: Patch) -> None:

    def take(ledger: Any, record: Any) -> bool:
        if record.value is not None and (raw := decode_object(record.value)).get("kind") == "claim":
            ledger.claim(record.offset, record.offset, raw["instanceId"], at=record.timestamp, term_seconds=raw["termSeconds"])
            return True
        return take_lease(ledger, record)

    patch.setattr(folding, "take_lease", take)


def c3_does_not_read_back(patch: Patch) -> None:
    original = Takeover._note_append

    def note(self: Any, candidate: Any) -> None:
        original(self, candidate)
        if candidate.claimed_at is not None and candidate.target == candidate.claimed_at + 1:
            candidate.target = 0
            ledger = candidate.partition.recovery.ledger
            ledger.claim(candidate.claimed_at, candidate.claimed_at, self._claimant.instance_id, term_seconds=25.0)

    patch.setattr(Takeover, "_note_append", note)


def f1_last_words_count(patch: Patch) -> None:
    original = PartitionRecovery.snapshot

    def snapshot(self: Any, headers: Any, job_id: bytes, value: Any) -> bool:
        ledger, self.ledger = self.ledger, PartitionLedger()
        try:
            return original(self, headers, job_id, value)
        finally:
            self.ledger = ledger

    patch.setattr(PartitionRecovery, "snapshot", snapshot)


def f2_the_last_record_wins(patch: Patch) -> None:
    patch.setattr(recovery, "supersedes", lambda *_: True)


def f2_the_first_record_wins(patch: Patch) -> None:
    patch.setattr(recovery, "supersedes", lambda *_: False)


def _without_check(patch: Patch, concerns: Callable[[Work], bool]) -> None:
    """The acknowledgements that these jobs wait for count, whatever became of the lease."""
    acknowledged, may_go_on = Dispatcher._acknowledged, Dispatcher._may_go_on
    unchecked = False

    def each_alone(self: Any, works: Any) -> None:
        nonlocal unchecked
        for work in works:
            unchecked = concerns(work)
            acknowledged(self, [work])
            unchecked = False

    patch.setattr(Dispatcher, "_acknowledged", each_alone)
    patch.setattr(Dispatcher, "_may_go_on", lambda self, partition: partition.live if unchecked else may_go_on(self, partition))


def f3_late_ends_count(patch: Patch) -> None:
    _without_check(patch, lambda work: work.phase is Phase.ENDING)


def h2_starts_without_a_check(patch: Patch) -> None:
    """Neither at the acknowledgement nor just before the work begins."""
    _without_check(patch, lambda work: work.phase is Phase.STARTING)
    original = Attempts.__init__

    def init(self: Attempts, run: Any, _: Any, guard: Any) -> None:
        original(self, run, lambda partition: partition.live, guard)

    patch.setattr(Attempts, "__init__", init)


def h2_tells_of_ends_without_a_check(patch: Patch) -> None:
    """An end that is acknowledged after the lease is told to `ended-keys` all the same."""
    _without_check(patch, lambda work: work.phase is Phase.ENDING and work.digest is not None)
    patch.setattr(Endings, "_may_go_on", lambda _, work: work.partition.live)


def h1_leases_last_for_ever(patch: Patch) -> None:
    patch.setattr(HeldLease, "is_held", lambda *_: True)


def h1_the_term_counts_from_the_acknowledgement(patch: Patch) -> None:
    original = Holdings._renewed
    patch.setattr(
        Holdings, "_renewed", lambda self, partition, _, *rest: original(self, partition, self._claimant.clock(), *rest)
    )


def h1_the_clock_stops_with_the_machine(patch: Patch) -> None:
    def clock(self: SimulatedProcess) -> Moment:
        now = self._loop.now - self.suspended_seconds
        return Moment(now, now)

    patch.setattr(SimulatedProcess, "clock", clock)


def h4_the_group_is_not_probed(patch: Patch) -> None:
    patch.setattr(commits, "_PROBE_SECONDS", 1e9)
    patch.setattr(commits, "_UNANSWERED_SECONDS", 1e9)


def h5_a_lapsed_lease_is_revived(patch: Patch) -> None:
    original = Holdings.claim_lost

    def revive(self: Any, partition: OwnedPartition, reason: Exception) -> None:
        if isinstance(reason, LeaseLost):
            partition.lease.renewed(self._claimant.clock())
        else:
            original(self, partition, reason)

    patch.setattr(Holdings, "claim_lost", revive)


def h6_failed_sends_count(patch: Patch) -> None:
    original = Journal._done

    def done(self: Journal, works: Any, tell: Any, outcome: Any) -> None:
        original(self, works, tell, outcome if isinstance(outcome, Acknowledged) else Acknowledged(0, 0))

    patch.setattr(Journal, "_done", done)


def o1_waits_too_short(patch: Patch) -> None:
    patch.setattr(lease, "_OVER", 0.3)


def o1_trusts_the_brokers_clocks_too_far(patch: Patch) -> None:
    patch.setattr(lease, "_OVER_BY_LOG", 0.4)


def r1_released_while_attempts_run(patch: Patch) -> None:
    original = Dispatcher.hand_over

    def hand_over(self: Dispatcher, partition: OwnedPartition, **named: Any) -> None:
        original(self, partition, **named)
        partition.vacated.set()

    patch.setattr(Dispatcher, "hand_over", hand_over)


def k1_covers_what_is_not_acknowledged(patch: Patch) -> None:
    """A checkpoint is taken to cover all that stands before it, also what was under way when it was made."""
    original = Holdings._renewed

    def renewed(self: Any, partition: Any, sent: Any, pointer: Any, outcome: Any) -> None:
        if pointer is not None and isinstance(outcome, Acknowledged):
            pointer = pointer._replace(covers=outcome.offset + 1)
        original(self, partition, sent, pointer, outcome)

    patch.setattr(Holdings, "_renewed", renewed)


def k2_forgets_what_was_begun(patch: Patch) -> None:
    patch.setattr(checkpoints, "_begun", lambda _: [])


def k2_forgets_what_has_ended(patch: Patch) -> None:
    patch.setattr(PartitionRecovery, "finished", lambda _: {})


def k3_commits_what_is_highest(patch: Patch) -> None:
    def finish(self: Watermark, offset: int) -> bool:
        risen = offset >= self.position
        self.position = max(self.position, offset + 1)
        return risen

    patch.setattr(Watermark, "finish", finish)


def k3_commits_before_the_acknowledgement(patch: Patch) -> None:
    original = Journal.write

    def write(self: Journal, work: Any, state: Any) -> None:
        original(self, work, state)
        if state.fields["status"] in TERMINAL:
            work.partition.watermark.finish(work.offset)

    patch.setattr(Journal, "write", write)


def starts_before_it_is_written(patch: Patch) -> None:
    acknowledged = Dispatcher._acknowledged

    def start_all(self: Any) -> None:
        self._scheduled = False
        while self._open and (work := self._lanes.take()) is not None:
            work.phase = Phase.STARTING
            self._journal.write(work, work.state.begin(work.partition.writer, self._now()))
            self._run(work)

    patch.setattr(Dispatcher, "_start_all", start_all)
    patch.setattr(
        Dispatcher,
        "_acknowledged",
        lambda self, works: acknowledged(self, [work for work in works if work.phase is not Phase.RUNNING]),
    )


def x1_deaths_do_not_count(patch: Patch) -> None:
    patch.setattr(PartitionRecovery, "_died", lambda *_: False)


def x1_a_lapse_counts(patch: Patch) -> None:
    """As if whoever claims next could tell a death from a lost network."""
    patch.setattr(PartitionRecovery, "_died", lambda _, __, status: status == JobStatus.RUNNING)


def x1_nothing_is_isolated(patch: Patch) -> None:
    patch.setattr(snapshots, "is_isolated", lambda _: False)


def x1_checkpoints_forget_deaths(patch: Patch) -> None:
    patch.setattr(checkpoints, "crashed", dict)


def x1_a_repeat_hides_deaths(patch: Patch) -> None:
    """A janitor's repeat of what a dead one had written takes the place of the checkpoint that counts its death."""

    def knows_better(self: Any, offset: int, version: Any, _: str) -> bool:
        begun = self.checkpoint.begun.get(offset) if self.checkpoint else None
        return begun is not None and tuple(begun[1].get(name, -1) for name in version._fields) > version

    patch.setattr(PartitionRecovery, "_knows_better", knows_better)


def forgets_the_order_of_keys(patch: Patch) -> None:
    patch.setattr(Lanes, "add", lambda self, job: self._ready.append(job))


def the_next_of_a_key_does_not_wait_for_the_end(patch: Patch) -> None:
    original = Dispatcher._over

    def over(self: Any, work: Any, result: Any, error: Any) -> None:
        original(self, work, result, error)
        if work.lane is not None and work.phase is Phase.ENDING:
            self._lanes.leave_lane(work)
            work.lane = None

    patch.setattr(Dispatcher, "_over", over)


def attempts_count_from_one_again(patch: Patch) -> None:
    patch.setattr(admission, "_continue", lambda state, _: state)


def what_waits_at_a_hand_over_is_forgotten(patch: Patch) -> None:
    def leave(self: OwnedPartition, work: Any) -> None:
        if self.works.pop(work.offset, None) is not None:
            self.in_hand_bytes -= work.size
        self._note_vacated()

    patch.setattr(OwnedPartition, "leave_to_others", leave)


def writes_under_the_claim_before(patch: Patch) -> None:
    original = OwnedPartition.take_over

    def take_over(self: OwnedPartition, instance_id: str, lease: HeldLease) -> None:
        original(self, instance_id, lease)
        self.writer = Writer(instance_id, self.recovery.ledger.epoch - 1)

    patch.setattr(OwnedPartition, "take_over", take_over)


def forgets_cancellations_at_a_take_over(patch: Patch) -> None:
    patch.setattr(Cancelling, "concerns", lambda *_: False)


def control_is_not_read_before_jobs_are_taken_in(patch: Patch) -> None:
    async def read(self: EngineControl) -> None:
        return None

    patch.setattr(EngineControl, "read_up_to_now", read)


def a_cancellation_is_settled_before_its_job_has_ended(patch: Patch) -> None:
    original = Cancelling.cancel

    def cancel(self: Cancelling, work: Any) -> None:
        original(self, work)
        self.ended(work)

    patch.setattr(Cancelling, "cancel", cancel)


def h3_the_supervisor_does_not_kill(patch: Patch) -> None:
    patch.setattr(SimulatedSupervisor, "_is_over", lambda _: False)


def r2_released_while_children_live(patch: Patch) -> None:
    async def does_not_wait(self: Any) -> None:
        asyncio.get_running_loop().call_later(60, setattr, self._children, "killed", True)

    patch.setattr(SimulatedSupervisor, "_wait_for_group", does_not_wait)


def r2_a_superseded_claim_is_released(patch: Patch) -> None:
    original = PartitionLedger.release

    def release(self: PartitionLedger, *args: Any, **options: Any) -> bool:
        valid = original(self, *args, **options)
        self.released = True
        return valid

    patch.setattr(PartitionLedger, "release", release)


BREAKS = [
    Break("C1", c1_does_not_wait),
    Break("C2", c2_every_claim_is_valid),
    Break("C3", c3_does_not_read_back),
    Break("F1", f1_last_words_count),
    Break("F2", f2_the_last_record_wins, covered=True),
    Break("F2", f2_the_first_record_wins),
    Break("F3", f3_late_ends_count),
    Break("H1", h1_leases_last_for_ever),
    Break("H1", h1_the_term_counts_from_the_acknowledgement, covered=True),
    Break("H1", h1_the_clock_stops_with_the_machine),
    Break("H2", h2_starts_without_a_check),
    Break("H2", h2_tells_of_ends_without_a_check),
    Break("H3", h3_the_supervisor_does_not_kill),
    Break("H4", h4_the_group_is_not_probed),
    Break("H5", h5_a_lapsed_lease_is_revived),
    Break("H6", h6_failed_sends_count),
    Break("O1", o1_waits_too_short),
    Break("O1", o1_trusts_the_brokers_clocks_too_far),
    Break("R1", r1_released_while_attempts_run),
    Break("R2", r2_released_while_children_live),
    Break("R2", r2_a_superseded_claim_is_released),
    Break("K1", k1_covers_what_is_not_acknowledged),
    Break("K2", k2_forgets_what_was_begun),
    Break("K2", k2_forgets_what_has_ended),
    Break("K3", k3_commits_what_is_highest),
    Break("K3", k3_commits_before_the_acknowledgement),
    Break("X1", x1_deaths_do_not_count),
    Break("X1", x1_a_lapse_counts),
    Break("X1", x1_nothing_is_isolated),
    Break("X1", x1_checkpoints_forget_deaths, covered=True),
    Break("X1", x1_a_repeat_hides_deaths, covered=True),
    Break("`running` comes first", starts_before_it_is_written),
    Break("order by key", forgets_the_order_of_keys),
    Break("order by key", the_next_of_a_key_does_not_wait_for_the_end, covered=True),
    Break("attempts rise", attempts_count_from_one_again),
    Break("attempts rise", what_waits_at_a_hand_over_is_forgotten),
    Break("only the holder writes", writes_under_the_claim_before),
    Break("cancellation", forgets_cancellations_at_a_take_over),
    Break("cancellation", control_is_not_read_before_jobs_are_taken_in),
    Break("cancellation", a_cancellation_is_settled_before_its_job_has_ended),
    *breaks_of_leases.BREAKS,
    *breaks_of_records.BREAKS,
    *breaks_of_jobs.BREAKS,
]
