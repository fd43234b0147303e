"""A job whose newest record is damaged is told as that, whatever reads it, and not taken for one that waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import JobContext
from headrace.core import snapshots
from headrace.replay.exports.export_format import ExportHeader, ExportWriter
from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import WHY_DAMAGED, History, RecordedJob, Span, Wanted, outcome_of
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.rerunning.rerun import Rerunner
from headrace.replay.streams.stream import StoredHistory, StreamReplay
from support.reruns import Does
from support.written_jobs import WORKER, Engines, WrittenLog


@pytest.mark.parametrize("compacted", [False, True], ids=["all-left", "compacted"])
async def test_a_job_of_which_only_a_damaged_record_tells_is_not_taken_for_one_that_waits(
    log: WrittenLog, engines: Engines, history: LogHistory, compacted: bool, tmp_path: Path
) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.enqueue("waits")
    running = engines.run("job", epoch)
    made = engines.complete("job", {"n": 1})
    state = log.cluster.partition(engines.state(0))
    headers, at = state.records[-1].headers, made.timestamp
    state.remove([made.offset, *([running.offset] if compacted else [])])
    log.put(engines.state(0), b"job", b"no json", headers, timestamp=at)
    span, last = Span(0, 1 << 50), "queued" if compacted else "running"

    async def chosen(fields: dict[str, str], source: History = history) -> list[str]:
        return [job.id async for batch in source.jobs(Wanted(span=span, fields=fields)) for job in batch]

    jobs = {job.id: job async for batch in history.jobs(Wanted(span=span)) for job in batch}
    assert [(jobs[name].damaged, jobs[name].snapshot, outcome_of(jobs[name])) for name in ("job", "waits")] == [
        (True, None, None), (False, None, None)
    ]  # fmt: skip
    assert await chosen({"status": "queued"}) == ["waits"] and await chosen({"status": "completed"}) == []
    assert await chosen({"status": "damaged"}) == ["job"] and await chosen({"userId": "ann"}) == ["job", "waits"]
    found = {each.job.id: each async for batch in states_at(history, at) for each in batch}
    assert {name: (each.status, each.state["status"]) for name, each in found.items()} == {
        "job": ("damaged", last), "waits": ("queued", "queued")
    }  # fmt: skip
    before = {each.job.id: each.status async for batch in states_at(history, running.timestamp) for each in batch}
    assert before["job"] == "queued" if compacted else before["job"] == "running", "it was not damaged then"
    assert [each.job.id async for batch in states_at(history, at, fields={"status": "damaged"}) for each in batch] == ["job"]
    own = await timeline_of(history, "job")
    assert (own.status, own.state["status"], own.outcome) == ("damaged", last, ("job", "damaged"))
    assert [line.event for line in own.lines] == (["accepted", "damaged"] if compacted else ["accepted", "started", "damaged"])
    await export_span(history, Wanted(span=Span(0, at + 1)), tmp_path / "jobs.gz")
    file = read_file_history(tmp_path / "jobs.gz")
    assert [(job.id, job.damaged) async for batch in file.jobs(Wanted(span=file.span)) for job in batch] == [
        ("job", True), ("waits", False)
    ]  # fmt: skip


ODD_ERRORS = {
    "a text": "it broke",
    "a list": ["it broke"],
    "no type": {"message": "it broke"},
    "no message": {"type": "ValueError"},
    "a number for a type": {"type": 5, "message": "it broke"},
}


@pytest.mark.parametrize("error", ODD_ERRORS.values(), ids=ODD_ERRORS.keys())
@pytest.mark.parametrize("status", ["completed", "failed"])
@pytest.mark.parametrize("from_file", [False, True], ids=["log", "file"])
async def test_an_end_whose_error_is_none_costs_its_job_alone(
    engines: Engines, history: LogHistory, status: str, error: object, from_file: bool, tmp_path: Path
) -> None:
    """As another writer may have written it, or an export of an earlier headrace has it."""
    epoch = engines.claim("one", -1)
    for name in ("odd", "even"):
        engines.enqueue(name)
        engines.run(name, epoch)
    engines.complete("even", "returned")
    ended = snapshots.completed(engines.snapshots["odd"], "returned", "2026-03-02T09:32:00.000Z")
    engines.write({**ended, "status": status, "error": error})
    wanted = Wanted(span=Span(0, 1 << 50))
    read: StoredHistory = history
    if from_file:
        whole = [job async for batch in history.jobs(wanted) for job in batch]
        read = file = read_file_history(exported_as_before(tmp_path / "jobs.gz", whole, {"odd": engines.snapshots["odd"]}))
        wanted = Wanted(span=file.span)

    async def returns(args: dict[str, Any], ctx: JobContext) -> str:
        return "returned"

    async with Rerunner(read, [Does(returns, name=WORKER)]) as rerunner:
        summary = await StreamReplay(read, rerunner, wanted).run()
    assert dict(summary.counts) == {"same": 1, "not-comparable": 1}
    assert [kind.what for kind in summary.worst("not-comparable")] == [WHY_DAMAGED]
    assert [each.job_id for each in summary.listed] == ["odd"]


def exported_as_before(path: Path, jobs: list[RecordedJob], odd: dict[str, Any]) -> Path:
    """An export that took snapshots as they are."""
    with ExportWriter(path) as writer:
        for job in jobs:
            place = {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset}
            state = odd.get(job.id, job.snapshot)
            writer.add("job", **place, acceptedAt=job.accepted_at, record=job.record, snapshot=state)
        writer.finish(ExportHeader(namespace="headrace", span=Span(0, 1 << 42), counts=writer.counts))
    return path
