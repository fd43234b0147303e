"""Everything that is known of one job, in order: what the log has, and what is rebuilt where compaction has been."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.core import snapshots
from headrace.core.records import (
    Removal,
    cancellation_key,
    removal_header,
    repeat_header,
    source_header,
    status_header,
    version_header,
)
from headrace.core.snapshots import version_of
from headrace.core.timestamps import parse_timestamp
from headrace.errors import HistoryGone
from headrace.ports import RecordingKey, TopicPartition
from headrace.recordings.records import recording_key, recording_partition
from headrace.replay.history import Span, Wanted
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.steps import MISSING, Change, changes_between
from headrace.replay.inspection.timeline import Line, timeline_of
from headrace.replay.recorded.log_history import LogHistory
from support.written_jobs import Engines, WrittenLog

WHEN = "2026-03-02T09:31:30.000Z"
ERROR = {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}


def events(lines: Any) -> list[tuple[str, str]]:
    return [(line.event, line.origin) for line in lines]


def change(line: Line, path: str) -> tuple[Any, Any]:
    [found] = [each for each in line.changes if each.path == path]
    return found.before, found.after


def progress(engines: Engines, job_id: str, fraction: float) -> None:
    engines.write(snapshots.progressed(engines.snapshots[job_id], {"fraction": fraction}, WHEN))


def retry(engines: Engines, job_id: str) -> None:
    engines.write(snapshots.retried(engines.snapshots[job_id], ERROR, WHEN, WHEN))


async def test_each_record_of_a_job_is_told_with_what_it_changed(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.enqueue("other")
    engines.run("job", epoch)
    engines.run("other", epoch)
    progress(engines, "job", 0.25)
    progress(engines, "job", 0.5)
    retry(engines, "job")
    engines.run("job", epoch)
    engines.complete("job", {"n": 1})
    found = await timeline_of(history, "job")
    assert events(found.lines) == [
        (event, "log") for event in ("accepted", "started", "progressed", "progressed", "retrying", "started", "completed")
    ]
    accepted, started, first, second, retrying, again, completed = found.lines
    assert (accepted.source, accepted.offset, accepted.at) == (engines.jobs(0), 0, 1_000)
    assert change(accepted, "args") == (MISSING, {"to": ["ann"]})
    assert (started.source, started.offset, started.attempt) == (engines.state(0), 1, 1)
    assert change(started, "instanceId") == (MISSING, "one") and change(started, "status") == ("queued", "running")
    assert change(first, "progress") == (MISSING, {"fraction": 0.25})
    assert change(second, "progress.fraction") == (0.25, 0.5)
    assert change(retrying, "attempts.1.status") == ("running", "failed") and change(retrying, "runAt") == (MISSING, WHEN)
    assert again.attempt == 2 and change(again, "runAt") == (WHEN, MISSING)
    assert change(completed, "result") == (MISSING, {"n": 1})
    assert found.state["status"] == "completed"


async def test_a_request_that_was_made_again_is_shown(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.enqueue("job")
    engines.run("job", epoch)
    found = await timeline_of(history, "job")
    assert [(line.event, line.offset) for line in found.lines if line.source == engines.jobs(0)] == [
        ("accepted", 0),
        ("duplicate", 1),
    ]
    assert len(found.lines) == 3


async def test_the_last_words_of_a_predecessor_are_shown_as_void(engines: Engines, history: LogHistory) -> None:
    old = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", old)
    new, before = engines.claim("two", old), engines.snapshots["job"]
    engines.complete("job", "from the grave")
    engines.snapshots["job"] = before
    engines.run("job", new, "two")
    found = await timeline_of(history, "job")
    assert [(line.event, line.void) for line in found.lines] == [
        ("accepted", False), ("started", False), ("completed", True), ("started", False)
    ]  # fmt: skip
    assert "instance one" in found.lines[2].note
    assert change(found.lines[3], "attempts.1.status") == ("running", "interrupted"), "compared with what counted before"
    assert found.state["status"] == "running"


async def test_what_follows_an_end_under_the_same_claim_changes_nothing(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    begun = engines.snapshots["job"]
    engines.complete("job")
    engines.write(
        snapshots.running({**begun, "status": "queued", "attempts": []}, snapshots.Writer("one", epoch), WHEN), keep=False
    )
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == ["accepted", "started", "completed", "started"]
    assert found.lines[-1].note == "outdone by what came before" and found.state["status"] == "completed"
    [job] = [job async for batch in history.jobs(Wanted(span=Span(0, 1 << 50))) for job in batch]
    assert job.snapshot is not None and job.snapshot["status"] == "completed"


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5])
async def test_what_compaction_has_removed_is_rebuilt(log: WrittenLog, engines: Engines, history: LogHistory, left: int) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    progress(engines, "job", 0.25)
    retry(engines, "job")
    engines.run("job", epoch)
    engines.complete("job", {"n": 1})
    state = log.cluster.partition(engines.state(0))
    own = [record.offset for record in state.records if record.key == b"job"]
    state.remove(own[:-left])
    found = await timeline_of(history, "job")
    expected = ["accepted", "started", "progressed", "retrying", "started", "completed"]
    if left < 4:
        expected.remove("progressed")
    assert [line.event for line in found.lines] == expected
    assert [line.origin for line in found.lines] == ["log", *["snapshot"] * (len(expected) - 1 - left), *["log"] * left]
    rebuilt = [line for line in found.lines if line.origin == "snapshot"]
    first_left = own[-left]
    assert all((line.source, line.offset) == (engines.state(0), first_left) for line in rebuilt), "the record that tells of it"
    if left == 1:
        assert [line.at for line in rebuilt] == [1772443860000, 1772443890000, 1772443860000]
        assert change(rebuilt[1], "attempts.1.error") == (MISSING, {"type": "ValueError", "message": "no"})
        assert change(found.lines[-1], "result") == (MISSING, {"n": 1})


async def test_progress_that_compaction_has_removed_is_counted(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    for fraction in (0.1, 0.2, 0.3):
        progress(engines, "job", fraction)
    state = log.cluster.partition(engines.state(0))
    state.remove([2, 3])
    found = await timeline_of(history, "job")
    assert events(found.lines) == [("accepted", "log"), ("started", "log"), ("progressed", "log")]
    assert found.lines[-1].note == "2 more of this attempt's records were removed by compaction"


@pytest.mark.parametrize("value", [b"no json", b"{}", b"[]"], ids=["no-json", "nothing", "list"])
@pytest.mark.parametrize("where", ["between", "last", "passed-over", "headers"])
async def test_a_damaged_snapshot_costs_itself_alone(
    log: WrittenLog, engines: Engines, history: LogHistory, value: bytes, where: str
) -> None:
    old = engines.claim("one", -1)
    epoch = engines.claim("two", old)
    engines.enqueue("job")
    running = engines.run("job", epoch)

    def damage() -> int:
        version = version_of({**engines.snapshots["job"], "sequence": 9, **({"epoch": old} if where == "passed-over" else {})})
        headers = (source_header(engines.worker, 0, 0), version_header(version), status_header("running"))
        return log.put(engines.state(0), b"job", value, headers if where != "headers" else headers[:1]).offset

    offset = damage() if where != "last" else -1
    if where != "last":
        # The next record of the attempt: what the damaged one said was of no other.
        engines.write({**snapshots.completed(engines.snapshots["job"], {"n": 1}, WHEN), "sequence": 10})
        expected, status = ["accepted", "started", "damaged", "completed"], "completed"
    else:
        offset, expected, status = damage(), ["accepted", "started", "damaged"], "running"
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == expected
    damaged = found.lines[2]
    assert (damaged.source, damaged.offset) == (engines.state(0), offset) and damaged.void is (where == "passed-over")
    assert ("headers" if where == "headers" else "value") in damaged.note
    assert found.state["status"] == status and (await history.find("job")).has_ended is (status == "completed")
    # Damaged is the job where nothing that counts has followed.
    newest = where == "last"
    assert (found.status, (await history.find("job")).damaged) == ("damaged" if newest else status, newest)
    assert found.to_wire().get("damaged", False) is newest
    moments = [each async for batch in states_at(history, running.timestamp + 10) for each in batch]
    assert [(each.state["status"], each.status) for each in moments] == [(status, "damaged" if newest else status)]
    assert [each.to_wire().get("damaged", False) for each in moments] == [newest]
    [job] = [job async for batch in history.jobs(Wanted(span=Span(0, 1 << 50))) for job in batch]
    assert (job.damaged, job.has_ended) == (newest, status == "completed")
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    with pytest.raises(HistoryGone, match=f"it was {status} at the end"):
        await timeline_of(history, "job")


async def test_what_a_janitor_wrote_is_told(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    made = engines.complete("job")
    version = version_of(engines.snapshots["job"])
    headers = (source_header(engines.worker, 0, 0), version_header(version), status_header("completed"), repeat_header(version))
    log.put(engines.state(0), b"job", made.value, headers)
    log.put(engines.state(0), b"job", None, (removal_header(Removal("ended", version)),))
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == ["accepted", "started", "completed", "repeated", "removed"]
    assert (found.lines[-2].changes, found.lines[-2].note, found.lines[-1].note) == ((), "", "ended")


async def test_what_a_janitor_repeated_is_told_at_its_own_time(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    made = engines.complete("job")
    version = version_of(engines.snapshots["job"])
    headers = (source_header(engines.worker, 0, 0), version_header(version), status_header("completed"), repeat_header(version))
    log.put(engines.state(0), b"job", made.value, headers, timestamp=1 << 45)
    log.cluster.partition(engines.state(0)).remove([made.offset])
    found = await timeline_of(history, "job")
    assert events(found.lines) == [("accepted", "log"), ("started", "log"), ("completed", "snapshot")]
    assert found.lines[-1].at == parse_timestamp("2026-03-02T09:32:00.000Z")


async def test_what_others_wrote_of_it_stands_in_its_time(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    log.cluster.create_topics([log.topics.control, log.topics.dead_letters, log.topics.recordings])
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    engines.fail("job")
    answers = log.topics.recordings
    place = TopicPartition(answers.name, recording_partition("job", answers.partitions))
    log.put(place, recording_key("job", 1, RecordingKey("model", 0)), b'{"said": "hi"}', timestamp=1_001)
    log.put(place, recording_key("jobs", 1, RecordingKey("model", 0)), b"1", timestamp=1_001)
    control = TopicPartition(log.topics.control.name, 0)
    log.put(control, cancellation_key("default", "job"), b"{}", timestamp=1_001)
    log.put(control, cancellation_key("default", "other"), b"{}", timestamp=1_001)
    log.put(control, cancellation_key("default", "job"), None, timestamp=1_003)
    letters = TopicPartition(log.topics.dead_letters.name, 1)
    for job_id in ("job", "other"):
        told = {"schema-version": "1", "reason": "poison", "message": "it kills", "job-id": job_id}
        headers = tuple((f"headrace-{name}", value.encode()) for name, value in told.items())
        log.put(letters, b"job", b"{}", headers, timestamp=5_000)
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == [
        "accepted", "started", "recorded", "cancel-requested", "failed", "dead-letter"
    ]  # fmt: skip
    assert change(found.lines[2], "recordings.model.0") == (MISSING, {"said": "hi"})
    assert found.lines[5].note == "poison: it kills"


def test_what_changed_is_told_by_the_path_of_each_field() -> None:
    before = {"a": 1, "b": {"c": 1, "d": 2}, "gone": 1, "flag": 1, "attempts": [{"attempt": 3, "status": "running"}]}
    after = {
        "a": 1, "b": {"c": 1, "d": 3}, "new": None, "flag": True,
        "attempts": [{"attempt": 3, "status": "failed"}, {"attempt": 4, "status": "running"}],
    }  # fmt: skip
    assert changes_between(before, after) == [
        Change("b.d", 2, 3),
        Change("new", MISSING, None),
        Change("flag", 1, True),
        Change("attempts.3.status", "running", "failed"),
        Change("attempts.4", MISSING, {"attempt": 4, "status": "running"}),
        Change("gone", 1, MISSING),
    ]
    assert changes_between(after, after) == []
    assert Change("new", MISSING, None).to_wire() == {"field": "new", "after": None}
