"""A recorded job of the log is what any other recorded job is, decoded or not."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from headrace.ports import TopicPartition
from headrace.replay.history import RecordedJob
from headrace.replay.recorded.logged import LoggedJob

RECORD = {"id": "job", "args": {"n": 1}}
SNAPSHOT = {
    **{"id": "job", "workerName": "w", "status": "completed", "updatedAt": "2026-03-02T09:30:00.000Z", "attempt": 1},
}
QUEUE = TopicPartition("q", 3)
LOGGED = LoggedJob(orjson.dumps(RECORD), QUEUE, 5, 1_000, orjson.dumps(SNAPSHOT))
PLAIN = RecordedJob(RECORD, QUEUE, 5, 1_000, SNAPSHOT)


def test_it_equals_one_with_the_same_content() -> None:
    assert LOGGED == PLAIN
    assert PLAIN == LOGGED
    assert (LOGGED.id, LOGGED.has_ended, LOGGED.record, LOGGED.snapshot) == ("job", True, RECORD, SNAPSHOT)
    assert LOGGED.record is LOGGED.record, "decoded once"
    assert LOGGED != "job"


@pytest.mark.parametrize(
    "change",
    [
        {"record": {"id": "other"}},
        {"snapshot": None},
        {"offset": 6},
        {"accepted_at": 2},
        {"source": TopicPartition("q", 4)},
        {"damaged": True},
    ],
)
def test_one_that_is_changed_is_another(change: dict[str, object]) -> None:
    changed = replace(LOGGED, **change)  # type: ignore[arg-type]  # each of its own type
    assert isinstance(changed, RecordedJob)
    assert changed != LOGGED and changed != PLAIN
    assert changed == replace(PLAIN, **change)  # type: ignore[arg-type]  # likewise


def test_where_no_engine_had_begun_there_is_no_snapshot() -> None:
    waiting = LoggedJob(RECORD, QUEUE, 5, 1_000, None)
    assert waiting.snapshot is None and not waiting.has_ended


@pytest.mark.parametrize("value", [b"no json", b"[]", b"{}", b'{"status": "completed"}'], ids=["text", "list", "empty", "half"])
def test_one_that_is_damaged_says_so_whatever_is_asked_first(value: bytes) -> None:
    for asked in ("damaged", "snapshot", "has_ended"):
        damaged = LoggedJob(orjson.dumps(RECORD), QUEUE, 5, 1_000, value)
        getattr(damaged, asked)
        assert (damaged.damaged, damaged.snapshot, damaged.has_ended) == (True, None, False)
    assert not LOGGED.damaged and not LoggedJob(RECORD, QUEUE, 5, 1_000, None).damaged
