"""What a job was in between is rebuilt from a later snapshot exactly as the records had it, but for the log's own times."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from headrace.core import snapshots
from headrace.core.snapshots import Snapshot, Writer
from headrace.core.timestamps import format_timestamp
from headrace.replay.inspection.rebuilding import Known, is_gap, missing_records, rebuilt_between, state_at, untold_attempts

RECORD = {
    "schemaVersion": 1, "id": "job", "tenant": "default", "workerName": "w", "createdAt": format_timestamp(0), "args": {},
}  # fmt: skip
SOURCE = {"topic": "t", "partition": 0, "offset": 0}
ERROR = {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}
PROGRESS = {"fraction": 0.5}
ONE, TWO = Writer("one", 10), Writer("two", 20)
ACCEPTED = snapshots.queued(RECORD, SOURCE)

Move = Callable[[Snapshot, str], Snapshot]


def start(writer: Writer = ONE) -> Move:
    return lambda before, now: snapshots.running(before, writer, now)


def progress(before: Snapshot, now: str) -> Snapshot:
    return snapshots.progressed(before, PROGRESS, now)


def retry(before: Snapshot, now: str) -> Snapshot:
    return snapshots.retried(before, ERROR, now, now)


def fail(before: Snapshot, now: str) -> Snapshot:
    return snapshots.failed(before, ERROR, now)


def complete(before: Snapshot, now: str) -> Snapshot:
    return snapshots.completed(before, {"n": 1}, now)


def refuse(before: Snapshot, now: str) -> Snapshot:
    return snapshots.refused(before, TWO, ERROR, now)


def cancel(before: Snapshot, now: str) -> Snapshot:
    return snapshots.cancelled(before, TWO, now)


def cancel_own(before: Snapshot, now: str) -> Snapshot:
    return snapshots.cancelled(before, ONE, now)


LIVES: dict[str, list[Move]] = {
    "completed": [start(), complete],
    "retried, with progress": [start(), progress, retry, start(), progress, progress, fail],
    "interrupted": [start(), snapshots.interrupted, start(TWO), complete],
    "cut off by a take-over": [start(), start(TWO), retry, start(TWO), complete],
    "refused at once": [refuse],
    "refused after an attempt": [start(), retry, refuse],
    "refused while it seemed to run": [start(), refuse],
    "cancelled while it waited": [start(), retry, cancel],
    "cancelled before it began": [cancel],
    "cancelled while it ran": [start(), cancel_own],
    "cancelled while it seemed to run": [start(), cancel],
    "brokers away": [start(), snapshots.cut_short, start(), snapshots.cut_short, start(), complete],
    "tried thirty times": [each for _ in range(30) for each in (start(), retry)] + [start(), complete],
}


def life(moves: list[Move]) -> list[Known]:
    """Every state that the moves make of the job, one a second."""
    found, state = [], ACCEPTED
    for number, move in enumerate(moves, start=1):
        state = move(state, format_timestamp(1_000 * number))
        found.append(Known(1_000 * number, state))
    return found


def is_progress(state: Any) -> bool:
    return bool(state["status"] == "running" and state["sequence"] > 1)


def told(state: Any) -> dict[str, Any]:
    """What a rebuilt state knows: not what an attempt said of its progress, nor when the next was due."""
    unknown = ("progress", "runAt", "sequence", "outages")
    return {name: value for name, value in state.items() if name not in unknown and not (name == "failures" and value == 0)}


@pytest.mark.parametrize("moves", LIVES.values(), ids=LIVES)
def test_between_records_that_are_there_nothing_is_rebuilt(moves: list[Move]) -> None:
    states = [ACCEPTED, *(each.state for each in life(moves))]
    for before, after in pairwise(states):
        assert rebuilt_between(before, after) == []
        assert not is_gap(before, after)
        assert missing_records(before, after) == 0 and not untold_attempts(before, after)


@pytest.mark.parametrize("moves", LIVES.values(), ids=LIVES)
def test_every_begin_and_end_is_rebuilt_from_the_last_record(moves: list[Move]) -> None:
    known = life(moves)
    expected = [each for each in known[:-1] if not is_progress(each.state)]
    found = rebuilt_between(ACCEPTED, known[-1].state)
    # Of more than twenty attempts the last are told, and when the first began.
    of_last_twenty = expected if len(expected) <= 40 else [expected[0], *expected[-39:]]
    assert [each.at for each in found] == [each.at for each in of_last_twenty]
    if len(expected) <= 40:
        assert [told(each.state) for each in found] == [told(each.state) for each in expected]


@pytest.mark.parametrize("moves", LIVES.values(), ids=LIVES)
@pytest.mark.parametrize("left_from", range(4))
def test_a_moment_is_told_by_the_log_where_it_can_be(moves: list[Move], left_from: int) -> None:
    known = life(moves)
    left = known[min(left_from, len(known) - 1) :]
    for at in range(0, 1_000 * len(known) + 1_500, 500):
        exact = state_at(ACCEPTED, known, at)
        assert exact.origin == "log"
        assert exact.state == next((each.state for each in reversed(known) if each.at <= at), ACCEPTED)
        found = state_at(ACCEPTED, left, at)
        whole = left == known or at >= left[0].at
        assert found.origin == ("log" if whole else "snapshot")
        if whole:
            assert found.state == exact.state
        elif not is_progress(exact.state) and len(known) < 60:
            assert told(found.state) == told(exact.state)


def test_of_a_job_that_no_engine_has_begun_the_record_tells_all() -> None:
    assert state_at(ACCEPTED, [], 5).origin == "log"


def test_what_cannot_be_rebuilt_is_counted() -> None:
    known = life(LIVES["retried, with progress"])
    assert missing_records(known[3].state, known[6].state) == 2
    many = life(LIVES["tried thirty times"])
    assert list(untold_attempts(ACCEPTED, many[-1].state)) == list(range(1, 12))
    assert not untold_attempts(many[-3].state, many[-1].state)
