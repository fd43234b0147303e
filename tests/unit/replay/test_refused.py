"""Jobs whose record an engine cannot read but for its id: found, told as what they are, and not run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.errors import JobUnknown
from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import Span, Wanted
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.steps import MISSING
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.recorded.refused import RefusedJob
from headrace.replay.rerunning.rerun import Rerunner
from headrace.replay.streams.stream import StreamReplay
from headrace.replay_errors import JobNotReplayable
from headrace.testing import InMemoryLog
from support.log import eventually
from support.memory_engines import TOPICS, Bench, GatedWorker, passing
from support.timed_jobs import jobs
from support.virtual_time import in_virtual_time

FAULTY: dict[str, dict[str, Any]] = {
    "no-time": {"id": "bad", "workerName": "gated", "args": {"to": "ann"}},
    "no-arguments": {"id": "bad", "workerName": "gated", "createdAt": "2026-03-02T09:30:00.000Z", "tenant": "acme"},
    "a-tenant-that-is-none": {
        **{"id": "bad", "workerName": "gated", "createdAt": "2026-03-02T09:30:00.000Z", "args": {}},
        **{"tenant": 7, "ctx": {"userId": "ann", "conversationId": 1}},
    },
}
PROBLEMS = {"no-time": "createdAt: Field required", "no-arguments": "args: Field required", "a-tenant-that-is-none": "tenant: "}


async def refused(bench: Bench, record: dict[str, Any]) -> LogHistory:
    """What is recorded when an engine has refused a record, and done a job beside it."""
    async with bench.engine(GatedWorker()):
        pass
    bench.put(0, orjson.dumps(record))
    good = bench.enqueue("good")
    await passing(1)
    async with bench.engine(GatedWorker()):
        await eventually(lambda: bench.has_completed(good), "the job behind it is done")
        await eventually(lambda: bench.statuses("bad") == ["failed"], "the engine has refused it")
    return LogHistory(InMemoryLog(bench.cluster), TOPICS)


@pytest.mark.parametrize("fault", FAULTY)
@in_virtual_time
async def test_a_refused_job_is_told_as_what_it_is(tmp_path: Path, fault: str) -> None:
    bench = Bench(tmp_path)
    history = await refused(bench, FAULTY[fault])
    found = await timeline_of(history, "bad")
    assert sorted(line.event for line in found.lines) == ["accepted", "dead-letter", "failed"]
    accepted, *_ = found.lines
    assert (accepted.event, accepted.offset, accepted.origin) == ("accepted", 0, "log")
    assert {change.path: change.after for change in accepted.changes} == FAULTY[fault]
    assert all(change.before is MISSING for change in accepted.changes)
    assert accepted.note.startswith("the record is no job: ") and PROBLEMS[fault] in accepted.note
    [failed] = [line for line in found.lines if line.event == "failed"]
    errors = {change.path: change.after for change in failed.changes}["error"]
    assert errors["type"] == "undecodable" and PROBLEMS[fault] in errors["message"]
    [letter] = [line for line in found.lines if line.event == "dead-letter"]
    assert letter.note.startswith("undecodable: ")
    assert found.state["status"] == "failed"
    assert orjson.loads(orjson.dumps(found.to_wire()))["job"]["status"] == "failed"


@pytest.mark.parametrize("fault", FAULTY)
@in_virtual_time
async def test_a_refused_job_is_among_those_of_a_moment(tmp_path: Path, fault: str) -> None:
    bench = Bench(tmp_path)
    history = await refused(bench, FAULTY[fault])
    job = await history.find("bad")
    assert isinstance(job, RefusedJob) and job.snapshot is not None
    ends = [record.timestamp for record in bench.cluster.records(bench.state()) if record.key == b"bad"]

    async def stood(at: int) -> list[tuple[str, str]]:
        found = [each async for batch in states_at(history, at, fields={"tenant": job.tenant}) for each in batch]
        return [(each.state["status"], each.origin) for each in found if each.job.id == "bad"]

    assert await stood(ends[0]) == [("failed", "log")]
    assert await stood(ends[0] - 1) == [("queued", "log")]
    assert [each.record["args"] for each in await jobs(history, Span(0, ends[0] + 1))] == [{"name": "good"}], "what can be run"


@in_virtual_time
async def test_a_refused_job_cannot_be_run_again_and_that_is_said(tmp_path: Path) -> None:
    history = await refused(Bench(tmp_path), FAULTY["no-time"])
    ran = GatedWorker()
    async with Rerunner(history, [ran]) as rerunner:
        with pytest.raises(JobNotReplayable, match=r"Job bad cannot be run: the record is no job: createdAt: .* was refused"):
            await rerunner.rerun(await history.find("bad"))
    assert ran.started == []


@in_virtual_time
async def test_a_job_in_the_queue_of_another_worker_costs_itself(tmp_path: Path) -> None:
    """Its record is one of a job, and an engine of that queue has refused it: of a stream it must not be the end."""
    misplaced = {
        **{"schemaVersion": 1, "id": "bad", "tenant": "acme", "workerName": "counts", "ctx": {}, "parentId": "parent"},
        **{"createdAt": "2026-03-02T09:30:00.000Z", "args": {"to": "ann"}},
    }
    bench, mended = Bench(tmp_path), {"workerName": "gated", "args": {"name": "parent"}}
    history = await refused(bench, misplaced)
    bench.put(0, orjson.dumps({**misplaced, "id": "parent", "parentId": None, **mended}))
    end = max(record.timestamp for record in bench.cluster.topic_records(TOPICS.jobs_name("gated"))) + 1
    wanted = Wanted(span=Span(0, end))
    assert await history.count_left(wanted) == {"gated": 2} == await history.count_left(replace(wanted, workers=["gated"]))
    async with Rerunner(history, [GatedWorker()]) as rerunner:
        replay = StreamReplay(history, rerunner, wanted)
        summary = await replay.run()
        job = await history.find("bad")
        with pytest.raises(JobNotReplayable) as told:
            await rerunner.rerun(job)
    assert (summary.jobs, summary.counts["same"], summary.counts["not-comparable"]) == (2, 1, 1), "the parent still waits"
    problem = "the job is for worker 'counts', and stands in the queue of 'gated'"
    assert f"Job bad cannot be run: {problem}. It was refused before any attempt" in str(told.value)
    assert isinstance(job, RefusedJob) and job.record == misplaced == job.written
    found = await timeline_of(history, "bad")
    assert sorted(line.event for line in found.lines) == ["accepted", "dead-letter", "failed"]
    assert found.lines[0].note == problem and found.status == "failed"
    [letter] = [line for line in found.lines if line.event == "dead-letter"]
    assert letter.note == f"worker_unknown: {problem}"
    stood = {each.job.id: each async for batch in states_at(history, end) for each in batch}
    assert (stood["bad"].status, stood["bad"].state["args"]) == ("failed", {"to": "ann"})
    assert isinstance(stood["bad"].job, RefusedJob)
    of_parent = await timeline_of(history, "parent")
    assert [(each.relation, each.job.id, each.status) for each in of_parent.relatives] == [("child", "bad", "failed")]
    await export_span(history, wanted, tmp_path / "span.gz")
    assert sorted(each.id for each in await jobs(read_file_history(tmp_path / "span.gz"), wanted.span)) == [
        "job-1-good", "parent"
    ]  # fmt: skip


@in_virtual_time
async def test_what_has_no_id_that_can_be_read_is_no_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.engine(GatedWorker()):
        for value in (b"no json", b'["bad"]', b'{"id": ["bad"]}', b'{"id": "bad/x"}'):
            bench.put(0, value)
        good = bench.enqueue("good")
        await eventually(lambda: bench.has_completed(good), "the job behind them is done")
    history = LogHistory(InMemoryLog(bench.cluster), TOPICS)
    for job_id in ("bad", "bad/x"):
        with pytest.raises(JobUnknown):
            await history.find(job_id)
    at = bench.cluster.records(bench.state())[-1].timestamp
    assert [each.job.id async for batch in states_at(history, at) for each in batch] == [good]


@in_virtual_time
async def test_one_that_nobody_has_refused_yet_is_found_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.engine(GatedWorker()):
        pass
    bench.put(0, orjson.dumps(FAULTY["no-time"]))
    history = LogHistory(InMemoryLog(bench.cluster), TOPICS)
    found = await timeline_of(history, "bad")
    assert [line.event for line in found.lines] == ["accepted"] and "createdAt" in found.lines[0].note
    async with Rerunner(history, [GatedWorker()]) as rerunner:
        with pytest.raises(JobNotReplayable, match="will be refused"):
            await rerunner.rerun(found.job)
