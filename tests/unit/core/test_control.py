"""What was asked, folded: of each key the last record counts, whatever compaction has taken away before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.control import Cancellation, ControlState, Pause
from headrace.core.records import cancellation_key

requests = st.one_of(
    st.builds(Pause, worker=st.sampled_from(["a", "b"])),
    st.builds(
        Cancellation,
        tenant=st.sampled_from(["t", "t/u"]),
        job_id=st.sampled_from(["x", "u/x", "y"]),
        worker=st.sampled_from(["a", "b"]),
        partition=st.integers(0, 1),
        offset=st.integers(0, 2),
    ),
)
# Each is asked for, or taken back.
histories = st.lists(st.tuples(requests, st.booleans()), max_size=40)
History = list[tuple[Cancellation | Pause, bool]]


def fold(history: History) -> ControlState:
    state = ControlState()
    for request, stands in history:
        if stands:
            state.ask(request)
        else:
            state.forget(request.key)
    return state


def contents(state: ControlState) -> tuple[set[str], dict[str, dict[bytes, Cancellation]]]:
    return state.paused, {worker: dict(state.cancellations(worker)) for worker in ("a", "b")}


@given(histories)
def test_the_last_record_of_each_key_counts(history: History) -> None:
    last = {request.key: (request, stands) for request, stands in history}
    standing = [request for request, stands in last.values() if stands]
    paused, cancellations = contents(fold(history))
    assert paused == {request.worker for request in standing if isinstance(request, Pause)}
    for worker in ("a", "b"):
        expected = {each.key: each for each in standing if isinstance(each, Cancellation) and each.worker == worker}
        assert cancellations[worker] == expected


@given(histories, st.data())
def test_a_compacted_log_says_the_same(history: History, data: st.DataObject) -> None:
    last = {request.key: at for at, (request, _) in enumerate(history)}
    kept = [each for at, each in enumerate(history) if last[each[0].key] == at or data.draw(st.booleans())]
    assert contents(fold(kept)) == contents(fold(history))


@given(histories)
def test_what_is_read_again_changes_nothing(history: History) -> None:
    assert contents(fold(history + history)) == contents(fold(history))


@given(histories)
def test_whoever_looks_at_a_worker_s_cancellations_sees_those_to_come(history: History) -> None:
    state = ControlState()
    seen = state.cancellations("a")
    assert not seen
    for request, _ in history:
        state.ask(request)
    assert seen is state.cancellations("a")
    assert dict(seen) == contents(state)[1]["a"]


def test_keys_of_different_jobs_differ_whatever_stands_in_them() -> None:
    assert cancellation_key("a/b", "c") != cancellation_key("a", "b/c")
