"""A job whose newest record is damaged is told as that, whatever reads it, and not taken for one that waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import History, Span, Wanted, outcome_of
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from support.written_jobs import Engines, WrittenLog


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
