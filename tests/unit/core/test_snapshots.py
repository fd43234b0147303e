"""What each move of a job's life writes, and which moves there are."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import snapshots
from headrace.core.identifiers import fresh_id
from headrace.core.partitions import key_partition, state_partition
from headrace.core.status import MOVES, TERMINAL, IllegalMove, JobStatus, check_move
from headrace.core.timestamps import format_timestamp, from_milliseconds, parse_timestamp, to_milliseconds
from headrace.models import Job, JobRecord

RECORD = {
    "schemaVersion": 1,
    "id": "job-1",
    "tenant": "default",
    "workerName": "w",
    "createdAt": "2026-01-01T00:00:00.000Z",
    "args": {"a": 1},
    "ctx": {"userId": "u"},
    "fromTheFuture": {"kept": True},
}
SOURCE = {"topic": "t", "partition": 0, "offset": 7}
WRITER = snapshots.Writer("instance-1", 42)


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000Z"


def test_a_life() -> None:
    queued = snapshots.queued(RECORD, SOURCE)
    running = snapshots.running(queued, WRITER, at(1))
    completed = snapshots.completed(running, {"sent": 3}, at(2))
    job = Job.model_validate(completed)
    assert job.status is JobStatus.COMPLETED
    assert (job.epoch, job.attempt, job.sequence) == (42, 1, 2)
    assert job.result == {"sent": 3}
    assert [attempt.status for attempt in job.attempts] == ["completed"]
    assert completed["fromTheFuture"] == {"kept": True}
    assert completed["startedAt"] == at(1) and completed["finishedAt"] == at(2)
    assert queued["attempts"] == [], "earlier snapshots are not changed"


def test_an_attempt_that_a_former_owner_left_is_interrupted_and_the_number_rises() -> None:
    left = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    again = snapshots.running(left, snapshots.Writer("instance-2", 50), at(9))
    assert again["attempt"] == 2
    assert [(a["status"], a["instanceId"]) for a in again["attempts"]] == [
        ("interrupted", "instance-1"),
        ("running", "instance-2"),
    ]
    assert again["startedAt"] == at(1)


def test_a_job_record_says_nothing_of_what_only_its_owner_knows() -> None:
    lies = dict.fromkeys(sorted(snapshots.NOT_ACCEPTED), "a lie")
    assert snapshots.queued({**RECORD, **lies}, SOURCE) == snapshots.queued(RECORD, SOURCE)
    job = Job.model_validate(snapshots.queued({**RECORD, **lies}, SOURCE))
    assert (job.status, job.updated_at, job.source and job.source.offset) == (JobStatus.QUEUED, job.created_at, 7)
    assert job.model_extra == {"fromTheFuture": {"kept": True}}


def test_what_is_not_taken_from_a_job_record_is_what_snapshots_add_and_other_spellings() -> None:
    only_in_snapshots = {Job.model_fields[name].alias for name in Job.model_fields.keys() - JobRecord.model_fields.keys()}
    spelt_otherwise = {name for name, field in Job.model_fields.items() if field.alias != name}
    assert only_in_snapshots | spelt_otherwise == snapshots.NOT_ACCEPTED - {"argsOmitted", "ctxOmitted"}


def test_an_interruption_is_no_failure() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    waiting = snapshots.interrupted(running, at(2))
    assert waiting["status"] == JobStatus.QUEUED and "error" not in waiting
    assert snapshots.running(waiting, WRITER, at(3))["attempt"] == 2


ERROR = {"type": "ValueError", "message": "no", "traceback": "..."}


def test_a_job_that_failed_and_is_tried_again_waits_with_a_due_time() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    waiting = snapshots.retried(running, ERROR, at(30), at(2))
    job = Job.model_validate(waiting)
    assert (job.status, job.failures, job.sequence, job.error, job.finished_at) == (JobStatus.QUEUED, 1, 2, None, None)
    assert waiting["runAt"] == at(30)
    assert [(each["status"], each["error"]) for each in waiting["attempts"]] == [
        ("failed", {"type": "ValueError", "message": "no"})
    ]
    again = snapshots.running(waiting, WRITER, at(30))
    assert "runAt" not in again and again["failures"] == 1
    assert [each["status"] for each in again["attempts"]] == ["failed", "running"]
    completed = snapshots.completed(again, 1, at(31))
    assert (completed["failures"], "error" in completed) == (1, False)
    assert snapshots.failed(again, ERROR, at(31))["failures"] == 2


def test_a_job_that_waits_for_its_retry_and_is_refused_is_not_due_any_more() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    refused = snapshots.refused(snapshots.retried(running, ERROR, at(30), at(2)), WRITER, {"type": "x", "message": "y"}, at(3))
    assert "runAt" not in refused and refused["failures"] == 1


@given(st.lists(st.sampled_from(["failed", "interrupted", "left behind"]), max_size=60))
def test_failures_count_however_many_attempts_there_were_and_interruptions_do_not(ends: list[str]) -> None:
    snapshot = snapshots.queued(RECORD, SOURCE)
    for end in ends:
        snapshot = snapshots.running(snapshot, WRITER, at(1))
        if end == "failed":
            snapshot = snapshots.retried(snapshot, ERROR, at(3), at(2))
        elif end == "interrupted":
            snapshot = snapshots.interrupted(snapshot, at(2))
    assert snapshots.failures(snapshot) == ends.count("failed")
    assert snapshot["attempt"] == len(ends)
    assert len(snapshot["attempts"]) == min(len(ends), snapshots.ATTEMPTS_KEPT)


def test_progress_is_of_the_attempt_that_makes_it() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    progress = {"fraction": 0.5, "text": "half", "at": at(2)}
    half = snapshots.progressed(running, progress, at(2))
    assert (half["status"], half["sequence"], half["updatedAt"], half["progress"]) == (JobStatus.RUNNING, 2, at(2), progress)
    assert "progress" not in running, "earlier snapshots are not changed"
    assert snapshots.completed(half, None, at(3))["progress"] == {**progress, "fraction": 1.0}, "it is done"
    assert snapshots.failed(half, ERROR, at(3))["progress"] == progress, "so far it came"
    assert "progress" not in snapshots.completed(running, None, at(3)), "nothing was said"
    assert "progress" not in snapshots.running(snapshots.retried(half, ERROR, at(4), at(3)), WRITER, at(4))
    with pytest.raises(IllegalMove, match="completed makes no progress"):
        snapshots.progressed(snapshots.completed(half, None, at(3)), progress, at(4))


def test_a_refused_job_fails_without_an_attempt() -> None:
    refused = snapshots.refused(snapshots.queued(RECORD, SOURCE), WRITER, {"type": "x", "message": "y"}, at(1))
    job = Job.model_validate(refused)
    assert (job.status, job.attempt, job.attempts) == (JobStatus.FAILED, 0, [])


def test_an_attempt_that_a_former_owner_left_is_interrupted_when_the_job_is_refused() -> None:
    left = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    refused = snapshots.refused(left, snapshots.Writer("instance-2", 50), {"type": "x", "message": "y"}, at(9))
    job = Job.model_validate(refused)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 1)
    assert [(each["status"], each["instanceId"], each["finishedAt"]) for each in refused["attempts"]] == [
        ("interrupted", "instance-1", at(9))
    ]
    assert left["attempts"][0]["status"] == "running", "earlier snapshots are not changed"


def test_a_job_that_never_started_is_cancelled_without_an_attempt() -> None:
    cancelled = snapshots.cancelled(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    job = Job.model_validate(cancelled)
    assert (job.status, job.attempt, job.attempts, job.error) == (JobStatus.CANCELLED, 0, [], None)
    assert (job.epoch, job.sequence, job.instance_id) == (42, 1, "instance-1")
    assert cancelled["finishedAt"] == at(1)


def test_an_attempt_that_is_cancelled_says_so_and_one_that_a_former_owner_left_was_interrupted() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    half = snapshots.progressed(running, {"fraction": 0.5, "at": at(2)}, at(2))
    cancelled = snapshots.cancelled(half, WRITER, at(3))
    assert [(each["status"], each["finishedAt"]) for each in cancelled["attempts"]] == [("cancelled", at(3))]
    assert (cancelled["sequence"], cancelled["progress"]["fraction"]) == (3, 0.5)
    left = snapshots.cancelled(running, snapshots.Writer("instance-2", 50), at(9))
    assert [(each["status"], each["instanceId"]) for each in left["attempts"]] == [("interrupted", "instance-1")]
    assert (left["epoch"], left["attempt"], left["instanceId"]) == (50, 1, "instance-2")
    assert running["attempts"][0]["status"] == "running", "earlier snapshots are not changed"


def test_a_job_that_waits_for_its_retry_and_is_cancelled_is_not_due_any_more() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    cancelled = snapshots.cancelled(snapshots.retried(running, ERROR, at(30), at(2)), WRITER, at(3))
    assert "runAt" not in cancelled and cancelled["failures"] == 1
    assert [each["status"] for each in cancelled["attempts"]] == ["failed"]


def test_a_job_that_has_ended_is_not_cancelled() -> None:
    running = snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1))
    with pytest.raises(IllegalMove):
        snapshots.cancelled(snapshots.completed(running, None, at(2)), WRITER, at(3))


def test_the_history_keeps_the_last_twenty() -> None:
    snapshot = snapshots.queued(RECORD, SOURCE)
    for _ in range(30):
        snapshot = snapshots.interrupted(snapshots.running(snapshot, WRITER, at(1)), at(2))
    assert [attempt["attempt"] for attempt in snapshot["attempts"]] == list(range(11, 31))


MOVES_OF_AN_OWNER: dict[str, Callable[[snapshots.Snapshot, snapshots.Writer], snapshots.Snapshot]] = {
    "begins": lambda job, writer: snapshots.running(job, writer, at(1)),
    "makes progress": lambda job, _: snapshots.progressed(job, {"fraction": 0.5, "at": at(1)}, at(1)),
    "is interrupted": lambda job, _: snapshots.interrupted(job, at(2)),
    "is retried": lambda job, _: snapshots.retried(job, {"type": "E", "message": "no"}, at(9), at(2)),
    "completes": lambda job, _: snapshots.completed(job, None, at(2)),
    "fails": lambda job, _: snapshots.failed(job, {"type": "E", "message": "no"}, at(2)),
    "is refused": lambda job, writer: snapshots.refused(job, writer, {"type": "E", "message": "no"}, at(2)),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(MOVES_OF_AN_OWNER)), st.booleans()), max_size=40))
def test_in_any_life_versions_rise_the_record_stays_and_the_end_is_final(moves: list[tuple[str, bool]]) -> None:
    job, writer = snapshots.queued(RECORD, SOURCE), WRITER
    for move, by_another in moves:
        if by_another:
            writer = snapshots.Writer(f"{writer.instance_id}'", writer.epoch + 1)
            if move not in ("begins", "is refused"):
                continue  # what a former owner began, the next one does not go on with
        before = dict(job)
        try:
            after = MOVES_OF_AN_OWNER[move](job, writer)
        except IllegalMove:
            assert job == before, "a move that is not made changes nothing"
            continue
        assert before["status"] not in TERMINAL
        assert snapshots.version_of(after) > snapshots.version_of(before)
        assert job == before, "earlier snapshots are not changed"
        assert snapshots.accepted(after) == RECORD
        assert len(after["attempts"]) <= snapshots.ATTEMPTS_KEPT
        numbers = [attempt["attempt"] for attempt in after["attempts"]]
        assert numbers == list(range(after["attempt"] - len(numbers) + 1, after["attempt"] + 1))
        running = [attempt["status"] for attempt in after["attempts"]].count("running")
        assert running == (after["status"] == JobStatus.RUNNING)
        assert ("finishedAt" in after) == (after["status"] in TERMINAL)
        Job.model_validate(after)
        job = after


@pytest.mark.parametrize("ended", sorted(TERMINAL))
def test_nothing_follows_an_end(ended: JobStatus) -> None:
    for status in JobStatus:
        with pytest.raises(IllegalMove):
            check_move(ended, status)


def test_every_state_is_in_the_table() -> None:
    assert set(MOVES) == set(JobStatus)


def test_a_move_that_is_not_in_the_table_raises() -> None:
    completed: dict[str, Any] = snapshots.completed(snapshots.running(snapshots.queued(RECORD, SOURCE), WRITER, at(1)), 1, at(2))
    with pytest.raises(IllegalMove):
        snapshots.failed(completed, {"type": "x", "message": "y"}, at(3))


@given(st.text(max_size=3000), st.integers(60, 400))
def test_shortened_text_fits_and_keeps_both_ends(text: str, limit: int) -> None:
    encodable = text.encode("utf-8", "ignore").decode()
    short = snapshots.shorten(encodable, limit)
    assert len(short.encode()) <= limit
    if len(encodable.encode()) > limit:
        assert short.startswith(encodable[:5]) and "shortened" in short
    else:
        assert short == encodable


@given(st.integers(0, 2**47), st.binary(min_size=10, max_size=10))
def test_fresh_ids_are_version_7_and_sort_by_time(milliseconds: int, randomness: bytes) -> None:
    made = uuid.UUID(fresh_id(milliseconds, randomness))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == milliseconds
    assert fresh_id(milliseconds + 1, randomness) > str(made)


@given(st.integers(0, 4_102_444_800_000))
def test_timestamps_come_back_and_sort_as_text(milliseconds: int) -> None:
    text = format_timestamp(milliseconds)
    assert to_milliseconds(from_milliseconds(milliseconds)) == milliseconds
    assert parse_timestamp(text) == milliseconds
    assert text < format_timestamp(milliseconds + 1)
    assert len(text) == len("2026-01-31T09:15:00.123Z")


def test_partitions_never_move() -> None:
    # Written down: records in old logs were placed by these numbers.
    assert [key_partition(key, 8) for key in ("a", "b", "user-1/conversation-2")] == [3, 1, 4]
    assert [state_partition("memory_compaction_worker", p, 16) for p in range(3)] == [12, 13, 14]
