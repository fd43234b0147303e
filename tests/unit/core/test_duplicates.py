"""Which records of a partition ask for the same job: the memory of ids agrees with a look at everything (rules E1 and E2)."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.duplicates import UNKNOWN, DerivedIds, End, Verdict
from headrace.core.identifiers import derived_id, fresh_id, is_fresh

WINDOW = 100
IDS = ("a", "b")
DIGESTS = ("same", "other", UNKNOWN)


class Asked(NamedTuple):
    """A record comes.

    Attributes:
        late: how much older its own time is than the present.
    """

    job_id: str
    digest: str
    late: int


class Ends(NamedTuple):
    """The oldest job in hand of an id ends."""

    job_id: str


Step = Asked | Ends | int
"""An int lets so much time pass."""

STEPS = st.lists(
    st.one_of(
        st.builds(Asked, st.sampled_from(IDS), st.sampled_from(DIGESTS), st.integers(0, WINDOW)),
        st.builds(Ends, st.sampled_from(IDS)),
        st.integers(1, WINDOW),
    ),
    max_size=40,
)


class Reference:
    """The rules as the protocol words them, by a look at all that was before; nothing is ever forgotten."""

    def __init__(self) -> None:
        self.in_hand: dict[str, tuple[int, str]] = {}
        self.ended: list[tuple[str, End]] = []

    def judge(self, job_id: str, offset: int, at: int, digest: str) -> Verdict:
        first = [self.in_hand[job_id][1]] if job_id in self.in_hand else []
        first += [end.digest for other, end in self.ended if other == job_id and end.offset != offset and at - end.at <= WINDOW]
        if not first:
            return Verdict.NEW
        return Verdict.DUPLICATE if digest in (first[0], UNKNOWN) or first[0] == UNKNOWN else Verdict.CONFLICT


@given(STEPS)
def test_what_is_remembered_is_enough(steps: list[Step]) -> None:
    ids, reference, now = DerivedIds(WINDOW), Reference(), 1_000
    for offset, step in enumerate(steps):
        match step:
            case Asked(job_id, digest, late):
                ids.forget(now - late)
                verdict = ids.judge(job_id, offset, now - late, digest)
                assert verdict is reference.judge(job_id, offset, now - late, digest)
                if verdict is Verdict.NEW:
                    ids.take(job_id, offset, digest)
                    reference.in_hand[job_id] = (offset, digest)
            case Ends(job_id):
                if (first := reference.in_hand.pop(job_id, None)) is not None:
                    end = End(first[0], now, first[1])
                    ids.end(job_id, end)
                    reference.ended.append((job_id, end))
                    assert ids.has_ended(job_id, end.offset)
            case int():
                now += step


@given(STEPS, st.integers(0, 40))
def test_a_successor_that_reads_the_entries_decides_alike(steps: list[Step], taken_over_at: int) -> None:
    """Whoever has all entries, and takes in hand what has not ended, in the order of the log, comes to the same verdicts."""
    ids, now = DerivedIds(WINDOW), 1_000
    in_hand: dict[str, tuple[int, str]] = {}
    entries: list[tuple[str, End]] = []
    for offset, step in enumerate(steps):
        if offset == taken_over_at:
            ids = DerivedIds(WINDOW)
            for job_id, end in entries:
                ids.end(job_id, end)
            for job_id, (first, digest) in in_hand.items():
                assert ids.judge(job_id, first, now, digest) is not Verdict.NEW or not ids.has_ended(job_id, first)
                ids.take(job_id, first, digest)
        match step:
            case Asked(job_id, digest, late):
                verdict = ids.judge(job_id, offset, now - late, digest)
                assert (verdict is Verdict.NEW) == (
                    job_id not in in_hand and all(other != job_id or end.at < now - late - WINDOW for other, end in entries)
                )
                if verdict is Verdict.NEW:
                    ids.take(job_id, offset, digest)
                    in_hand[job_id] = (offset, digest)
            case Ends(job_id):
                if (ended := in_hand.pop(job_id, None)) is not None:
                    end = End(ended[0], now, ended[1])
                    ids.end(job_id, end)
                    entries.append((job_id, end))
            case int():
                now += step


def test_an_end_never_ends_the_job_at_its_own_offset() -> None:
    """Its terminal snapshot may have been void."""
    ids = DerivedIds(WINDOW)
    ids.end("a", End(7, 1_000, "same"))
    assert ids.judge("a", 7, 1_000, "same") is Verdict.NEW
    assert ids.judge("a", 8, 1_000, "same") is Verdict.DUPLICATE
    assert ids.judge("a", 6, 1_000, "other") is Verdict.CONFLICT


def test_a_job_that_ended_after_the_record_was_made_is_the_same() -> None:
    ids = DerivedIds(WINDOW)
    ids.end("a", End(7, 1_000, "same"))
    assert ids.judge("a", 8, 0, "same") is Verdict.DUPLICATE
    assert ids.judge("a", 8, 1_000 + WINDOW, "same") is Verdict.DUPLICATE
    assert ids.judge("a", 8, 1_001 + WINDOW, "same") is Verdict.NEW


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 1_000)), min_size=1), st.integers(0, 1_500))
def test_what_no_record_can_meet_is_forgotten_in_whatever_order_it_came(ended: list[tuple[str, int]], now: int) -> None:
    """Clocks of engines differ: what is told later may be dated earlier."""
    ids = DerivedIds(WINDOW)
    for offset, (job_id, at) in enumerate(ended):
        ids.end(job_id, End(offset, at, "same"))
    ids.forget(now)
    kept = {(job_id, offset) for offset, (job_id, at) in enumerate(ended) if at >= now - 2 * WINDOW}
    assert {(job_id, offset) for offset, (job_id, _) in enumerate(ended) if ids.has_ended(job_id, offset)} == kept
    assert len(ids) == len({job_id for job_id, _ in kept})


def test_an_end_that_is_dated_in_the_future_keeps_no_other() -> None:
    ids = DerivedIds(WINDOW)
    ids.end("ahead", End(1, 1_000_000, "same"))
    for offset in range(2, 100):
        ids.end(f"job-{offset}", End(offset, 1_000 + offset, "same"))
    ids.forget(1_100 + 2 * WINDOW)
    assert len(ids) == 1
    assert ids.judge("ahead", 101, 1_100, "same") is Verdict.DUPLICATE


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_only_what_is_made_afresh_is_fresh(milliseconds: int, randomness: bytes) -> None:
    assert is_fresh(fresh_id(milliseconds, randomness))
    assert not is_fresh(derived_id("key", randomness.hex()))
    assert not is_fresh("job-7")
