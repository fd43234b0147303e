"""Jobs of workers whose code is not there are counted: each once, those of the span and with the fields that are asked for."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from headrace.core import snapshots
from headrace.replay.exports.export_format import ExportHeader, ExportWriter
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import Span, Wanted
from headrace.replay.recorded.log_history import LogHistory
from support.recorded import recorded_job
from support.timed_jobs import ALWAYS, MINUTE, give_time, put_at
from support.written_jobs import Engines, WrittenLog

SPAN = Span(100 * MINUTE, 200 * MINUTE)


@pytest.fixture
def others(log: WrittenLog) -> Engines:
    return Engines(log, "another")


async def test_workers_that_have_ever_had_a_job_are_recorded(history: LogHistory, engines: Engines, others: Engines) -> None:
    assert await history.recorded_workers() == set()
    put_at(others, 100 * MINUTE, "one", 3)
    assert await history.recorded_workers() == {"another"}
    engines.log.cluster.delete_records(others.jobs(3), 1)
    assert await history.recorded_workers() == {"another"}, "a span may have had jobs that are gone"


async def test_each_job_of_the_span_is_counted_once(history: LogHistory, engines: Engines, others: Engines) -> None:
    for number, at in enumerate((99, 100, 150, 199, 200)):
        put_at(engines, at * MINUTE, f"job-{number}", number % 2)
    put_at(engines, 160 * MINUTE, "job-2", 0)  # asked for again
    engines.log.put(engines.jobs(0), b"x", b"no json", timestamp=150 * MINUTE)
    engines.log.put(engines.jobs(0), b"x", orjson.dumps({"id": "none"}), timestamp=150 * MINUTE)
    engines.log.put(engines.jobs(0), b"x", None, timestamp=150 * MINUTE)
    put_at(others, 150 * MINUTE, "other")
    assert await history.count_left(Wanted(span=SPAN)) == {"send_digest": 3, "another": 1}
    assert await history.count_left(Wanted(span=SPAN, workers=["another"])) == {"another": 1}
    assert await history.count_left(Wanted(span=Span(0, 99 * MINUTE))) == {}


async def test_their_state_is_read_only_where_fields_are_asked_for(
    history: LogHistory, log: WrittenLog, engines: Engines
) -> None:
    for number in range(3):
        put_at(engines, 150 * MINUTE, f"job-{number}")
    begun = snapshots.running(
        engines.snapshots["job-1"], snapshots.Writer("one", engines.claim("one", -1)), "2026-01-01T00:00:00.000Z"
    )
    engines.write(begun)
    give_time(engines, 0, 150 * MINUTE)
    log.given.clear()
    assert await history.count_left(Wanted(span=SPAN)) == {"send_digest": 3}
    assert {record.topic for record in log.given} == {log.topics.jobs_name("send_digest")}
    assert await history.count_left(Wanted(span=SPAN, fields={"status": "running"})) == {"send_digest": 1}
    assert await history.count_left(Wanted(span=SPAN, fields={"workerName": "another"})) == {}


@pytest.mark.parametrize("fields", [{}, {"tenant": "default"}], ids=["all", "with a field"])
async def test_that_some_were_deleted_is_no_error(history: LogHistory, engines: Engines, fields: dict[str, str]) -> None:
    for number in range(3):
        put_at(engines, (100 + number) * MINUTE, f"job-{number}")
    engines.log.cluster.delete_records(engines.jobs(0), 2)
    assert await history.count_left(Wanted(span=ALWAYS, fields=fields)) == {"send_digest": 1}
    engines.log.cluster.delete_records(engines.jobs(0), 3)
    assert await history.count_left(Wanted(span=ALWAYS, fields=fields)) == {}


async def test_those_of_an_export(tmp_path: Path) -> None:
    listed = [recorded_job(number, worker=worker) for number in range(4) for worker in ("count", "tally")]
    with ExportWriter(tmp_path / "some.gz") as writer:
        for job in listed:
            place = {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset}
            writer.add("job", **place, acceptedAt=job.accepted_at, record=job.record, snapshot=job.snapshot)
        writer.finish(ExportHeader(namespace="headrace", span=Span(0, 10_000), counts=writer.counts))
    history = read_file_history(tmp_path / "some.gz")
    assert set(await history.recorded_workers()) == {"count", "tally"}
    assert await history.count_left(Wanted(span=Span(1_001, 1_003), workers=["tally"])) == {"tally": 2}
    assert await history.count_left(Wanted(span=Span(0, 1_000), workers=["tally"])) == {}
    assert await history.count_left(Wanted(span=Span(0, 10_000), fields={"result": "3"})) == {"count": 1, "tally": 1}
