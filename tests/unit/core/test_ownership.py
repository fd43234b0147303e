"""Which claims and snapshots count: rules C2, F1 and F2 of the ownership protocol."""

from __future__ import annotations

from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.checkpoint import Pointer
from headrace.core.ownership import ACCEPTED, PartitionLedger, Version, supersedes
from headrace.core.records import (
    SnapshotHeaders,
    lease_key,
    memory_key,
    parse_lease_key,
    parse_snapshot_headers,
    source_header,
    status_header,
    version_header,
)
from headrace.core.recovery import PartitionRecovery
from headrace.core.status import TERMINAL, JobStatus

versions = st.builds(Version, st.integers(0, 5), st.integers(0, 3), st.integers(0, 3))
statuses = st.sampled_from(["queued", "running", "completed", "failed", "cancelled"])


def test_a_claim_is_void_when_another_stands_between_it_and_what_its_writer_saw() -> None:
    ledger = PartitionLedger()
    assert ledger.claim(10, -1, "first")
    assert not ledger.claim(12, -1, "late"), "its writer did not know of the claim at 10"
    assert (ledger.epoch, ledger.holder) == (10, "first"), "a void claim fences nobody"
    assert ledger.claim(15, 10, "second")
    assert ledger.is_void(10)
    assert not ledger.is_void(15)


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=20))
def test_of_racing_claims_exactly_one_wins(races: list[tuple[int, bool]]) -> None:
    ledger = PartitionLedger()
    offset = 0
    for claimants, _ in races:
        seen = ledger.last_lease
        valid = []
        for number in range(claimants):
            offset += 1
            valid.append(ledger.claim(offset, seen, f"instance-{number}"))
        assert valid == [True] + [False] * (claimants - 1)


@given(versions, versions, statuses)
def test_the_highest_version_wins_and_nothing_follows_an_end_within_an_epoch(new: Version, old: Version, status: str) -> None:
    if status in TERMINAL and new.epoch == old.epoch:
        assert not supersedes(new, old, status)
    else:
        assert supersedes(new, old, status) == (new >= old)
    assert supersedes(new, ACCEPTED, JobStatus.QUEUED)


@given(st.lists(st.tuples(st.integers(0, 9), versions, statuses), max_size=40))
def test_recovery_forgets_nothing_that_ended(records: list[tuple[int, Version, str]]) -> None:
    recovery: PartitionRecovery[str] = PartitionRecovery("w", 0, watermark=3)
    expected: dict[int, tuple[Version, str]] = {}
    for offset, version, status in records:
        recovery.snapshot(SnapshotHeaders("w", 0, offset, version, status), b"id", f"{version} {status}")
        if offset >= 3 and (offset not in expected or supersedes(version, *expected[offset])):
            expected[offset] = (version, status)
    assert sorted(recovery.finished()) == sorted(o for o, (_, status) in expected.items() if status in TERMINAL)
    assert {offset: known.snapshot for offset, known in recovery.begun().items()} == {
        offset: f"{version} {status}" for offset, (version, status) in expected.items() if status not in TERMINAL
    }


def test_the_last_words_of_a_predecessor_are_void() -> None:
    recovery: PartitionRecovery[str] = PartitionRecovery("w", 0, watermark=0)
    recovery.ledger.claim(5, -1, "old")
    assert recovery.snapshot(SnapshotHeaders("w", 0, 0, Version(5, 1, 1), "running"), b"id", "running")
    recovery.ledger.claim(9, 5, "new")
    assert not recovery.snapshot(SnapshotHeaders("w", 0, 0, Version(5, 1, 2), "completed"), b"id", "completed")
    assert recovery.finished() == {}
    assert recovery.begun()[0].snapshot == "running"


# Of the two claims that follow the first lease record, the second is void. Its writer went away; the holder renewed its lease, so
# that compaction takes the holder's claim away, and leaves the void one as the newest record of its key.
VOID_CLAIM, EPOCH = (12, 7, "late"), 10


def after_compaction() -> PartitionLedger:
    """What a reader knows that has met nothing but the void claim."""
    ledger = PartitionLedger()
    assert ledger.claim(*VOID_CLAIM), "nothing tells yet that it is void"
    return ledger


def test_a_void_claim_is_void_after_compaction_when_the_holder_renewed() -> None:
    ledger = after_compaction()
    assert ledger.renewal(900, EPOCH, "holder", at=5, term_seconds=25.0)
    assert (ledger.epoch, ledger.holder, ledger.last_lease) == (EPOCH, "holder", 900)
    assert (ledger.held_at, ledger.term_seconds, ledger.released) == (5, 25.0, False)
    assert not ledger.is_void(EPOCH)
    assert not ledger.claim(901, 12, "next"), "what it names as the last lease record is not"
    assert ledger.claim(902, 900, "next")


def test_a_void_claim_is_void_after_compaction_when_the_holder_released() -> None:
    ledger = after_compaction()
    assert ledger.release(900, EPOCH, "holder")
    assert (ledger.epoch, ledger.holder, ledger.released) == (EPOCH, "holder", True)
    assert not ledger.claim(901, EPOCH, "next"), "it did not know of the release"
    assert ledger.claim(902, 900, "next")


def test_a_void_claim_is_void_after_compaction_for_who_meets_a_snapshot_first() -> None:
    recovery: PartitionRecovery[str] = PartitionRecovery("w", 0, watermark=0)
    recovery.ledger.claim(*VOID_CLAIM)
    assert recovery.snapshot(SnapshotHeaders("w", 0, 0, Version(EPOCH, 1, 2), "completed"), b"id", "completed")
    assert list(recovery.finished()) == [0]
    assert recovery.ledger.epoch == EPOCH
    assert recovery.ledger.holder is None, "whoever it is has not been met"


def test_what_a_holder_superseded_stays_void_when_the_void_claim_is_found_out() -> None:
    ledger = after_compaction()
    assert ledger.renewal(900, EPOCH, "holder")
    for epoch in (3, 8, 9):
        assert ledger.is_void(epoch), "between what the void claim named and the holder's epoch others may have held the lease"
        assert not ledger.renewal(901, epoch, "frozen")
    assert (ledger.epoch, ledger.holder, ledger.last_lease) == (EPOCH, "holder", 900)


def test_a_valid_claim_still_fences_its_predecessor() -> None:
    """Its writer knew of all up to what it names; a record of an epoch that is no newer proves nothing."""
    for epoch in (3, 7):
        ledger = after_compaction()
        assert ledger.is_void(epoch)
        assert not ledger.renewal(900, epoch, "frozen")
        assert not ledger.release(901, epoch, "frozen")
        assert (ledger.epoch, ledger.holder, ledger.last_lease, ledger.released) == (12, "late", 12, False)


def test_what_stands_before_a_pointer_fences_as_ever() -> None:
    """The reading begins behind the claim that the pointer names; a void one behind it does not bring older epochs back."""
    recovery: PartitionRecovery[str] = PartitionRecovery("w", 0, watermark=0, pointer=Pointer(EPOCH, 11))
    assert not recovery.snapshot(SnapshotHeaders("w", 0, 0, Version(EPOCH - 1, 1, 1), "running"), b"id", "running")
    assert recovery.snapshot(SnapshotHeaders("w", 0, 0, Version(EPOCH, 1, 1), "running"), b"id", "running")
    assert (recovery.ledger.epoch, recovery.ledger.previous) == (EPOCH, EPOCH)


@given(versions, st.integers(0, 2**40), statuses)
def test_headers_come_back_as_they_were_written(version: Version, offset: int, status: str) -> None:
    headers = [source_header("my_worker", 3, offset), version_header(version), status_header(status), ("other", b"x")]
    assert parse_snapshot_headers(headers) == SnapshotHeaders("my_worker", 3, offset, version, status)


def test_damaged_headers_are_no_headers() -> None:
    assert parse_snapshot_headers([]) is None
    assert parse_snapshot_headers([source_header("w", 0, 1), ("headrace-version", b"1/x/2"), status_header("queued")]) is None


def test_a_header_without_a_value_is_no_header() -> None:
    headers: list[tuple[str, bytes]] = [source_header("w", 1, 2), version_header(Version(1, 2, 3)), ("headrace-status", None)]  # type: ignore[list-item]
    assert parse_snapshot_headers(headers) is None


def test_lease_keys() -> None:
    assert parse_lease_key(b"lease/\xff/0/x") is not None, "no key of a lease can stop who reads it"
    assert parse_lease_key(lease_key("w", 4, "instance")) == ("w", 4, "instance")
    assert parse_lease_key(b"lease/w/four/instance") is None
    assert parse_lease_key(b"0190-some-job-id") is None


@given(st.lists(st.text(min_size=1, max_size=12), min_size=4, max_size=4))
def test_memory_keys_cannot_be_mixed_up(parts: list[str]) -> None:
    tenant, user, conversation, record = (part.encode("utf-8", "ignore").decode() for part in parts)
    key = memory_key(tenant, user, conversation, record).decode()
    assert tuple(unquote(part) for part in key.split("/")) == (tenant, user, conversation, record)
