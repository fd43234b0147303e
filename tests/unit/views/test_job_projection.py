"""Records become rows: whose word counts, whatever the order and however often batches come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.ownership import PartitionLedger, Version, supersedes
from headrace.core.snapshots import NOT_ACCEPTED
from headrace.models import Job
from headrace.testing import StoredRecord
from headrace.views.follower import LogReplaced
from headrace.views.job_table import sweep
from support.job_tables import Table
from support.written_jobs import WORKER, Engines, WrittenLog

LONG = "x" * 40_000


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.connection.close()


@pytest.fixture
def engines() -> Engines:
    return Engines(WrittenLog())


def test_a_job_goes_through_its_life(table: Table, engines: Engines) -> None:
    record = engines.enqueue("j")
    table.take(record)
    job = Job.model_validate(table.job("j"))
    assert (job.status, job.attempt, job.args) == ("queued", 0, {"to": ["ann"]})
    assert job.source is not None
    assert job.source.offset == record.offset
    epoch = engines.claim("one", -1)
    table.take(engines.run("j", epoch))
    assert table.statuses() == {"j": "running"}
    table.take(engines.complete("j", {"sent": 1}))
    done = Job.model_validate(table.job("j"))
    assert (done.status, done.result, done.attempt) == ("completed", {"sent": 1}, 1)


def test_a_job_that_is_done_again_is_shown_as_it_stands_now(table: Table, engines: Engines) -> None:
    """Its idempotency window was over. A record that repeats it within the window changes nothing."""
    table.take(engines.enqueue("j"))
    epoch = engines.claim("one", -1)
    table.take(engines.run("j", epoch), engines.complete("j", {"sent": 1}))
    old = engines.snapshots.pop("j")
    table.take(engines.enqueue("j"))
    assert table.statuses() == {"j": "completed"}
    table.take(engines.run("j", epoch))
    assert table.statuses() == {"j": "running"}
    table.take(engines.fail("j"))
    assert table.statuses() == {"j": "failed"}
    table.take(engines.write(old, keep=False))
    assert table.statuses() == {"j": "failed"}, "what is repeated of its first life is older"


@pytest.mark.parametrize("count", [49, 50, 51, 120])
def test_a_batch_of_many_jobs_becomes_the_rows_that_each_would_become_alone(table: Table, engines: Engines, count: int) -> None:
    records = [engines.enqueue(f"j{number}", number % 8, args={"number": number}) for number in range(count)]
    table.take(*records)
    alone = Table()
    for record in records:
        alone.take(record)
    assert len(table.statuses()) == count
    assert table.everything() == alone.everything()


def test_a_job_record_that_is_read_late_changes_nothing(table: Table, engines: Engines) -> None:
    record = engines.enqueue("j")
    running = engines.run("j", engines.claim("one", -1))
    table.take(running, engines.complete("j"))
    table.take(record)
    assert table.statuses() == {"j": "completed"}


def test_the_last_words_of_a_predecessor_are_void(table: Table, engines: Engines) -> None:
    """Rule F1, also across a restart: the ledgers are kept with the rows."""
    for job_id in ("a", "b"):
        table.take(engines.enqueue(job_id))
    first = engines.claim("one", -1)
    table.take(*engines.log.cluster.records(engines.state(0)), engines.run("a", first))
    second = engines.claim("two", first)
    table.take(engines.log.cluster.records(engines.state(0))[-1])
    table.restart()
    seen_by_the_second = engines.snapshots["a"]
    table.take(engines.complete("a"))
    assert table.statuses() == {"a": "running", "b": "queued"}
    engines.snapshots["a"] = seen_by_the_second
    table.take(engines.run("a", second, "two"))
    assert table.job("a")["epoch"] == second  # type: ignore[index]


def test_a_claim_that_lost_fences_nobody(table: Table, engines: Engines) -> None:
    """Rule C2."""
    table.take(engines.enqueue("a"))
    first = engines.claim("one", -1)
    late = engines.claim("two", -1)
    assert late > first
    table.take(*engines.log.cluster.records(engines.state(0)), engines.run("a", first))
    assert table.statuses() == {"a": "running"}


def test_claims_of_another_partition_fence_nobody(table: Table, engines: Engines) -> None:
    """Two job partitions of a worker, and other workers, may share a partition of `job-state`."""
    table.take(engines.enqueue("a", 0))
    first = engines.claim("one", -1, 0)
    other = Engines(engines.log, "other")
    shared = next(number for number in range(8) if other.state(number) == engines.state(0))
    other.claim("two", -1, shared)
    table.take(*engines.log.cluster.records(engines.state(0)), engines.run("a", first))
    assert table.statuses() == {"a": "running"}


def test_nothing_follows_a_terminal_status_within_an_epoch(table: Table, engines: Engines) -> None:
    """Rule F2."""
    table.take(engines.enqueue("a"))
    epoch = engines.claim("one", -1)
    table.take(engines.run("a", epoch), engines.complete("a"))
    later = {**engines.snapshots["a"], "status": "running", "sequence": 9}
    table.take(engines.write(later))
    assert table.statuses() == {"a": "completed"}
    table.take(engines.write({**later, "epoch": epoch + 1}))
    assert table.statuses() == {"a": "running"}


def test_a_lower_version_is_passed_over(table: Table, engines: Engines) -> None:
    table.take(engines.enqueue("a"))
    epoch = engines.claim("one", -1)
    engines.run("a", epoch)
    second = {**engines.snapshots["a"], "attempt": 2}
    table.take(engines.write(second))
    table.take(engines.write({**second, "attempt": 1, "status": "queued"}))
    assert table.job("a")["attempt"] == 2  # type: ignore[index]


@pytest.mark.parametrize("record_first", [True, False])
@pytest.mark.parametrize("one_batch", [True, False])
def test_long_arguments_outlive_snapshots_without_them(
    table: Table, engines: Engines, record_first: bool, one_batch: bool
) -> None:
    record = engines.enqueue("a", args={"text": LONG})
    running = engines.run("a", engines.claim("one", -1))
    done = engines.complete("a")
    assert b"xxx" not in (done.value or b"")
    batches = [[record], [running], [done]] if record_first else [[running], [done], [record]]
    if one_batch:
        batches = [[*batches[0], *batches[1], *batches[2]]]
    for batch in batches:
        table.take(*batch)
    assert table.job("a")["args"] == {"text": LONG}  # type: ignore[index]
    assert table.statuses() == {"a": "completed"}


def test_a_tombstone_deletes(table: Table, engines: Engines) -> None:
    table.take(engines.enqueue("a"), engines.enqueue("b"))
    epoch = engines.claim("one", -1)
    table.take(engines.run("a", epoch), engines.complete("a"))
    table.take(engines.forget("a"))
    assert table.statuses() == {"b": "queued"}
    table.take(engines.enqueue("c"), engines.run("c", epoch), engines.forget("c"))
    assert table.statuses() == {"b": "queued"}


def test_a_tombstone_over_a_void_record_leaves_a_waiting_job(table: Table, engines: Engines) -> None:
    """The janitor removes a void record that has no winner (rule J2) while its job still waits."""
    table.take(engines.enqueue("a"))
    first = engines.claim("one", -1)
    engines.claim("two", first)
    table.take(*engines.log.cluster.records(engines.state(0)), engines.run("a", first), engines.forget("a"))
    assert table.statuses() == {"a": "queued"}


def test_of_two_records_with_one_id_the_first_counts(table: Table, engines: Engines) -> None:
    first = engines.enqueue("a", created="2026-03-02T09:30:00.000Z")
    second = engines.enqueue("a", created="2026-03-02T09:40:00.000Z")
    job = Job.model_validate(
        {**engines.snapshots["a"], "source": {"topic": second.topic, "partition": 0, "offset": second.offset}}
    )
    table.projection.accept(table.connection, [job.model_copy(update={"created_at": job.created_at.replace(minute=40)})])
    assert table.job("a")["createdAt"].startswith("2026-03-02T09:40")  # type: ignore[index]
    table.take(first, second)
    assert table.job("a")["createdAt"].startswith("2026-03-02T09:30")  # type: ignore[index]
    assert table.connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


def test_an_accepted_job_is_never_put_over_what_the_log_said(table: Table, engines: Engines) -> None:
    table.take(engines.enqueue("a"))
    job = Job.model_validate(engines.snapshots["a"])
    table.take(engines.run("a", engines.claim("one", -1)))
    table.projection.accept(table.connection, [job])
    assert table.statuses() == {"a": "running"}


def test_a_queued_job_is_shown_whatever_else_its_record_says(table: Table, engines: Engines) -> None:
    lies: dict[str, Any] = dict.fromkeys(sorted(NOT_ACCEPTED), "a lie")
    table.take(engines.enqueue("a", **{**lies, "status": "completed"}))
    assert table.statuses() == {"a": "queued"}
    shown = Job.model_validate(table.job("a"))
    assert (shown.status.value, shown.progress, shown.error, shown.finished_at) == ("queued", None, None, None)
    assert not {"argsOmitted", "instance_id"} & (table.job("a") or {}).keys()


def damaged_records(engines: Engines) -> Iterable[StoredRecord]:
    put, state, jobs = engines.log.put, engines.state(0), engines.jobs(0)
    good = engines.run("good", engines.claim("one", -1))
    yield put(state, b"x", b"{", good.headers)
    yield put(state, b"x", b"[]", good.headers)
    yield put(state, b"x", good.value, good.headers)
    yield put(state, b"good", good.value, ())
    yield put(state, b"good", good.value, [(name, b"1/2") for name, _ in good.headers])
    yield put(state, b"good", good.value, [(name, b"99999999999999999999/1/1") for name, _ in good.headers])
    yield put(state, b"good", good.value, [(name, b"nowhere" if "status" in name else value) for name, value in good.headers])
    yield put(state, b"\xff\xfe", good.value, good.headers)
    yield put(state, None, good.value, good.headers)
    yield put(state, b"y", b'{"id": "y"}', good.headers)
    yield put(state, b"y", b'{"id": "y", "createdAt": "yesterday", "workerName": "w"}', good.headers)
    yield put(state, b"y", b'{"id": "y", "createdAt": 5, "workerName": "w", "ctx": 7}', good.headers)
    yield put(state, b"lease/x", b"{}")
    yield put(state, f"lease/{WORKER}/0/one".encode(), b'{"kind": "claim"}')
    yield put(jobs, b"x", b"no json")
    yield put(jobs, b"x", None)
    yield put(jobs, b"x", b'{"id": "x", "workerName": "w", "createdAt": "2026-03-02T09:30:00.000Z", "args": []}')
    yield put(jobs, b"x", b'{"id": "x", "workerName": "w", "createdAt": 1772443800, "args": {}}')
    yield put(jobs, b"x", b'{"id": 5, "workerName": "w", "createdAt": "2026-03-02T09:30:00.000Z", "args": {}}')


def test_a_record_that_cannot_be_decoded_costs_only_itself(
    table: Table, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    table.take(engines.enqueue("good"))
    damaged = list(damaged_records(engines))
    table.take(*engines.log.cluster.records(engines.state(0)), *engines.log.cluster.records(engines.jobs(0)))
    assert table.projection.undecodable.total == len(damaged)
    assert len(caplog.records) == 2, "one line for each kind"
    assert table.statuses() == {"good": "running"}
    table.take(engines.complete("good"))
    assert table.statuses() == {"good": "completed"}


def test_records_of_kinds_that_are_not_known_yet_are_passed_over(table: Table, engines: Engines) -> None:
    put, state = engines.log.put, engines.state(0)
    table.take(
        put(state, f"lease/{WORKER}/0/one".encode(), b'{"kind": "of another version"}'),
        put(state, f"lease/{WORKER}/0/one".encode(), None),
        put(state, f"checkpoint/{WORKER}/0/one".encode(), b"packed"),
    )
    assert table.projection.undecodable.total == 0


def test_another_log_is_noticed(table: Table, engines: Engines) -> None:
    record = engines.enqueue("a")
    table.take(record)
    table.restart()
    table.take(record)
    other = StoredRecord(record.topic, record.partition, record.offset, record.timestamp + 1, record.key, record.value)
    with pytest.raises(LogReplaced):
        table.take(other)


def test_jobs_below_the_watermark_of_which_nothing_else_is_known_are_swept(table: Table, engines: Engines) -> None:
    for job_id in ("a", "b", "c"):
        table.take(engines.enqueue(job_id))
    table.take(engines.enqueue("elsewhere", 1))
    table.take(engines.run("a", engines.claim("one", -1)))
    assert sweep(table.connection, WORKER, {0: 2, 1: 0}) == 1
    assert table.statuses() == {"a": "running", "c": "queued", "elsewhere": "queued"}
    assert sweep(table.connection, "another", {0: 9}) == 0


# --- any order of batches, any restart: one table -----------------------------------------------------------------------


@st.composite
def written_log(draw: st.DrawFn) -> tuple[Engines, dict[str, tuple[Version, str]]]:
    """A log as clients, engines and frozen engines may leave it, and what it says by the rules of the protocol."""
    engines = Engines(WrittenLog())
    ids = [f"j{number}" for number in range(draw(st.integers(1, 4)))]
    for number, job_id in enumerate(ids):
        engines.enqueue(job_id, number % 2, args={"text": LONG if draw(st.booleans()) else "short"})
    ledgers = {0: PartitionLedger(), 1: PartitionLedger()}
    truth: dict[str, tuple[Version, str]] = {}
    for _ in range(draw(st.integers(0, 14))):
        partition = draw(st.integers(0, 1))
        ledger = ledgers[partition]
        if draw(st.integers(0, 3)) == 0:
            previous = draw(st.sampled_from([ledger.last_lease, -1]))
            offset = engines.claim("one", previous, partition)
            ledger.claim(offset, previous, "one")
            continue
        job_id = draw(st.sampled_from(ids))
        snapshot = engines.snapshots[job_id]
        partition = snapshot["source"]["partition"]
        ledger = ledgers[partition]
        version = Version(
            draw(st.sampled_from([ledger.epoch, max(ledger.epoch - 1, 0), 0])), draw(st.integers(0, 2)), draw(st.integers(1, 3))
        )
        if version.epoch < 0:
            continue
        status = draw(st.sampled_from(["queued", "running", "completed"]))
        # What stands beside a version never differs between two records of it.
        fields = {"epoch": version.epoch, "attempt": version.attempt, "sequence": version.sequence, "status": status}
        engines.write({**snapshot, **fields}, keep=False)
        known = truth.get(job_id)
        if not ledger.is_void(version.epoch) and (known is None or supersedes(version, known[0], known[1])):
            truth[job_id] = (version, status)
    return engines, truth


@settings(max_examples=200, deadline=None)
@given(written_log(), st.data())
def test_any_order_of_topics_and_any_restart_ends_in_one_table(
    written: tuple[Engines, dict[str, tuple[Version, str]]], data: st.DataObject
) -> None:
    engines, truth = written
    whole_log = Table()
    log = {partition: engines.log.cluster.records(partition) for partition in engines.log.partitions()}
    whole_log.take(*(record for records in log.values() for record in records))
    table = Table()
    read = dict.fromkeys(log, 0)
    while any(read[partition] < len(records) for partition, records in log.items()):
        partition = data.draw(st.sampled_from([each for each in read if read[each] < len(log[each])]))
        records = log[partition]
        again = data.draw(st.integers(0, read[partition]))
        until = data.draw(st.integers(read[partition] + 1, len(records)))
        table.take(*records[again:until])
        read[partition] = until
        if data.draw(st.booleans()):
            table.restart()
    assert table.everything() == whole_log.everything()
    for job_id, snapshot in engines.snapshots.items():
        job = table.job(job_id)
        assert job is not None
        expected = truth.get(job_id, (Version(-1, 0, 0), "queued"))
        assert (Version(job["epoch"], job["attempt"], job["sequence"]), job["status"]) == expected
        assert job["args"] in ({"text": LONG}, {"text": "short"})
        assert snapshot.get("args", {"text": LONG}) == job["args"]
    whole_log.connection.close()
    table.connection.close()
