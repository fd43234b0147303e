"""Ways to break what an engine does with its claims and leases, and with those of others."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import Any

from headrace.codec import decode_object
from headrace.core.lease import LeaseWatch
from headrace.core.recovery import PartitionRecovery
from headrace.engine import checkpoints, folding, holdings, takeover
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.holdings import Holdings
from headrace.engine.partition import Phase
from headrace.engine.takeover import Takeover
from headrace.leases import take_lease
from simulation.broken import Break, Patch


def c4_takes_over_twice_at_a_time(patch: Patch) -> None:
    """A take-over does not wait for the one before it: both may have a claim of the same partition under way."""
    original = Holdings._take_over
    patch.setattr(Holdings, "_take_over", lambda self, _: original(self, None))
    patch.setattr(Takeover, "wind_up", lambda _: None)


def f1_a_late_release_counts(patch: Patch) -> None:
    """A predecessor's release, met after a newer claim, frees the lease of its successor."""

    def take(ledger: Any, record: Any) -> bool:
        valid = take_lease(ledger, record)
        if record.value is not None and decode_object(record.value).get("kind") == "release":
            ledger.released = True
        return valid

    patch.setattr(folding, "take_lease", take)


def f1_a_late_renewal_counts(patch: Patch) -> None:
    """A predecessor's renewal, met after a newer claim, is its lease once more."""

    def take(ledger: Any, record: Any) -> bool:
        raw = decode_object(record.value) if record.value is not None else {}
        if raw.get("kind") == "renewal" and raw["epoch"] < ledger.epoch:
            ledger.epoch = ledger.previous = raw["epoch"]
        return take_lease(ledger, record)

    patch.setattr(folding, "take_lease", take)


def o1_renewals_do_not_count(patch: Patch) -> None:
    """Who waits for a lease waits for its term once, whatever its holder renews meanwhile."""
    original = LeaseWatch.is_over

    def is_over(self: Any, ledger: Any, *args: Any, **named: Any) -> bool:
        if self._since:
            self._last_lease = ledger.last_lease
        return original(self, ledger, *args, **named)

    patch.setattr(LeaseWatch, "is_over", is_over)


def o1_silence_of_a_stalled_reader(patch: Patch) -> None:
    """Who waits takes the silence of its own reader for that of the holder: it does not ask where the log ends."""

    async def look_again(self: Any) -> None:
        now = takeover._now()
        for candidate in self._candidates():
            if candidate.look_at is not None and candidate.look_at <= now:
                candidate.asked_at, candidate.look_at = now, None

    patch.setattr(Takeover, "_look_again", look_again)


def o1_counts_from_before_it_was_seen(patch: Patch) -> None:
    """A lease that was claimed meanwhile counts, for who waits, from when that one last asked for the log's end."""
    original = LeaseWatch.is_over
    patch.setattr(LeaseWatch, "is_over", lambda self, ledger, asked_at, log_time, **_: original(self, ledger, asked_at, log_time))


def h1_a_lost_claim_goes_on_running(patch: Patch) -> None:
    """What runs under a claim that is lost is not stopped."""
    original = Dispatcher.drop

    def drop(self: Any, partition: Any) -> list[Any]:
        stop, self._stop = self._stop, lambda _: None
        try:
            original(self, partition)
        finally:
            self._stop = stop
        return []

    patch.setattr(Dispatcher, "drop", drop)


def h5_claims_anew_while_the_old_still_ends(patch: Patch) -> None:
    """After a loss the partition is claimed anew at once, though attempts are still being stopped."""
    original = Holdings._bury
    patch.setattr(Holdings, "_bury", lambda self, partition, _: original(self, partition, ()))


def k1_counts_ends_that_are_under_way(patch: Patch) -> None:
    """A checkpoint takes a job for ended whose end is sent, and not acknowledged."""
    original = checkpoints.make_checkpoint

    def make(partition: Any, covers: int) -> Any:
        ending = {work.offset: work.key for work in partition.works.values() if work.phase is Phase.ENDING}
        before = dict(partition.ended_before)
        partition.ended_before.update(ending)
        try:
            return original(partition, covers)
        finally:
            partition.ended_before.clear()
            partition.ended_before.update(before)

    patch.setattr(holdings, "make_checkpoint", make)


def k2_reads_on_from_the_checkpoint(patch: Patch) -> None:
    """Recovery takes what stands before the checkpoint's record for known to it, also what it does not cover."""
    original = PartitionRecovery.take_checkpoint

    def take(self: Any, checkpoint: Any) -> bool:
        taken = original(self, checkpoint)
        if taken:
            self.jobs.clear()
        return taken

    patch.setattr(PartitionRecovery, "take_checkpoint", take)


def k3_points_to_a_checkpoint_under_way(patch: Patch) -> None:
    """A commit names the newest checkpoint though its acknowledgement has not come: one that lies too far ahead."""
    original = Holdings._renew

    def renew(self: Any, partition: Any) -> None:
        original(self, partition)
        if partition.pointer is not None:
            partition.pointer = partition.pointer._replace(covers=partition.last_lease + 3)

    patch.setattr(Holdings, "_renew", renew)


def r1_released_before_the_ends_are_acknowledged(patch: Patch) -> None:
    """A partition that is handed over is released when nothing of it runs, and written of until all of that is acknowledged."""
    finish_handing_over, release = Holdings._finish_handing_over, Holdings._release
    released = set()

    async def release_early(self: Any, partition: Any) -> None:
        while running := [work.task for work in partition.works.values() if work.phase is Phase.RUNNING and work.task]:
            await asyncio.wait(running)
        if partition.is_held():
            released.add(partition)
            # Of a copy, since what is released is written of no more.
            await release(self, copy(partition), "stopped" if self._stopped else "handed-over")

    async def finish(self: Any, partition: Any, within: Any) -> None:
        releasing = asyncio.create_task(release_early(self, partition))
        try:
            await finish_handing_over(self, partition, within)
        finally:
            releasing.cancel()

    async def release_once(self: Any, partition: Any, *args: Any) -> None:
        if partition not in released:
            await release(self, partition, *args)

    patch.setattr(Holdings, "_finish_handing_over", finish)
    patch.setattr(Holdings, "_release", release_once)


BREAKS = [
    Break("C4", c4_takes_over_twice_at_a_time),
    Break("F1", f1_a_late_release_counts),
    Break("F1", f1_a_late_renewal_counts),
    Break("O1", o1_renewals_do_not_count),
    Break("O1", o1_silence_of_a_stalled_reader, covered=True),
    Break("O1", o1_counts_from_before_it_was_seen, covered=True),
    Break("H1", h1_a_lost_claim_goes_on_running),
    Break("H5", h5_claims_anew_while_the_old_still_ends),
    Break("K1", k1_counts_ends_that_are_under_way),
    Break("K2", k2_reads_on_from_the_checkpoint),
    Break("K3", k3_points_to_a_checkpoint_under_way),
    Break("R1", r1_released_before_the_ends_are_acknowledged),
]
