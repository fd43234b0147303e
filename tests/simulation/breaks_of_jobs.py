"""Ways to break what becomes of a job between its acceptance and its end."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.acceptance import Acceptance
from headrace.core import snapshots
from headrace.core.lanes import Lanes
from headrace.core.rate import Share
from headrace.core.status import TERMINAL
from headrace.engine.control import EngineControl
from headrace.engine.dead_letters import DeadLetters
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.group import WorkerGroup
from headrace.engine.journal import Journal
from headrace.engine.limiting import Limiting
from headrace.engine.outcomes import Outcomes
from headrace.engine.partition import OwnedPartition, Phase
from headrace.engine.rests import Rests
from headrace.errors import EnqueueTimeout
from headrace.ports import Acknowledged
from simulation.broken import Break, Patch


def accepted_before_the_acknowledgement(patch: Patch) -> None:
    """`enqueue` returns as soon as the record is handed over."""

    async def append(self: Any, prepared: Any, _: float, **__: float) -> list[int]:
        for each in prepared:
            self._writer.submit(each.target, [each.record], lambda _: None)
        return [0] * len(prepared)

    patch.setattr(Acceptance, "_append", append)


def what_may_be_accepted_is_denied(patch: Patch) -> None:
    """`enqueue` says that a job is not accepted though nobody knows."""
    original = Acceptance._append

    async def append(self: Any, *args: Any, **named: Any) -> list[int]:
        try:
            return await original(self, *args, **named)
        except EnqueueTimeout as error:
            error.may_be_accepted = False
            raise

    patch.setattr(Acceptance, "_append", append)


def the_watermark_does_not_wait_for_the_dead_letter(patch: Patch) -> None:
    """What can be no job is passed as soon as its dead letter is handed over."""
    original = DeadLetters.submit

    def submit(self: Any, record: Any, worker: str, refusal: Any, done: Any) -> None:
        original(self, record, worker, refusal, lambda _: None)
        asyncio.get_running_loop().call_soon(done, Acknowledged(0, 0))

    patch.setattr(DeadLetters, "submit", submit)


def an_interruption_is_a_failure(patch: Patch) -> None:
    """An attempt that the engine stopped counts as one that failed."""
    original = snapshots.interrupted

    def interrupted(before: Any, now: str) -> Any:
        after = original(before, now)
        return {**after, "failures": snapshots.failures(before) + 1}

    patch.setattr(snapshots, "interrupted", interrupted)


def what_is_interrupted_counts_as_cancelled(patch: Patch) -> None:
    patch.setattr(Outcomes, "interrupt", Outcomes.end_as_cancelled)


def failures_are_forgotten(patch: Patch) -> None:
    """How many attempts have failed is not handed on from one owner to the next."""
    patch.setattr(snapshots, "CONTINUED", tuple(name for name in snapshots.CONTINUED if name != "failures"))


def a_retry_waits_for_nothing(patch: Patch) -> None:
    """The next attempt begins at once, whatever its time is."""
    original = Rests.add
    patch.setattr(Rests, "add", lambda self, work, _: original(self, work, 0.0))


def a_retry_lets_its_key_go_on(patch: Patch) -> None:
    """The next of a key begins while the one before waits for its retry."""
    original = Dispatcher._acknowledged

    def acknowledged(self: Any, works: Any) -> None:
        original(self, works)
        for work in works:
            if work.phase is Phase.RESTING:
                self._leave_lane(work)

    patch.setattr(Dispatcher, "_acknowledged", acknowledged)


def a_retry_that_changes_hands_lets_its_key_go_on(patch: Patch) -> None:
    """A job that waits for its retry, and that a new owner takes over, does not hold back its key there."""
    patch.setattr(Lanes, "reserve", lambda *_: True)


def an_end_is_written_twice(patch: Patch) -> None:
    """A job that has ended is written of once more."""
    original = Journal.write

    def write(self: Any, work: Any, state: Any) -> None:
        original(self, work, state)
        if state.fields["status"] in TERMINAL:
            again = {**state.fields, "sequence": state.fields["sequence"] + 1}
            self.note(work, type(state)(again))

    patch.setattr(Journal, "write", write)


def more_at_a_time_than_is_allowed(patch: Patch) -> None:
    """Whatever is ready starts, without a slot."""

    def take(self: Any) -> Any:
        if not self._ready:
            return None
        self.taken += 1
        return self._ready.popleft()

    patch.setattr(Lanes, "take", take)


def reads_on_too_far(patch: Patch) -> None:
    """After a take-over the first record that is to be read is passed over."""

    def available(self: Any, partition: OwnedPartition) -> None:
        self._consumer.seek(partition.source, partition.next_offset + 1)
        self._consumer.resume([partition.source])

    patch.setattr(WorkerGroup, "_available", available)


def reads_again_what_is_in_hand(patch: Patch) -> None:
    """After a rebalance a partition is read from what was committed, also what is in hand."""
    original = WorkerGroup._available

    def available(self: Any, partition: OwnedPartition) -> None:
        partition.next_offset = partition.watermark.position
        original(self, partition)

    patch.setattr(WorkerGroup, "_available", available)


def delivers_before_the_take_over(patch: Patch) -> None:
    """What the group assigns is taken in at once, under no claim."""
    original = WorkerGroup._assigned

    def assigned(self: Any, sources: Any) -> None:
        original(self, sources)
        self._consumer.resume(sources)

    patch.setattr(WorkerGroup, "_assigned", assigned)


def x1_one_death_beside_is_enough(patch: Patch) -> None:
    """A job in a process of its own is given up with the first engine that dies beside it."""
    original = snapshots.crashed

    def crashed(fields: Any) -> Any:
        return original({**fields, "engineDeaths": 9} if fields.get("isolated") else fields)

    patch.setattr(snapshots, "crashed", crashed)


def an_interrupted_job_is_let_go(patch: Patch) -> None:
    """The watermark passes a job when any record of its attempt's end is acknowledged, also that of an interruption."""
    original = Dispatcher._acknowledged

    def acknowledged(self: Any, works: Any) -> None:
        original(self, works)
        for work in works:
            if work.partition.live and work.state.fields["status"] == "queued":
                work.partition.watermark.finish(work.offset)

    patch.setattr(Dispatcher, "_acknowledged", acknowledged)


def an_interruption_ends_the_job(patch: Patch) -> None:
    """A job whose attempt is interrupted is taken for failed."""

    def interrupted(before: Any, now: str) -> Any:
        return snapshots.failed(before, {"type": "Interrupted", "message": "interrupted"}, now)

    patch.setattr(snapshots, "interrupted", interrupted)


def pauses_are_not_heeded(patch: Patch) -> None:
    """Jobs of a worker that is paused start all the same."""
    patch.setattr(Dispatcher, "pause", lambda *_: None)


def an_engine_that_starts_does_not_know_what_is_paused(patch: Patch) -> None:
    """What was asked for before an engine started is not handed on to its workers."""

    def attach(self: Any, worker: str, group: Any) -> None:
        self._groups[worker] = group

    patch.setattr(EngineControl, "attach", attach)


def the_rate_limit_is_not_heeded(patch: Patch) -> None:
    """Whatever has a slot starts."""
    patch.setattr(Limiting, "may_start", lambda *_: True)


def a_new_owner_starts_its_share_at_once(patch: Patch) -> None:
    """What a former owner of a partition started does not count in the first window of the next."""
    original = Share.__init__

    def make(self: Any, limit: Any, number: int, partitions: int, now: float) -> None:
        original(self, limit, number, partitions, now - 2 * partitions * limit.per_seconds)

    patch.setattr(Share, "__init__", make)


BREAKS = [
    Break("one write accepts a job", accepted_before_the_acknowledgement),
    Break("one write accepts a job", what_may_be_accepted_is_denied),
    Break("bad input costs one record", the_watermark_does_not_wait_for_the_dead_letter),
    Break("an interruption is no failure", an_interruption_is_a_failure),
    Break("an interruption is no failure", an_interruption_ends_the_job),
    Break("only a request cancels a job", what_is_interrupted_counts_as_cancelled),
    Break("failures count on", failures_are_forgotten),
    Break("a retry waits for its time", a_retry_waits_for_nothing),
    Break("order by key", a_retry_lets_its_key_go_on),
    Break("order by key", a_retry_that_changes_hands_lets_its_key_go_on),
    Break("an end is final", an_end_is_written_twice),
    Break("concurrency", more_at_a_time_than_is_allowed),
    Break("an accepted job ends", reads_on_too_far),
    Break("a job runs once", reads_again_what_is_in_hand),
    Break("nothing is delivered before recovery", delivers_before_the_take_over),
    Break("X1", x1_one_death_beside_is_enough),
    Break("the watermark", an_interrupted_job_is_let_go),
    Break("a pause holds", pauses_are_not_heeded),
    Break("a pause holds", an_engine_that_starts_does_not_know_what_is_paused),
    Break("rate limits", the_rate_limit_is_not_heeded),
    Break("rate limits", a_new_owner_starts_its_share_at_once),
]
