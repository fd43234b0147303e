"""Two readers of one log: one saw every record, the other what compaction leaves. Where do they disagree, and why?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.testing.simulation.reading import JobPlace, StateReader
from headrace.testing.storage import StoredRecord

VOID_RECORD_ON_TOP = "a void record stands over the one that counts"
VOID_LEASE_ON_TOP = "a void record stands over the lease that counts"
VOID_CLAIM_REVIVED = "a void claim seems valid, since what made it void is gone"
"""All last until somebody repeats what counts, and removes what does not. Nobody does yet."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two readers make of one log.

    Attributes:
        known: how many jobs stand otherwise for the reader of the compacted log, by a reason that is known.
        unknown: the same where there is no such reason, in words.
    """

    known: Counter[str]
    unknown: Sequence[str]


def compact(records: Iterable[StoredRecord]) -> list[StoredRecord]:
    """The newest record of each key, in their order, as Kafka would leave them in the end."""
    newest = {(record.partition, record.key): record for record in records}
    return sorted(newest.values(), key=lambda record: (record.partition, record.offset))


def compare(full: StateReader, history: Sequence[StoredRecord]) -> Comparison:
    """Compares the reader of everything with one that reads what compaction leaves of it.

    Args:
        full: has read all of `history`.
    """
    left = compact(history)
    short = StateReader(full.worker)
    for record in left:
        short.read(record)
    last = _newest_by_job(full.worker, left)
    revived = {
        number
        for number, epochs in short.epochs.items()
        # A renewal speaks for its claim where that is gone, and so has an epoch that is in the full log, too.
        if epochs - full.epochs.get(number, set())
    }
    known: Counter[str] = Counter()
    unknown = []
    for place, state in full.jobs.items():
        found = short.jobs.get(place)
        if found is not None and (found.version, found.status) == (state.version, state.status):
            continue
        if last.get(place) != state.record_at:
            known[VOID_RECORD_ON_TOP] += 1
        elif place[0] in revived:
            known[VOID_CLAIM_REVIVED] += 1
        else:
            unknown.append(
                f"job at {place[0]}/{place[1]} is {state.status}, and {found.status if found else 'unknown'} when compacted"
            )
    kept = {(record.partition, record.offset) for record in left}
    for number, ledger in sorted(full.ledgers.items()):
        if ledger.epoch == (found_epoch := short.ledgers[number].epoch):
            continue
        if number in revived:
            known[f"partitions: {VOID_CLAIM_REVIVED}"] += 1
        elif full.leases.get(number) not in kept:
            known[f"partitions: {VOID_LEASE_ON_TOP}"] += 1
        else:
            unknown.append(f"partition {number} is held under {ledger.epoch}, and {found_epoch} when compacted")
    return Comparison(known, unknown)


def _newest_by_job(worker: str, left: Iterable[StoredRecord]) -> Mapping[JobPlace, tuple[int, int]]:
    """Where the last snapshot of each job stands, void or not."""
    reader = StateReader(worker)
    return {
        reading.place: (record.partition, record.offset) for record in left if (reading := reader.read(record)).place is not None
    }
