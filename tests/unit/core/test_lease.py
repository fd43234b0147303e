"""How long a lease holds: rules H1 and H5 for its holder, O1 for whoever waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.lease import HeldLease, LeaseTiming, LeaseWatch, Moment, elapsed
from headrace.core.ownership import NO_OFFSET, PartitionLedger

TIMING = LeaseTiming(25.0)
START = Moment(1_000.0, 1_780_000_000.0)

shifts = st.tuples(st.floats(0, 12), st.floats(-40, 40))
"""How far the steady clock went on, and how far the wall clock went beside it."""


def later(steady: float, wall: float | None = None, *, than: Moment = START) -> Moment:
    return Moment(than.steady + steady, than.wall + (steady if wall is None else wall))


def held_by(instance: str = "other", *, at: int = 0, term: float = 25.0) -> PartitionLedger:
    """A partition with a lease whose only record stands at offset 7."""
    ledger = PartitionLedger()
    assert ledger.claim(7, NO_OFFSET, instance, at=at, term_seconds=term)
    return ledger


def test_the_times_of_the_protocol() -> None:
    assert (TIMING.renewal, TIMING.ending) == (3.0, 20.0)
    assert (LeaseTiming(5.0).renewal, LeaseTiming(5.0).ending) == pytest.approx((0.6, 4.0))


def test_a_lease_is_held_until_its_jobs_have_to_be_stopped() -> None:
    lease = HeldLease(TIMING, START)
    assert lease.is_held(START)
    assert lease.is_held(later(19.99))
    assert not lease.is_held(later(20))
    assert lease.remaining(later(20)) == 5
    assert lease.remaining(later(27)) == -2


def test_a_renewal_counts_from_the_moment_before_it_was_sent() -> None:
    lease = HeldLease(TIMING, START)
    lease.renewed(later(3))
    assert lease.is_held(later(22.9))
    assert not lease.is_held(later(23))


def test_either_clock_ends_a_lease() -> None:
    lease = HeldLease(TIMING, START)
    assert not lease.is_held(later(1, 20)), "the wall clock jumped ahead"
    assert not lease.is_held(later(20, 1)), "the machine slept, and its wall clock was set back"
    assert not lease.is_held(later(20, -3_600))
    assert lease.remaining(later(1, 30)) == lease.remaining(later(30, 1)) == -5


def test_a_wall_clock_that_is_set_back_neither_ends_a_lease_nor_makes_it_longer() -> None:
    lease = HeldLease(TIMING, START)
    assert lease.is_held(later(19, -3_600))
    assert elapsed(START, later(19, -3_600)) == 19


@given(st.lists(st.tuples(shifts, st.booleans()), max_size=30))
def test_a_lease_is_held_while_both_clocks_went_less_than_twenty_seconds_since_the_last_renewal(
    steps: list[tuple[tuple[float, float], bool]],
) -> None:
    lease, now, sent = HeldLease(TIMING, START), START, START
    for (steady, aside), renews in steps:
        now = later(steady, steady + aside, than=now)
        assert lease.is_held(now) == (now.steady - sent.steady < 20 and now.wall - sent.wall < 20)
        assert lease.remaining(now) <= 25 - (now.steady - sent.steady)
        assert lease.remaining(now) <= 25 - (now.wall - sent.wall)
        if renews and lease.is_held(now):
            lease.renewed(sent := now)


@given(st.lists(st.floats(0, 12), min_size=1, max_size=20))
def test_what_is_not_renewed_ends_once_and_for_good(steps: list[float]) -> None:
    lease, now, ended = HeldLease(TIMING, START), START, False
    for seconds in steps:
        now = later(seconds, than=now)
        assert not (ended and lease.is_held(now))
        ended = ended or not lease.is_held(now)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_what_nobody_holds_may_be_claimed_at_once() -> None:
    assert LeaseWatch().is_over(PartitionLedger(), 0.0, None)
    released = held_by()
    assert released.release(8, 7, "other")
    assert LeaseWatch().is_over(released, 0.0, None)


def test_a_lease_is_over_thirty_seconds_after_the_waiter_first_saw_its_last_record() -> None:
    watch, ledger = LeaseWatch(), held_by()
    assert not watch.is_over(ledger, 500.0, None), "however old its record is: the waiter has only just come"
    assert not watch.is_over(ledger, 529.9, None)
    assert watch.is_over(ledger, 530.0, None)


def test_each_renewal_begins_the_wait_anew() -> None:
    watch, ledger = LeaseWatch(), held_by()
    assert not watch.is_over(ledger, 500.0, None)
    assert ledger.renewal(20, 7, "other", term_seconds=25.0)
    assert not watch.is_over(ledger, 529.0, None)
    assert not watch.is_over(ledger, 558.9, None)
    assert watch.is_over(ledger, 559.0, None)


def test_a_lease_that_was_claimed_since_the_log_s_end_was_asked_for_counts_from_when_it_was_seen() -> None:
    watch, ledger = LeaseWatch(), held_by()
    assert not watch.is_over(ledger, 500.0, None, seen_at=520.0)
    assert not watch.is_over(ledger, 549.9, None, seen_at=549.9)
    assert watch.is_over(ledger, 550.0, None, seen_at=550.0)


def test_the_log_s_time_ends_a_lease_of_which_the_last_record_is_thirty_five_seconds_old() -> None:
    ledger = held_by(at=100_000)
    assert not LeaseWatch().is_over(ledger, 0.0, 134_999)
    assert LeaseWatch().is_over(ledger, 0.0, 135_000)
    assert not LeaseWatch().is_over(ledger, 0.0, 0), "brokers whose clocks differ end nothing"
    assert ledger.renewal(9, 7, "other", at=103_000, term_seconds=25.0)
    assert not LeaseWatch().is_over(ledger, 0.0, 135_000)


def test_a_waiter_goes_by_the_holder_s_term() -> None:
    watch, ledger = LeaseWatch(), held_by(term=100.0)
    assert not watch.is_over(ledger, 0.0, None)
    assert not watch.is_over(ledger, 119.9, None)
    assert watch.is_over(ledger, 120.0, None)
    assert not LeaseWatch().is_over(ledger, 0.0, 139_999)
    assert LeaseWatch().is_over(ledger, 0.0, 140_000)


@given(st.lists(st.tuples(st.floats(0, 12), st.booleans()), max_size=40), st.floats(0, 1_000))
def test_a_waiter_claims_only_what_was_not_renewed_for_longer_than_its_holder_runs(
    looks: list[tuple[float, bool]], first: float
) -> None:
    """The holder stops 25 s after it sent its last record, which the waiter cannot have read before."""
    watch, ledger = LeaseWatch(), held_by()
    now, written, offset = first, first, 7
    for seconds, renews in looks:
        now += seconds
        if renews:
            offset += 1
            written = now
            assert ledger.renewal(offset, 7, "other", term_seconds=25.0)
        if watch.is_over(ledger, now, None):
            assert now - written > 25
