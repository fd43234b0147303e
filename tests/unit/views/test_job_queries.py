"""Pages: newest first, nothing twice, nothing left out, and an index for every filter."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.identifiers import fresh_id
from headrace.core.ownership import Version
from headrace.core.status import JobStatus
from headrace.core.timestamps import format_timestamp, from_milliseconds
from headrace.errors import ArgumentsInvalid
from headrace.views.job_queries import Cursor, JobFilter, check_limit, count, index_for, page, several, statement
from headrace.views.job_rows import LATE_INDEXES, SCHEMA, STATUS_NUMBERS, job_key, listed, row_of, whole
from headrace.views.job_table import write_facts

NAMES = (None, "a", "b")
FIRST = from_milliseconds(1_780_000_000_000)


@cache
def filled(*, complete: bool = True) -> tuple[sqlite3.Connection, list[dict[str, object]]]:
    """300 jobs, many of one millisecond, of two tenants, with ids of two kinds."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for sql in (*SCHEMA.statements, *(LATE_INDEXES if complete else ())):
        connection.execute(sql)
    jobs: list[dict[str, object]] = []
    for number in range(300):
        created = 1_780_000_000_000 + number // 7
        context = {"userId": NAMES[number % 3], "conversationId": NAMES[number // 3 % 3]}
        jobs.append(
            {
                "id": f"job-{number:03d}" if number % 5 == 0 else fresh_id(created, bytes([number * 37 % 256] * 10)),
                "tenant": "default" if number % 4 else "other",
                "workerName": f"worker_{number % 2}",
                "status": list(JobStatus)[number % 11 % 6],
                "createdAt": format_timestamp(created),
                "updatedAt": format_timestamp(created),
                "args": {},
                "ctx": {name: value for name, value in context.items() if value is not None},
            }
        )
    rows = [row_of(dict(job), Version(1, 1, 1), STATUS_NUMBERS[str(job["status"])], None) for job in jobs]
    write_facts(connection, [(row.id, row) for row in rows])
    return connection, jobs


def by_hand(jobs: list[dict[str, object]], wanted: JobFilter) -> list[object]:
    """The ids that the filter lets through, newest first."""

    def order(job: dict[str, object]) -> tuple[object, bool, object]:
        key = job_key(str(job["id"]))
        return job["createdAt"], isinstance(key, bytes), key

    found = [
        job
        for job in jobs
        if job["tenant"] == wanted.tenant
        and wanted.status in (None, job["status"])
        and wanted.worker_name in (None, job["workerName"])
        and wanted.user_id in (None, job["ctx"].get("userId"))  # type: ignore[attr-defined]
        and wanted.conversation_id in (None, job["ctx"].get("conversationId"))  # type: ignore[attr-defined]
        and (wanted.since is None or datetime.fromisoformat(str(job["createdAt"])) >= wanted.since)
        and (wanted.until is None or datetime.fromisoformat(str(job["createdAt"])) < wanted.until)
    ]
    return [job["id"] for job in sorted(found, key=order, reverse=True)]


# In microseconds: a job is created in a whole millisecond.
moments = st.integers(-2_000, 45_000).map(lambda shift: FIRST + timedelta(microseconds=shift))
filters = st.builds(
    JobFilter,
    tenant=st.sampled_from(["default", "other", "nobody"]),
    status=st.sampled_from([None, *JobStatus]),
    worker_name=st.sampled_from([None, "worker_0", "worker_1", "worker_2"]),
    user_id=st.sampled_from([*NAMES, "c"]),
    conversation_id=st.sampled_from(NAMES),
    since=st.one_of(st.none(), moments),
    until=st.one_of(st.none(), moments),
)


@given(wanted=filters, limit=st.integers(1, 60), complete=st.booleans())
def test_pages_put_together_are_what_the_filter_lets_through(wanted: JobFilter, limit: int, complete: bool) -> None:
    """Also in a file that is new, and has not all its indexes yet."""
    connection, jobs = filled(complete=complete)
    found: list[object] = []
    cursor: Cursor | None = None
    while True:
        got = page(connection, wanted, limit, cursor)
        assert len(got.bodies) <= limit
        found += [listed(body)["id"] for body in got.bodies]
        if got.next is None:
            break
        assert len(got.bodies) == limit
        cursor = Cursor.decode(got.next.encode())
        assert len(found) < len(jobs), "a page begins where the one before ended"
    assert found == by_hand(jobs, wanted)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (JobFilter(), "jobs_by_tenant"),
        (JobFilter(status=JobStatus.FAILED), "jobs_by_tenant"),
        (JobFilter(user_id="a"), "jobs_by_user"),
        (JobFilter(user_id="a", status=JobStatus.FAILED), "jobs_by_user"),
        (JobFilter(worker_name="worker_0"), "jobs_by_worker"),
        (JobFilter(worker_name="worker_0", status=JobStatus.QUEUED), "jobs_by_worker"),
        (JobFilter(conversation_id="b"), "jobs_by_conversation"),
        (JobFilter(conversation_id="b", user_id="a", status=JobStatus.QUEUED), "jobs_by_conversation"),
        (JobFilter(since=FIRST, until=FIRST + timedelta(milliseconds=20)), "jobs_by_tenant"),
        (JobFilter(user_id="a", since=FIRST), "jobs_by_user"),
        (JobFilter(conversation_id="b", until=FIRST), "jobs_by_conversation"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("after", [None, Cursor(1_780_000_000_010, "job-005")], ids=["first", "later"])
def test_each_filter_is_served_by_an_index_in_its_order(wanted: JobFilter, index: str, after: Cursor | None) -> None:
    connection, _ = filled()
    assert index_for(wanted) == index
    sql, values = statement(wanted, 21, after, index)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    reads = [step for step in plan if "jobs_by" in step]
    assert reads
    assert all(step.startswith("SEARCH jobs USING INDEX") or "COVERING INDEX" in step for step in reads)
    assert all("=?" in step for step in reads)
    if after is not None or wanted.since or wanted.until:
        assert all("created" in step for step in reads), "a later page begins where the index says, and so does a time"
    assert not [step for step in plan if step.startswith("SCAN jobs")]


@pytest.mark.parametrize(
    "job_id", ["job", "0192f0c8-3b1e-7cc3-98c4-dc0c0c07398f", "=", "a/b", "ö" * 50, "0192F0C8-3B1E-7CC3-98C4-DC0C0C07398F"]
)
def test_a_cursor_survives_its_way_through_text(job_id: str) -> None:
    cursor = Cursor(1_780_000_000_000, job_key(job_id))
    assert Cursor.decode(cursor.encode()) == cursor
    assert len(cursor.encode()) <= 300


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")))
def test_what_is_no_cursor_is_refused_by_name(text: str) -> None:
    try:
        cursor = Cursor.decode(text)
    except ArgumentsInvalid as error:
        assert str(error).startswith("cursor:")
    else:
        assert cursor.encode() == text


@pytest.mark.parametrize("text", ["", "!", "eHh4", "MTIzLzEyeg", "x" * 400, Cursor(2**63, "a").encode(), "ünïcode"])
def test_bad_cursors(text: str) -> None:
    with pytest.raises(ArgumentsInvalid, match="cursor"):
        Cursor.decode(text)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_bad_limits(limit: int) -> None:
    with pytest.raises(ArgumentsInvalid, match="limit"):
        check_limit(limit)


def test_counts() -> None:
    connection, jobs = filled()
    counted = count(connection, "other")
    assert set(counted) == set(JobStatus)
    assert counted == {status: sum(job["status"] == status and job["tenant"] == "other" for job in jobs) for status in JobStatus}


# --- what lists leave out -----------------------------------------------------------------------------------------------


@pytest.fixture
def raw() -> Iterator[dict[str, object]]:
    yield {
        "id": "j",
        "workerName": "w",
        "status": "failed",
        "createdAt": "2026-03-02T09:30:00.000Z",
        "updatedAt": "2026-03-02T09:30:00.000Z",
        "args": {"a": 1},
        "ctx": {"userId": "u"},
        "result": {"big": True},
        "error": {"type": "E", "message": "m", "traceback": "t"},
        "attempts": [{"attempt": 1, "error": {"type": "E", "message": "m", "traceback": "t"}}, {"attempt": 2}],
        "unknownField": [1],
    }


@pytest.mark.parametrize("padding", ["", "x" * 5_000], ids=["short", "long"])
def test_results_and_tracebacks_are_for_single_jobs(raw: dict[str, object], padding: str) -> None:
    raw["result"] = {"big": padding}
    value = orjson.dumps(raw)
    row = row_of(orjson.loads(value), Version(1, 1, 1), 0, None, value)
    shown = listed(row.body)
    assert "result" not in shown
    assert shown["error"] == {"type": "E", "message": "m"}
    assert shown["attempts"] == [{"attempt": 1, "error": {"type": "E", "message": "m"}}, {"attempt": 2}]
    assert shown["args"] == {"a": 1}
    assert shown["unknownField"] == [1]
    assert len(row.body) < 5_000
    assert whole(row.body, row.arguments, row.details) == raw


@pytest.mark.parametrize(("size", "omitted"), [(4_000, False), (4_200, True), (500_000, True)])
def test_long_arguments_are_for_single_jobs(raw: dict[str, object], size: int, omitted: bool) -> None:
    raw["args"] = {"text": "x" * size}
    value = orjson.dumps(raw)
    for given_value in (value, None):
        row = row_of(orjson.loads(value), Version(1, 1, 1), 0, None, given_value)
        shown = listed(row.body)
        assert shown.get("argsOmitted", False) is omitted
        assert ("args" in shown) is not omitted
        assert whole(row.body, row.arguments, row.details) == raw


def test_arguments_that_the_snapshot_has_not_are_omitted(raw: dict[str, object]) -> None:
    del raw["args"]
    row = row_of(dict(raw), Version(1, 1, 1), 0, None)
    assert listed(row.body)["argsOmitted"] is True
    assert "argsOmitted" not in whole(row.body, row.arguments, row.details)


def test_of_a_long_context_lists_show_whose_job_it_is(raw: dict[str, object]) -> None:
    raw["ctx"] = {"userId": "u", "conversationId": "c", "source": "s", "notes": "x" * 5_000}
    row = row_of(orjson.loads(orjson.dumps(raw)), Version(1, 1, 1), 0, None)
    shown = listed(row.body)
    assert shown["ctx"] == {"userId": "u", "conversationId": "c", "source": "s"}
    assert shown["ctxOmitted"] is True
    assert whole(row.body, row.arguments, row.details) == raw


def test_the_jobs_of_some_ids_are_of_the_time_too() -> None:
    connection, jobs = filled()
    of_one = [job for job in jobs if job["tenant"] == "default"][:40]
    keys = [job_key(str(job["id"])) for job in of_one]
    for wanted in (JobFilter(), JobFilter(since=FIRST + timedelta(milliseconds=2), until=FIRST + timedelta(milliseconds=4))):
        expected = set(by_hand(of_one, wanted))
        assert expected and {listed(each.body)["id"] for each in several(connection, keys, wanted)} == expected


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_time_without_a_zone_is_refused(name: str) -> None:
    with pytest.raises(ArgumentsInvalid, match="need a time zone"):
        JobFilter(**{name: datetime(2026, 1, 31)})  # type: ignore[arg-type]  # one of the times


def test_a_time_within_a_millisecond_is_after_its_begin() -> None:
    connection, jobs = filled()
    within = FIRST + timedelta(milliseconds=3, microseconds=1)
    for wanted in (JobFilter(since=within), JobFilter(until=within)):
        found = [listed(body)["id"] for body in page(connection, wanted, 1_000, None).bodies]
        assert found == by_hand(jobs, wanted) and found
