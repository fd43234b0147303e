"""What a listing shows: ids, states and names stay whole, however long a text beside them is."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from rich.console import Console
from rich.text import Text

from headrace.cli.dead_letters import letters_listing
from headrace.cli.inspect import jobs_listing, workers_listing
from headrace.cli.listing import Listing, output_console
from headrace.cli.moments import parse_moment
from headrace.cli.state import states_listing
from headrace.cli.timeline import print_timeline
from headrace.core.status import JobStatus
from headrace.dead_letters import DeadLetter
from headrace.models import Job, JobError, WorkerSummary
from headrace.ports import TopicPartition
from headrace.replay.inspection.relatives import Relative
from headrace.replay.inspection.state import JobAt
from headrace.replay.inspection.steps import MISSING, Change
from headrace.replay.inspection.timeline import Line, Timeline
from headrace.tool_models import JobList
from support.histories import recorded_job
from support.jobs import a_job

LONG = ("two hundred characters of words " * 7)[:200]
JOB_ID = "019a9b7c-52c1-7d3e-8a44-6f2b1c9e0d57"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def printed(listing: Listing, columns: int | None) -> list[str]:
    """Its lines at a terminal so wide, or in a pipe."""
    out = io.StringIO()
    terminal = columns is not None
    listing.print(Console(file=out, width=columns, force_terminal=terminal, color_system=None, legacy_windows=False))
    return out.getvalue().splitlines()


def workers() -> Listing:
    def summary(name: str, description: str, *, paused: bool = False) -> WorkerSummary:
        return WorkerSummary(name=name, kind=name, description=description, category="text", live_instances=3, paused=paused)

    return workers_listing([summary("memory_compaction", LONG, paused=True), summary("greet", "Greets\nyou.")])


def failed_job() -> Job:
    error = JobError(type="ValueError", message=f"{LONG} {LONG} the end")
    return a_job(JOB_ID).model_copy(update={"status": JobStatus.FAILED, "worker_name": "memory_compaction", "error": error})


def letter() -> DeadLetter:
    return DeadLetter(
        partition=0,
        offset=1234567,
        written_at=datetime(2026, 1, 31, 9, 15, tzinfo=UTC),
        key=b"k",
        value=b"v",
        reason="idempotency_conflict",
        worker_name="memory_compaction",
        job_id=JOB_ID,
        message=LONG,
    )


@pytest.mark.parametrize("columns", [80, 120, 300])
def test_a_long_description_is_cut_and_takes_no_column_away(columns: int) -> None:
    lines = printed(workers(), columns)
    assert lines[1].split() == ["worker", "kind", "live", "category", "what", "it", "does"]
    assert lines[2].split()[:5] == ["memory_compaction", "memory_compaction", "3,", "paused", "text"]
    assert lines[2].endswith("…") == (columns < 300)
    assert lines[3].split() == ["greet", "greet", "3", "text", "Greets", "you."]
    assert all(len(line) <= columns for line in lines)


def test_a_pipe_gets_everything_and_a_set_width_holds_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LONG.strip() in printed(workers(), None)[2]
    monkeypatch.setenv("COLUMNS", "80")
    assert len(printed(workers(), None)[2]) == 80


@pytest.mark.parametrize("columns", [100, None])
def test_an_error_stands_below_its_job_and_leaves_the_columns_alone(columns: int | None) -> None:
    lines = printed(jobs_listing(JobList(jobs=[failed_job()])), columns)
    assert lines[1].split() == ["job", "status", "created", "worker"]
    [job_id, status, *_, worker] = lines[2].split()
    assert (job_id, status, worker) == (JOB_ID, "failed", "memory_compaction")
    assert lines[3].startswith(f"  ValueError: {LONG[:100]}") and lines[3].endswith(f"{LONG[-50:]} the end")
    assert (" … " in lines[3]) is (columns is not None), "a pipe has all of it"
    assert len(lines) == 4


@pytest.mark.parametrize("columns", [100, None])
def test_a_letter_has_its_place_its_reason_and_its_worker(columns: int | None) -> None:
    lines = printed(letters_listing([letter()]), columns)
    assert lines[1].split() == ["letter", "written", "reason", "worker"]
    assert lines[2].split() == ["0/1234567", "2026-01-31T09:15:00.000Z", "idempotency_conflict", "memory_compaction"]
    assert lines[3].startswith(f"  job {JOB_ID}: {LONG[:100]}")


def test_what_is_whole_stays_so_where_there_is_no_room_at_all() -> None:
    lines = printed(jobs_listing(JobList(jobs=[failed_job()])), 40)
    assert JOB_ID in lines[2] and "failed" in lines[2]


def test_wide_characters_take_the_room_that_they_need() -> None:
    wide = workers_listing([WorkerSummary(name="greet", description="語" * 100, category="言葉", live_instances=1)])
    [_, head, row] = printed(wide, 80)
    assert row.index("語") == head.index("what it does") - 2, "two characters of the category are two columns wide"
    assert row.count("語") == 26 and row.endswith("…")


def test_nothing_to_list_is_said() -> None:
    assert printed(jobs_listing(JobList(jobs=[]), "No failed jobs."), 80) == ["No failed jobs."]
    assert printed(letters_listing([]), 80) == ["No dead letters."]
    assert printed(workers_listing([]), 80)[0].startswith("No workers are defined yet")


def test_a_state_has_the_whole_time_where_there_is_little_room() -> None:
    listing = states_listing([JobAt(recorded_job("memory_compaction_worker", job_id=JOB_ID), "snapshot")], 1772443860000)
    [_, _, line] = printed(listing, 80)
    assert line.startswith(f"{JOB_ID} 2026-03-02T09:30:00.000Z completed (1) ")


def damaged_at() -> JobAt:
    return JobAt(replace(recorded_job("memory_compaction_worker", job_id=JOB_ID, status="running"), damaged=True), "log")


def timeline() -> Timeline:
    """Of a job with a long result, which was done anew twice."""
    job = recorded_job("memory_compaction_worker", job_id=JOB_ID, error=("ValueError", "no"))
    assert job.snapshot is not None
    changes = [Change("result", MISSING, LONG), Change("error", MISSING, {"message": f"{LONG} the end"})]
    place = TopicPartition("headrace.jobs.memory_compaction_worker", 3)
    line = Line(at=1772443860000, origin="log", source=place, offset=1234567, event="cancel-requested", changes=changes)
    relatives = [
        Relative("retry", recorded_job("memory_compaction_worker", job_id=f"{JOB_ID[:-1]}{number}", result=1, retryOf="x"))
        for number in range(2)
    ]
    return Timeline(job, job.snapshot, [line], relatives)


def shown(found: Timeline, columns: int | None, *, full: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(
        file=out, width=columns, force_terminal=columns is not None, color_system=None, legacy_windows=False, soft_wrap=True
    )
    print_timeline(found, "headrace", console, full=full)
    return out.getvalue().splitlines()


def test_tables_with_whole_times_are_readable_at_100_columns() -> None:
    job = failed_job()
    lines = [
        *printed(jobs_listing(JobList(jobs=[job])), 100)[:3],
        *printed(states_listing([damaged_at()], 1772443860000), 100)[:3],
        *printed(letters_listing([letter()]), 100)[:3],
        *(line for line in shown(timeline(), 100) if not line.startswith("  ")),
    ]
    assert max(map(len, lines)) <= 100
    assert sum(JOB_ID in line for line in lines) == 3, "no id is cut"


def test_a_time_of_a_table_can_be_given_back_as_it_stands() -> None:
    job = failed_job()
    [_, _, line, *_] = printed(jobs_listing(JobList(jobs=[job])), 100)
    assert parse_moment(line.split()[2], datetime.now(UTC), "--since") == job.created_at
    [_, _, line, *_] = printed(states_listing([damaged_at()], 1772443860000), 100)
    assert parse_moment(line.split()[1], datetime.now(UTC), "--at") == datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    [line] = [line for line in shown(timeline(), 100) if "cancel-requested" in line]
    assert parse_moment(line.split()[0], datetime.now(UTC), "--at") == datetime(2026, 3, 2, 9, 31, tzinfo=UTC)
    [line] = printed(letters_listing([letter()]), 100)[2:3]
    assert parse_moment(line.split()[1], datetime.now(UTC), "--since") == letter().written_at


def test_a_job_whose_newest_record_is_damaged_is_told_so() -> None:
    lines = printed(states_listing([damaged_at()], 1772443860000), 100)
    assert "damaged (1)" in lines[2]
    assert lines[3] == "  The newest record of then cannot be read; before it, it was running."


def test_a_timeline_cuts_a_value_at_a_terminal_unless_it_is_to_show_all() -> None:
    cut = shown(timeline(), 100)
    assert f"  result: {LONG[:80]}..." in cut and not any("the end" in line for line in cut)
    for lines in (shown(timeline(), 100, full=True), shown(timeline(), None)):
        assert f"  result: {LONG.strip()}" in lines
        assert any(line.startswith("  error: ") and "the end" in line for line in lines)


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in run\n    raise ValueError("a  b")\nValueError: a  b\n'


@pytest.mark.parametrize(
    ("value", "whole", "at_a_terminal"),
    [
        (TRACEBACK, orjson.dumps(TRACEBACK).decode(), " ".join(TRACEBACK.split())[:80] + "..."),
        ({"a": "x   y\n  z", "b": [1.50, None]}, '{"a":"x   y\\n  z","b":[1.5,null]}', '{"a":"x y\\n z","b":[1.5,null]}'),
        ("two  blanks", "two  blanks", "two blanks"),
        (" around ", '" around "', "around"),
        ("", '""', ""),
        ("12", '"12"', "12"),
        (12, "12", "12"),
        ("back\\slash", '"back\\\\slash"', "back\\slash"),
        ("\x9b1m\u2028", '"\\u009b1m\\u2028"', "1m"),
    ],
    ids=["traceback", "object", "blanks", "around", "empty", "digits", "number", "backslash", "control"],
)
def test_a_whole_value_of_a_timeline_is_shown_as_it_is(value: Any, whole: str, at_a_terminal: str) -> None:
    found = timeline()
    line = replace(found.lines[0], changes=[Change("result", MISSING, value)], note="why  it\n was")
    told = Timeline(found.job, found.state, [line], [])
    for lines in (shown(told, 100, full=True), shown(told, None)):
        assert f"  result: {whole}" in lines and "  why it was" in lines
    assert f"  result: {at_a_terminal}".rstrip() in [line.rstrip() for line in shown(told, 100)]


def test_a_timeline_says_at_once_how_a_chain_of_retries_ended() -> None:
    lines = shown(timeline(), 100)
    assert lines[0] == f"Job {JOB_ID} of memory_compaction_worker: failed"
    assert lines[1] == f"It was done anew 2 times; at last, as job {JOB_ID[:-1]}1, it is completed."
    found = timeline()
    last = replace(found.relatives[0].job, record={**found.relatives[0].job.record, "retryOf": JOB_ID})
    assert (
        shown(Timeline(last, found.state, found.lines, []), 100)[1]
        == f"It does job {JOB_ID} anew, which is not in the log any more."
    )
    earlier = Timeline(last, found.state, found.lines, [Relative("retried", found.job)])
    assert shown(earlier, 100)[1] == f"It does job {JOB_ID} anew, which is failed."
    assert "Jobs that it does anew" in shown(earlier, 100)


def test_what_goes_into_a_pipe_is_not_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = Text(f"{LONG} the end")
    output_console().print(text)
    assert f"{LONG} the end" in capsys.readouterr().out.splitlines()
    monkeypatch.setenv("COLUMNS", "80")
    output_console().print(text)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
