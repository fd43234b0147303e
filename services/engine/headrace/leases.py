"""Reading the lease records of `job-state` into a ledger: what an engine and a view do alike."""

from __future__ import annotations

from headrace.codec import decode_object, validate
from headrace.core.ownership import PartitionLedger
from headrace.models import ClaimRecord, LeaseRepeat, ReleaseRecord, RenewalRecord
from headrace.ports import UnplacedRecord


def take_lease(ledger: PartitionLedger, record: UnplacedRecord) -> bool:
    """Takes in a claim, a renewal, a release or a repeat of the ledger's partition; tells whether it is valid.

    A tombstone is nothing.

    Raises:
        RecordUndecodable: it is damaged.
    """
    if record.value is None:
        return False
    raw = decode_object(record.value)
    match raw.get("kind"):
        case "claim":
            claim = validate(ClaimRecord, raw)
            return ledger.claim(
                record.offset, claim.previous, claim.instance_id, at=record.timestamp, term_seconds=claim.term_seconds
            )
        case "renewal":
            renewal = validate(RenewalRecord, raw)
            return ledger.renewal(
                record.offset, renewal.epoch, renewal.instance_id, at=record.timestamp, term_seconds=renewal.term_seconds
            )
        case "release":
            release = validate(ReleaseRecord, raw)
            died = release.reason == "died"
            return ledger.release(record.offset, release.epoch, release.instance_id, died=died)
        case "repeat":
            repeat = validate(LeaseRepeat, raw)
            truth = PartitionLedger(
                epoch=repeat.epoch,
                last_lease=repeat.last_lease,
                holder=repeat.instance_id,
                previous=repeat.previous,
                held_at=repeat.held_at,
                term_seconds=repeat.term_seconds,
                released=repeat.released,
                died=repeat.died,
            )
            return ledger.repeat(truth, repeat.as_of)
        case _:
            return False  # of a later version
