"""Claims, renewals and releases of a partition, in any order: every reader comes to the same end (rules C2 and F1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.ownership import NO_OFFSET, PartitionLedger

INSTANCES = ("one", "two", "three")


class Written(NamedTuple):
    """A lease record: `about` is the `previous` of a claim, and the epoch of a renewal or a release."""

    kind: str
    offset: int
    instance: str
    about: int


class Reference:
    """The rules as the protocol words them, by a look at all that was written before."""

    def __init__(self) -> None:
        self.leases: list[Written] = []
        self.claims: list[Written] = []
        self.released: set[int] = set()

    @property
    def epoch(self) -> int:
        return self.claims[-1].offset if self.claims else NO_OFFSET

    @property
    def last_lease(self) -> int:
        return self.leases[-1].offset if self.leases else NO_OFFSET

    def takes(self, record: Written) -> bool:
        """Whether the record is valid; takes it in."""
        if record.kind == "claim":
            if any(record.about < lease.offset for lease in self.leases):
                return False
            self.claims.append(record)
        elif record.about != self.epoch or (record.kind == "renewal" and self.epoch in self.released):
            return False
        if record.kind == "release":
            self.released.add(record.about)
        self.leases.append(record)
        return True


def takes(ledger: PartitionLedger, record: Written) -> bool:
    if record.kind == "release":
        return ledger.release(record.offset, record.about, record.instance)
    take = ledger.claim if record.kind == "claim" else ledger.renewal
    return take(record.offset, record.about, record.instance, at=record.offset * 1000, term_seconds=25.0)


@st.composite
def histories(draw: st.DrawFn) -> list[Written]:
    """What instances write that follow the protocol and are late at will.

    A claim names any lease record that there was, or none; renewals and releases are of claims that their writer found valid.
    """
    reference = Reference()
    seen: list[int] = [NO_OFFSET]
    won: list[Written] = []
    written = []
    for offset in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(("claim", "renewal", "release")))
        if kind != "claim" and won:
            # Mostly the newest, and now and then one of a process that was frozen.
            mine = won[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(won))
            record = Written(kind, offset, mine.instance, mine.offset)
        else:
            previous = seen[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(seen))
            record = Written("claim", offset, draw(st.sampled_from(INSTANCES)), previous)
        written.append(record)
        if reference.takes(record):
            seen.append(offset)
            if record.kind == "claim":
                won.append(record)
    return written


@given(histories())
def test_a_reader_takes_what_the_protocol_calls_valid_and_nothing_else(history: list[Written]) -> None:
    ledger, reference = PartitionLedger(), Reference()
    for record in history:
        before = replace(ledger)
        valid = reference.takes(record)
        assert takes(ledger, record) == valid
        if not valid:
            assert ledger == before, "what is void changes nothing"
        assert (ledger.epoch, ledger.last_lease) == (reference.epoch, reference.last_lease)
        assert ledger.released == (ledger.epoch in reference.released)
        assert ledger.held_at == max((lease.offset for lease in reference.leases if lease.kind != "release"), default=0) * 1000
        assert ledger.holder == (reference.claims[-1].instance if reference.claims else None)


@given(histories())
def test_no_epoch_ever_comes_back(history: list[Written]) -> None:
    ledger, epochs = PartitionLedger(), [NO_OFFSET]
    for record in history:
        takes(ledger, record)
        epochs.append(ledger.epoch)
        assert all(ledger.is_void(epoch) for epoch in epochs if epoch != ledger.epoch)
    assert epochs == sorted(epochs)


def compacted(history: Iterable[Written]) -> list[Written]:
    newest = {record.instance: record for record in history}
    return sorted(newest.values(), key=lambda record: record.offset)


@given(histories())
def test_where_compaction_took_claims_away_the_renewals_speak_for_them(history: list[Written]) -> None:
    """Of what was valid; who writes a void claim writes another record over it."""
    reference, whole, rest = Reference(), PartitionLedger(), PartitionLedger()
    valid = [record for record in history if reference.takes(record)]
    for record in valid:
        takes(whole, record)
    for record in compacted(valid):
        takes(rest, record)
    assert (rest.epoch, rest.holder, rest.released) == (whole.epoch, whole.holder, whole.released)
    for late in valid:
        epoch = late.offset if late.kind == "claim" else late.about
        assert replace(rest).is_void(epoch) == whole.is_void(epoch), "the last words of a predecessor"
    assert rest.last_lease == whole.last_lease, "so that the same claims are valid from here on"
    if not whole.released:
        assert (rest.held_at, rest.term_seconds) == (whole.held_at, whole.term_seconds)


def test_a_lease_that_was_released_is_not_renewed() -> None:
    ledger = PartitionLedger()
    assert ledger.claim(3, NO_OFFSET, "one")
    assert ledger.release(4, 3, "one")
    assert not ledger.renewal(5, 3, "one")
    assert (ledger.released, ledger.last_lease) == (True, 4)
    assert not ledger.claim(6, 3, "late"), "its writer did not know of the release"
    assert ledger.claim(7, 4, "two")
    assert not ledger.release(8, 3, "one"), "the last words of a predecessor"
    assert (ledger.holder, ledger.released) == ("two", False)


def test_a_void_claim_is_known_by_what_the_winner_writes_after_compaction_took_its_claim() -> None:
    ledger = PartitionLedger()
    assert ledger.claim(6, NO_OFFSET, "late"), "nothing tells of the claim at 5"
    assert not ledger.is_void(5), "only the holder of a valid claim writes under it"
    assert (ledger.epoch, ledger.released) == (5, False)
    assert ledger.is_void(3), "that the claim at 5 is valid is known"
    assert ledger.renewal(12, 5, "winner")
    assert (ledger.epoch, ledger.holder, ledger.last_lease) == (5, "winner", 12)


def test_who_is_known_by_a_renewal_alone_is_not_unseated_by_a_predecessor() -> None:
    """Compaction took both claims; a process that was frozen meanwhile writes its last words."""
    ledger = PartitionLedger()
    assert ledger.renewal(20, 9, "holder")
    assert ledger.is_void(5)
    assert not ledger.renewal(25, 5, "frozen")
    assert not ledger.release(25, 5, "frozen")
    assert (ledger.epoch, ledger.holder, ledger.last_lease) == (9, "holder", 20)


def test_who_is_known_by_a_release_alone_is_not_unseated_by_a_predecessor() -> None:
    ledger = PartitionLedger()
    assert ledger.release(20, 9, "holder")
    assert ledger.is_void(5)
    assert (ledger.epoch, ledger.released) == (9, True)
