"""What jobs share: a state is made and encoded once for all that stand alike, and never for two that do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import snapshots
from headrace.core.records import parse_snapshot_headers, source_header
from headrace.core.snapshots import Writer
from headrace.core.status import IllegalMove
from headrace.engine.states import State

FIRST, SECOND = Writer("instance-1", 42), Writer("instance-2", 50)


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000Z"


def in_log(state: State) -> Mapping[str, Any]:
    """What a reader finds, if the job itself were one field."""
    found: dict[str, Any] = orjson.loads(b'{"id":"j"' + state.encoded)
    assert found.pop("id") == "j"
    headers = parse_snapshot_headers([source_header("w", 0, 7), state.version_header, state.status_header])
    assert headers is not None
    assert (*headers.version, headers.status) == (found["epoch"], found["attempt"], found["sequence"], found["status"])
    return found


def test_jobs_that_start_and_end_together_share_what_is_written() -> None:
    unbegun = State(snapshots.unbegun())
    running = unbegun.begin(FIRST, at(1))
    assert unbegun.begin(FIRST, at(1)) is running
    assert running.complete(at(2)) is running.complete(at(2))


def test_what_one_job_becomes_does_not_change_what_another_is() -> None:
    unbegun = State(snapshots.unbegun())
    running = unbegun.begin(FIRST, at(1))
    before = in_log(running)
    running.complete(at(2))
    State(snapshots.failed(running.fields, {"type": "t", "message": "m"}, at(2)))
    assert in_log(running) == before == running.fields
    assert unbegun.fields == snapshots.unbegun()


@given(st.lists(st.tuples(st.sampled_from([FIRST, SECOND]), st.integers(1, 3), st.integers(4, 6)), max_size=8))
def test_a_shared_state_says_what_the_job_s_own_would(lives: list[tuple[Writer, int, int]]) -> None:
    unbegun = State(snapshots.unbegun())
    for writer, started, ended in lives:
        running = unbegun.begin(writer, at(started))
        expected = snapshots.running(snapshots.unbegun(), writer, at(started))
        assert in_log(running) == expected
        assert in_log(running.complete(at(ended))) == snapshots.completed(expected, None, at(ended))


def test_an_attempt_that_follows_another_is_not_taken_for_the_first() -> None:
    unbegun = State(snapshots.unbegun())
    left = unbegun.begin(FIRST, at(1))
    again = left.begin(SECOND, at(1))
    assert (again.fields["attempt"], again.fields["epoch"]) == (2, 50)
    assert unbegun.begin(FIRST, at(1)) is left


def test_a_move_that_a_job_cannot_make_is_refused() -> None:
    running = State(snapshots.unbegun()).begin(FIRST, at(1))
    ended = running.complete(at(2))
    with pytest.raises(IllegalMove):
        ended.complete(at(3))
    with pytest.raises(IllegalMove):
        State(snapshots.unbegun()).complete(at(1))
