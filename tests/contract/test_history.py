"""What every `headrace.replay.History` does: that of a cluster, that of a log in memory, and that of an export."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import JobContext
from headrace.core.comparison import Verdict
from headrace.errors import HistoryGone, JobUnknown, WorkerUnknown
from headrace.kafka import KafkaLog
from headrace.ports import RecordingKey, TopicPartition
from headrace.replay import History, RecordedJob, Rerunner, Span, Wanted
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.streams.stream import StoredHistory
from support.history_content import IDLE, PACKS, SELLS, TRIP, copied, exported_jobs, written_log
from support.reruns import Does

EVER = Span(0, 1 << 50)


@pytest.fixture(params=["file", "kafka", "memory"])
async def history(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> AsyncIterator[StoredHistory]:
    written = written_log(namespace)
    if request.param == "file":
        yield await exported_jobs(written, tmp_path / "jobs.gz")
        return
    # Only what needs a broker asks for one.
    log = KafkaLog(request.getfixturevalue("settings")) if request.param == "kafka" else written
    if log is not written:
        await copied(written, log)
    made = LogHistory(log, written.topics)
    yield made
    await made.stop()
    await log.close()


async def all_of(history: History, span: Span | None = None, **wanted: object) -> dict[str, RecordedJob]:
    """The jobs, by id. Of one partition they must come in the order of the log, each once."""
    found = [job async for batch in history.jobs(Wanted(span=span or history.span or EVER, **wanted)) for job in batch]  # type: ignore[arg-type]
    offsets = defaultdict[TopicPartition, list[int]](list)
    for job in found:
        offsets[job.source].append(job.offset)
    assert all(each == sorted(set(each)) for each in offsets.values())
    return {job.id: job for job in found}


async def test_all_workers_that_were_defined_are_known_also_those_without_jobs(history: StoredHistory) -> None:
    """A job may have enqueued others for any of them."""
    definitions = await history.worker_definitions()
    assert {name: each.name for name, each in definitions.items()} == {SELLS: SELLS, PACKS: PACKS, IDLE: IDLE}
    assert definitions[IDLE].description == "Sends a digest."


async def test_a_job_that_enqueues_for_a_worker_without_jobs_does_so_again(history: StoredHistory) -> None:
    """The code that is loaded need not have that one."""

    async def enqueues(args: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
        await ctx.enqueue(IDLE, {"to": ["ann"]})
        return {"total": 21}

    async with Rerunner(history, [Does(enqueues, name=SELLS)]) as rerunner:
        rerun = await rerunner.rerun(await history.find("sold"))
    assert (rerun.comparison.verdict, rerun.error) == (Verdict.SAME, None)
    assert [child.worker_name for child in rerun.effects.enqueued] == [IDLE]


async def test_those_workers_that_have_jobs_are_told(history: StoredHistory) -> None:
    assert set(await history.recorded_workers()) == {SELLS, PACKS}


async def test_all_jobs_are_given_any_number_of_times(history: StoredHistory) -> None:
    jobs = await all_of(history)
    assert jobs.keys() == {"sold", "refused", "waiting", "packed"}
    assert await all_of(history) == jobs
    sold = jobs["sold"]
    assert (sold.source.topic.rpartition(".jobs.")[2], sold.source.partition, sold.offset) == (SELLS, 0, 0)
    assert sold.record["args"] == {"for": {"whom": "ann"}}
    assert sold.snapshot is not None
    assert (sold.snapshot["status"], sold.snapshot["result"]) == ("completed", {"total": 21})
    assert jobs["refused"].snapshot is not None
    assert jobs["refused"].snapshot["error"]["message"] == "the till is closed"
    assert jobs["waiting"].snapshot is None
    assert not any(job.redacted for job in jobs.values())
    if history.span is not None:
        assert all(job.accepted_at in history.span for job in jobs.values())


async def test_a_job_is_found_as_it_is_given_with_others(history: StoredHistory) -> None:
    for job_id, job in (await all_of(history)).items():
        assert await history.find(job_id) == job
        assert list(await history.runs(job_id)) == [job]
    for none in ("nobody", "\udcff"):
        with pytest.raises(JobUnknown, match=re.escape(repr(none))):
            await history.find(none)


async def test_jobs_are_chosen_by_worker_field_and_time(history: StoredHistory) -> None:
    jobs = await all_of(history)
    assert (await all_of(history, workers=[PACKS])).keys() == {"packed"}
    assert (await all_of(history, workers=[PACKS, SELLS])).keys() == jobs.keys()
    assert (await all_of(history, fields={"status": "failed"})).keys() == {"refused"}
    assert (await all_of(history, fields={"args.for.whom": "ann"})).keys() == {"sold"}
    assert (await all_of(history, fields={"userId": "bob", "status": "queued"})).keys() == {"waiting"}
    at = {job.accepted_at for job in jobs.values()}
    for begin in at:
        # The begin of a span is in it, and its end is not.
        for end in {*at, max(at) + 1}:
            if begin < end:
                expected = {job.id for job in jobs.values() if begin <= job.accepted_at < end}
                assert (await all_of(history, Span(begin, end))).keys() == expected


async def test_a_worker_without_a_queue_and_a_span_before_all_jobs_are_refused(history: StoredHistory) -> None:
    with pytest.raises(WorkerUnknown, match="'nobody'"):
        await all_of(history, workers=["nobody"])
    first = min(job.accepted_at for job in (await all_of(history)).values())
    with pytest.raises(HistoryGone):
        await all_of(history, Span(0, first))


async def test_jobs_are_counted_whatever_their_fields_are(history: StoredHistory) -> None:
    span = history.span or EVER
    assert await history.count(Wanted(span=span, fields={"status": "failed"})) == 4
    assert await history.count(Wanted(span=span, workers=[SELLS])) == 3


async def test_those_that_are_wanted_are_counted_by_worker(history: StoredHistory) -> None:
    span = history.span or EVER
    assert await history.count_left(Wanted(span=span)) == {SELLS: 3, PACKS: 1}
    assert await history.count_left(Wanted(span=span, workers=[PACKS])) == {PACKS: 1}
    assert await history.count_left(Wanted(span=span, fields={"status": "failed"})) == {SELLS: 1}


async def test_fields_that_every_job_may_have_are_no_error(history: StoredHistory) -> None:
    history.check_fields(["status", "args.for.whom", "userId"])


async def test_recordings_are_those_of_the_attempt(history: StoredHistory) -> None:
    jobs = await all_of(history)
    assert {key: orjson.loads(value) for key, value in (await history.recordings(jobs["sold"], 1)).items()} == {
        RecordingKey("rate", 0): 7,
        RecordingKey("rate", 1): {"rate": 3},
    }
    assert await history.recordings(jobs["sold"], 2) == {}
    assert await history.recordings(jobs["refused"], 1) == {}


async def test_memory_is_that_of_the_time(history: StoredHistory) -> None:
    assert (await history.memory_at(TRIP, 0)).entries == ()
    later = await history.memory_at(TRIP, max(job.accepted_at for job in (await all_of(history)).values()))
    assert [(entry.role, entry.content) for entry in later.entries] == [("user", "to Rome")]
