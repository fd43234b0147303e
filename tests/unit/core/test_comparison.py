"""How a replay compares with what was recorded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.comparison import Comparison, Outcome, Verdict, compare, is_same_json, is_slower
from headrace.core.status import JobStatus

COMPLETED, FAILED = JobStatus.COMPLETED, JobStatus.FAILED
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OUTCOMES = st.builds(
    Outcome,
    st.sampled_from(JobStatus),
    JSON,
    st.none() | st.sampled_from(["ValueError", "KeyError"]),
    st.none() | st.text(max_size=3),
    st.none() | st.floats(0, 100),
)


@given(JSON)
def test_what_is_written_and_read_again_is_the_same(value: Any) -> None:
    assert is_same_json(value, orjson.loads(orjson.dumps(value)))
    shuffled = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert is_same_json(value, shuffled)


@given(JSON, JSON)
def test_to_be_the_same_goes_both_ways_and_is_what_sorted_json_says(one: Any, other: Any) -> None:
    same = is_same_json(one, other)
    assert same == is_same_json(other, one)
    if orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS):
        assert same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (0, False, False),
        (1, True, False),
        ([1, {"a": [True]}], [1.0, {"a": [1]}], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([], {}, False),
        ("1", 1, False),
        (None, False, False),
    ],
)
def test_what_is_the_same_as_json(one: Any, other: Any, same: bool) -> None:
    assert is_same_json(one, other) is same


@given(OUTCOMES)
def test_the_same_outcome_is_the_same(outcome: Outcome) -> None:
    comparable = outcome.status in (COMPLETED, FAILED)
    assert compare(outcome, outcome) == Comparison(Verdict.SAME if comparable else Verdict.NOT_COMPARABLE)


@given(OUTCOMES, OUTCOMES)
def test_which_way_it_changed_is_told_by_the_status(recorded: Outcome, replayed: Outcome) -> None:
    verdict = compare(recorded, replayed).verdict
    back = compare(replayed, recorded).verdict
    turned = {Verdict.NEWLY_FAILING: Verdict.NEWLY_FIXED, Verdict.NEWLY_FIXED: Verdict.NEWLY_FAILING}
    assert back == turned.get(verdict, verdict)
    if {recorded.status, replayed.status} == {COMPLETED, FAILED}:
        assert verdict == (Verdict.NEWLY_FAILING if replayed.status == FAILED else Verdict.NEWLY_FIXED)


@pytest.mark.parametrize(
    ("recorded", "replayed", "verdict"),
    [
        (Outcome(COMPLETED, 1), Outcome(COMPLETED, 2), Verdict.DIFFERENT),
        (Outcome(FAILED, None, "A", "m"), Outcome(FAILED, None, "B", "m"), Verdict.DIFFERENT),
        (Outcome(FAILED, None, "A", "m"), Outcome(FAILED, None, "A", "n"), Verdict.DIFFERENT),
        (Outcome(FAILED, None, "A", "m", 1.0), Outcome(FAILED, None, "A", "m", 1.1), Verdict.SAME),
        (None, Outcome(COMPLETED), Verdict.NOT_COMPARABLE),
        *(
            (Outcome(FAILED, None, f"headrace.errors.{kind}", "away"), Outcome(COMPLETED), Verdict.NOT_COMPARABLE)
            for kind in ("BrokerError", "BrokerUnreachable", "AppendTimeout", "EnqueueTimeout")
        ),
        (Outcome(JobStatus.CANCELLED), Outcome(COMPLETED), Verdict.NOT_COMPARABLE),
    ],
)
def test_what_counts(recorded: Outcome | None, replayed: Outcome, verdict: Verdict) -> None:
    assert compare(recorded, replayed).verdict == verdict


@given(st.none() | st.floats(0, 100), st.none() | st.floats(0, 100))
def test_slower_is_twice_as_long_and_a_tenth_of_a_second_at_least(recorded: float | None, replayed: float | None) -> None:
    slower = recorded is not None and replayed is not None and replayed > 2 * recorded and replayed > 0.1
    assert is_slower(recorded, replayed) is slower


def test_a_replay_that_is_slower_may_be_the_same() -> None:
    assert compare(Outcome(COMPLETED, seconds=0.1), Outcome(COMPLETED, seconds=0.3)) == Comparison(Verdict.SAME, True)
    assert compare(Outcome(COMPLETED, seconds=0.01), Outcome(COMPLETED, seconds=0.09)) == Comparison(Verdict.SAME, False)


@pytest.mark.parametrize(("then", "now"), [(FAILED, COMPLETED), (COMPLETED, FAILED)])
def test_an_attempt_that_ends_otherwise_is_not_slower(then: JobStatus, now: JobStatus) -> None:
    assert not compare(Outcome(then, seconds=0.1), Outcome(now, seconds=60.0)).slower
