"""Who asked for a job, and who has cancelled it, by the audit of the gateways."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from headrace.audit import AuditEntry, AuditTrail
from headrace.codec import encode
from headrace.core.timestamps import format_timestamp
from headrace.models import AuditRecord
from headrace.ports import TopicPartition
from headrace.replay.inspection.steps import MISSING
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from headrace.settings import load_settings
from headrace.testing import InMemoryLog
from support.log import eventually
from support.memory_engines import TOPICS, Bench, GatedWorker, wall_clock
from support.timed_jobs import MINUTE, give_time, put_at
from support.virtual_time import in_virtual_time
from support.written_jobs import Engines, WrittenLog

NOW = 600 * MINUTE


@in_virtual_time
async def test_calls_that_did_something_are_told_with_who_made_them(tmp_path: Path) -> None:
    bench, worker = Bench(tmp_path), GatedWorker()
    settings = load_settings(namespace=TOPICS.namespace, data_directory=tmp_path)
    log = InMemoryLog(bench.cluster)
    async with AuditTrail(settings, log=log) as trail, bench.engine(worker):
        job_id = bench.enqueue("job")
        for action, subject, outcome in (
            *(("enqueue", "ann", "ok"), ("get_job", "ann", "ok"), ("wait_for_job", "ann", "ok"), ("watch_job", "ann", "ok")),
            *(("cancel_job", "mallory", "forbidden"), ("retry_job", "ann", "ok")),
        ):
            trail.write(
                AuditEntry(
                    at=wall_clock(), transport="http", outcome=outcome, tenant="acme", subject=subject, credential="key-1",
                    tool="worker_manager", action=action, job_id=job_id,
                )
            )  # fmt: skip
            trail.write(AuditEntry(at=wall_clock(), transport="http", outcome="ok", action="enqueue", job_id=f"{job_id}-other"))
        trail.write(AuditEntry(at=wall_clock(), transport="http", outcome="ok", action="list_jobs"))
        await eventually(lambda: bench.has_completed(job_id), "its end")
    history = LogHistory(log, TOPICS)
    found = [line for line in (await timeline_of(history, job_id)).lines if line.event == "called"]
    assert {line.note for line in found} == {
        "enqueue by ann (worker_manager): ok",
        "cancel_job by mallory (worker_manager): forbidden",
        "retry_job by ann (worker_manager): ok",
    }
    assert len(found) == 3 and {(line.origin, line.source.topic) for line in found} == {("log", f"{TOPICS.namespace}.audit")}
    [asked] = [line for line in found if line.note.startswith("enqueue")]
    [(path, before, call)] = asked.changes
    assert (path, before) == ("call", MISSING)
    assert {name: call[name] for name in ("tenant", "subject", "credential", "tool", "action", "transport", "outcome")} == {
        **{"tenant": "acme", "subject": "ann", "credential": "key-1", "tool": "worker_manager", "action": "enqueue"},
        **{"transport": "http", "outcome": "ok"},
    }


@pytest.fixture
def called(log: WrittenLog, engines: Engines) -> None:
    """A job, and calls at all times that were about it."""
    put_at(engines, NOW, "job")
    engines.run("job", engines.claim("one", -1))
    give_time(engines, 0, NOW + MINUTE)
    log.cluster.create_topics([log.topics.audit(1_000)])
    place = TopicPartition(log.topics.audit(1_000).name, 2)
    for minute in (-90, -30, 0, 50, 70, 300):
        at = NOW + minute * MINUTE
        record = AuditRecord(
            at=format_timestamp(at), gateway="g", transport="mcp", action="cancel_job", outcome=f"at-{minute}", job_id="job"
        )
        log.put(place, b"key", encode(record), timestamp=at)
    log.put(place, b"key", b'{"jobId":"job"}', timestamp=NOW)
    log.put(place, b"key", b'"jobId":"job"', timestamp=NOW)


@pytest.mark.usefixtures("called")
async def test_they_are_looked_for_around_all_else_that_is_known_of_the_job(log: WrittenLog, history: LogHistory) -> None:
    found = await timeline_of(history, "job")
    told = [line.note for line in found.lines if line.event == "called"]
    assert told == [f"cancel_job by nobody known (mcp): at-{minute}" for minute in (-30, 0, 50, 70)]
    assert [line.event for line in found.lines] == ["accepted", "called", "called", "started", "called", "called"]
    read = [record for record in log.given if record.topic == log.topics.audit(1).name]
    assert min(record.timestamp for record in read) == NOW - 30 * MINUTE, "reading begins by the index of times"
    assert orjson.loads(orjson.dumps(found.to_wire()))["lines"][1]["changes"][0]["after"]["outcome"] == "at--30"


async def test_where_there_is_no_audit_nothing_is_told(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    engines.enqueue("job")
    assert [line.event for line in (await timeline_of(history, "job")).lines] == ["accepted"]
    assert log.topics.audit(1).name not in log.cluster.topic_names()
