"""Two readers of one log: one saw every record, the other what compaction leaves. They have to agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.core.records import parse_lease_key
from headrace.testing.simulation.reading import StateReader
from headrace.testing.storage import StoredRecord


def compact(records: Iterable[StoredRecord]) -> list[StoredRecord]:
    """The newest record of each key, in their order, as Kafka would leave them in the end."""
    newest = {(record.partition, record.key): record for record in records}
    return sorted(newest.values(), key=lambda record: (record.partition, record.offset))


def superseded(full: StateReader, left: Iterable[StoredRecord]) -> Sequence[str]:
    """The leases that are left of whoever holds nothing; `left` has one record of each key."""
    keys = [key for record in left if record.value is not None and (key := parse_lease_key(record.key or b"")) is not None]
    return [
        f"the lease {key.lease} for partition {key.partition} is left"
        for key in keys
        if key.worker == full.worker and full.ledgers[key.partition].holder != key.lease
    ]


def compare(full: StateReader, left: Iterable[StoredRecord], starts: Mapping[int, int]) -> Sequence[str]:
    """Compares the reader of everything with one that reads what compaction left; in words, where they disagree.

    Args:
        full: has read everything.
        starts: where the partitions of the queue begin: what is known of jobs before that may be gone.
    """
    short = StateReader(full.worker)
    for record in left:
        short.read(record)
    found = [
        f"nothing counts of the job at {place[0]}/{place[1]}, and it is {short.jobs[place].status} when compacted"
        for place in sorted(short.jobs.keys() - full.jobs.keys())
    ]
    for place, state in full.jobs.items():
        other = short.jobs.get(place)
        if place[1] < starts.get(place[0], 0) or (other and (other.version, other.status) == (state.version, state.status)):
            continue
        found.append(f"job at {place[0]}/{place[1]} is {state.status}, and {other.status if other else 'unknown'} when compacted")
    for number, ledger in sorted(full.ledgers.items()):
        other_ledger = short.ledgers.get(number)
        if other_ledger is None or (ledger.epoch, ledger.last_lease) != (other_ledger.epoch, other_ledger.last_lease):
            found.append(f"partition {number} is held by {ledger}, and {other_ledger} when compacted")
    return found
