"""Job records of other writers, which leave out what has a default: they are told of and found as those that have it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from headrace.core.records import cancellation_key
from headrace.core.snapshots import queued
from headrace.ports import ConversationRef, TopicPartition
from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import Span, Wanted
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.conversations import conversations_of
from headrace.replay.recorded.log_history import LogHistory
from support.timed_jobs import ALWAYS, jobs
from support.written_jobs import Engines, WrittenLog

WHEN = "2026-03-02T09:30:00.000Z"


@pytest.fixture
def done(log: WrittenLog, engines: Engines) -> None:
    """A job of which its writer said no more than what is needed, and one of another tenant."""
    epoch = engines.claim("one", -1)
    raw = {"id": "job", "workerName": engines.worker, "createdAt": WHEN, "args": {"userId": "ann", "conversationId": "trip"}}
    made = log.put(engines.jobs(0), b"job", orjson.dumps(raw))
    engines.snapshots["job"] = queued(raw, {"topic": made.topic, "partition": 0, "offset": made.offset})
    engines.enqueue("other", tenant="acme")
    for job_id in ("job", "other"):
        engines.run(job_id, epoch)
        engines.complete(job_id)


@pytest.mark.usefixtures("done")
async def test_its_timeline_has_the_requests_to_cancel_it(log: WrittenLog, history: LogHistory) -> None:
    log.cluster.create_topics([log.topics.control])
    control = TopicPartition(log.topics.control.name, 0)
    log.put(control, cancellation_key("default", "job"), b"{}")
    log.put(control, cancellation_key("acme", "job"), b"{}")
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == ["accepted", "cancel-requested", "started", "completed"]


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize(
    ("path", "value"),
    [("tenant", "default"), ("schemaVersion", "1"), ("ctx", "{}"), ("failures", "0"), ("crashes", "0"), ("isolated", "false")],
)
async def test_it_is_chosen_by_what_it_has_by_default(history: LogHistory, tmp_path: Path, path: str, value: str) -> None:
    assert "job" in [job.id for job in await jobs(history, ALWAYS, **{path: value})]
    assert [job.id for job in await jobs(history, ALWAYS, **{path: "another"})] == []
    found = [each.job.id async for batch in states_at(history, 5_000, fields={path: value}) for each in batch]
    assert "job" in found
    await export_span(history, Wanted(span=Span(0, 100_000)), tmp_path / "span.gz")
    file, wanted = read_file_history(tmp_path / "span.gz"), Wanted(span=Span(0, 100_000), fields={path: value})
    assert "job" in [job.id async for batch in file.jobs(wanted) for job in batch]


@pytest.mark.usefixtures("done")
async def test_what_the_record_says_goes_before_the_default(history: LogHistory) -> None:
    assert [job.id for job in await jobs(history, ALWAYS, tenant="acme")] == ["other"]
    assert [job.id for job in await jobs(history, ALWAYS, tenant="default")] == ["job"]
    assert await jobs(history, ALWAYS, parentId="null") == [], "what has no default is not there"
    job, other = [await history.find(each) for each in ("job", "other")]
    assert (job.tenant, other.tenant) == ("default", "acme")
    assert list(conversations_of(job)) == [ConversationRef("default", "ann", "trip")]
