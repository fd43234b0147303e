"""An id that was given again after the idempotency window is a new job's: both are told of, and the newest is found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import JobContext
from headrace.core.records import source_header, status_header
from headrace.core.timestamps import format_timestamp, parse_timestamp
from headrace.ports import NewRecord, RecordingKey, TopicPartition
from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import read_file_history
from headrace.replay.history import History, Span, Wanted
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.recorded.run_times import run_at, time_of_run
from headrace.replay.recorded.spans import ALL_TIME
from headrace.replay.rerunning.rerun import Rerunner
from headrace.testing import InMemoryLog, StoredRecord
from support.histories import recorded_job
from support.log import eventually
from support.memory_engines import TOPICS, Bench, GatedWorker, passing, wall_clock
from support.timed_jobs import MINUTE, jobs
from support.virtual_time import in_virtual_time

WINDOW_SECONDS = 60
SLACK = 30_000


class Sinking(GatedWorker):
    """Does what it is asked for once, and fails from then on."""

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        done = await super().run(args, ctx)
        if len(self.started) > 1:
            raise ValueError("not again")
        return done


class Rated(GatedWorker):
    """Asks outside for a rate, which is another one each time, and at the first one for more."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = 0

    async def run(self, args: dict[str, Any], ctx: JobContext) -> Any:
        rate = await ctx.recorded("rate", self._rate)
        more = [await ctx.recorded("more", lambda: "more")] if rate == 1 else []
        await asyncio.sleep(0.1)
        return [rate, *more]

    def _rate(self) -> int:
        self.rates += 1
        return self.rates


def bench_in(folder: Path) -> Bench:
    return Bench(folder, idempotency_window_seconds=WINDOW_SECONDS)


def ask(bench: Bench) -> None:
    """The request, as clients of one idempotency key make it."""
    record = {"id": "job", "workerName": "gated", "createdAt": format_timestamp(wall_clock()), "args": {"name": "job"}}
    bench.put(0, orjson.dumps(record))


async def ran_twice(bench: Bench) -> LogHistory:
    """What is recorded of a request that was made twice within the window, and once more after it."""
    async with bench.engine(Sinking()):
        ask(bench)
        await passing(1)
        ask(bench)
        await eventually(lambda: bench.committed() == 2, "the first request is done, and the second passed over")
        await passing(2 * WINDOW_SECONDS)
        ask(bench)
        await eventually(lambda: bench.statuses("job")[-1] == "failed", "the third is done")
    return LogHistory(InMemoryLog(bench.cluster), TOPICS)


@in_virtual_time
async def test_a_timeline_tells_of_all_that_had_the_id(tmp_path: Path) -> None:
    history = await ran_twice(bench_in(tmp_path))
    found = await timeline_of(history, "job")
    assert [(line.event, line.run) for line in found.lines] == [
        *(("accepted", 1), ("started", 1), ("completed", 1), ("duplicate", None)),
        *(("accepted", 2), ("started", 2), ("failed", 2)),
    ]
    assert [line.offset for line in found.lines if line.source.topic == TOPICS.jobs_name("gated")] == [0, 1, 2]
    assert [line.note for line in found.lines if line.event == "accepted"] == ["run 1 of 2 of this id", "run 2 of 2 of this id"]
    assert found.state["status"] == "failed" and [each.offset for each in found.earlier] == [0]
    wire = found.to_wire()
    assert (wire["job"]["status"], [each["status"] for each in wire["earlier"]]) == ("failed", ["completed"])
    notes = [line["note"] for line in wire["lines"] if line["event"] == "duplicate"]
    assert notes == ["its request was made again, and passed over"]
    assert [line.get("run") for line in wire["lines"]] == [1, 1, 1, None, 2, 2, 2]


@in_virtual_time
async def test_the_newest_is_found_here_and_in_an_export(tmp_path: Path) -> None:
    history = await ran_twice(bench_in(tmp_path))
    runs = await history.runs("job")
    assert [(job.offset, job.snapshot["status"]) for job in runs if job.snapshot] == [(0, "completed"), (2, "failed")]
    assert await history.find("job") == runs[1]
    await export_span(history, Wanted(span=Span(0, wall_clock())), tmp_path / "span.gz")
    file = read_file_history(tmp_path / "span.gz")
    assert await file.runs("job") == runs and await file.find("job") == runs[1]


@in_virtual_time
async def test_one_of_which_compaction_has_left_nothing_is_told_as_that(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    history = await ran_twice(bench)
    state = bench.cluster.partition(bench.state())
    own = [record.offset for record in state.records if record.key == b"job"]
    state.remove(own[:-1])
    found = await timeline_of(history, "job")
    assert [(line.event, line.origin, line.run) for line in found.lines if line.run == 2] == [
        *(("accepted", "log", 2), ("started", "snapshot", 2), ("failed", "log", 2)),
    ]
    [again] = [line for line in found.lines if line.event == "duplicate"]
    assert (again.offset, again.run) == (1, None) and "done, or passed over" in again.note
    lost = [line for line in found.lines if line.event == "accepted" and line.run == 1]
    assert len(lost) == 1 and lost[0].offset == 0 and "compaction has left nothing" in lost[0].note
    assert (await history.find("job")).offset == 2


@in_virtual_time
async def test_one_that_waits_is_found_though_a_client_asks_for_it_again(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    async with bench.engine(GatedWorker()):
        pass
    ask(bench)
    ask(bench)
    history = LogHistory(InMemoryLog(bench.cluster), TOPICS)
    assert [job.offset for job in await history.runs("job")] == [0]
    assert [line.event for line in (await timeline_of(history, "job")).lines] == ["accepted", "duplicate"]


def has_completed(bench: Bench, times: int) -> bool:
    own = [record for record in bench.cluster.records(bench.state()) if record.key == b"job"]
    return sum(status_header("completed") in record.headers for record in own) == times


async def rated_twice(bench: Bench) -> LogHistory:
    """What is recorded of a request that was made again after the window, each of whose jobs has asked for the rate."""
    async with bench.engine(Rated()):
        for done in (1, 2):
            ask(bench)
            await eventually(partial(has_completed, bench, done), "it is done")
            await passing(2 * WINDOW_SECONDS)
    return LogHistory(InMemoryLog(bench.cluster), TOPICS)


def answers(bench: Bench) -> Sequence[StoredRecord]:
    return bench.cluster.topic_records(TOPICS.recordings.name)


async def again(history: History, span: Span | None = None) -> list[tuple[str, Any]]:
    """What comes of each job with the id when it is run again, and how it compares; of those of a span, or of all."""
    found = [job for job in await jobs(history, span or history.span or Span(0, wall_clock())) if job.id == "job"]
    async with Rerunner(history, [Rated()]) as rerunner:
        reruns = [await rerunner.rerun(job) for job in found]
    return [(str(each.comparison.verdict), each.replayed.result or each.replayed.error_type) for each in reruns]


@in_virtual_time
async def test_each_is_run_again_with_what_it_got_itself(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    history = await rated_twice(bench)
    assert await again(history) == [("same", [1, "more"]), ("same", [2])]
    newest, key = await history.find("job"), RecordingKey("more", 0)
    assert key not in await history.recordings(newest, 1), "the other one asked for that"
    told = await export_span(history, Wanted(span=Span(0, wall_clock())), tmp_path / "span.gz")
    assert told.header.counts["recording"] == 3
    assert await again(read_file_history(tmp_path / "span.gz")) == [("same", [1, "more"]), ("same", [2])]
    await history.stop()


def test_whose_something_is_hangs_on_no_clock_where_that_can_be_helped() -> None:
    """The times of its engine are an hour and a half ahead here, which a record of the same engine tells; or nothing does."""
    ended = recorded_job("gated")
    snapshot = ended.snapshot
    assert snapshot is not None
    started, updated = (parse_timestamp(snapshot["attempts"][0]["startedAt"]), parse_timestamp(snapshot["updatedAt"]))
    own = replace(ended, snapshot={**snapshot, "instanceId": "i"}, snapshot_at=updated - 90 * MINUTE)
    assert time_of_run(own) == (started - 90 * MINUTE - SLACK, updated - 90 * MINUTE + SLACK)
    another = replace(own, snapshot={**snapshot, "instanceId": "another"})
    assert time_of_run(another) == (started - 60 * MINUTE, updated - 90 * MINUTE + SLACK)
    assert time_of_run(replace(own, snapshot_at=None)) == (started - 60 * MINUTE, updated + 60 * MINUTE)
    assert time_of_run(replace(own, damaged=True)) == (started - 60 * MINUTE, ALL_TIME.end)
    waits = replace(own, snapshot=None, snapshot_at=None)
    assert time_of_run(waits) == (waits.accepted_at - SLACK, ALL_TIME.end)
    assert time_of_run(replace(own, snapshot={**snapshot, "startedAt": "[redacted]"})) == ALL_TIME


def test_of_several_jobs_each_time_is_that_of_one_at_most() -> None:
    first = recorded_job("gated")
    begin, end = time_of_run(first)
    waits = replace(first, snapshot=None, snapshot_at=None, offset=first.offset + 1, accepted_at=end + 240 * MINUTE)
    runs = [first, waits]
    assert [run_at(runs, at) for at in (begin, end - 1, waits.accepted_at - SLACK)] == [first, first, waits]
    assert [run_at(runs, at) for at in (begin - 1, end, waits.accepted_at - SLACK - 1)] == [None] * 3
    assert [run_at([first], at) for at in (begin - 1, end)] == [first, first]


@in_virtual_time
async def test_what_is_gone_of_one_is_not_taken_from_the_other(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    history = await rated_twice(bench)
    [first, _, second] = answers(bench)
    place = TopicPartition(first.topic, first.partition)
    bench.cluster.delete_records(place, second.offset)
    assert [record.value for record in answers(bench)] == [b"2"]
    assert await again(history) == [("not-comparable", "headrace.errors.NotRecorded"), ("same", [2])]
    await history.stop()


@in_virtual_time
async def test_each_has_its_own_though_compaction_has_left_nothing_else_of_the_first(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    history = await rated_twice(bench)
    state = bench.cluster.partition(bench.state())
    state.remove([record.offset for record in state.records if record.key == b"job"][:-1])
    before = Wanted(span=Span(0, (await history.find("job")).accepted_at))
    own = [("not-comparable", [1, "more"])]
    assert await again(history, before.span) == own
    told = await export_span(history, before, tmp_path / "first.gz")
    assert told.header.counts["recording"] == 2
    assert await again(read_file_history(tmp_path / "first.gz")) == own
    assert [line.run for line in (await timeline_of(history, "job")).lines if line.event == "recorded"] == [1, 1, 2]
    await history.stop()


@in_virtual_time
async def test_whose_it_is_hangs_on_no_clock(tmp_path: Path) -> None:
    """Though the clock of the brokers was set back by hours while the job ran."""
    bench = bench_in(tmp_path)
    history = await rated_twice(bench)
    for each in answers(bench):
        log = bench.cluster.partition(TopicPartition(each.topic, each.partition))
        log.records[:] = [replace(record, timestamp=record.timestamp - 45 * MINUTE) for record in log.records]
        break
    assert await again(history) == [("same", [1, "more"]), ("same", [2])]
    await history.stop()


@in_virtual_time
async def test_what_does_not_say_whose_it_is_is_taken_for_the_jobs(tmp_path: Path) -> None:
    """As engines before this one, and who writes by another client, have not said it."""
    bench = bench_in(tmp_path)
    async with bench.engine(Rated()):
        ask(bench)
        await eventually(partial(has_completed, bench, 1), "it is done")
    say_nothing(bench, answers(bench))
    history = LogHistory(InMemoryLog(bench.cluster), TOPICS)
    assert await again(history) == [("same", [1, "more"])]
    await export_span(history, Wanted(span=Span(0, wall_clock())), tmp_path / "span.gz")
    assert await again(read_file_history(tmp_path / "span.gz")) == [("same", [1, "more"])]
    await history.stop()


@in_virtual_time
async def test_what_does_not_say_whose_it_is_is_the_jobs_whatever_its_time_where_no_other_had_the_id(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    async with bench.engine(Rated()):
        ask(bench)
        await eventually(partial(has_completed, bench, 1), "it is done")
    say_nothing(bench, answers(bench), later=10 * MINUTE)
    history = LogHistory(InMemoryLog(bench.cluster), TOPICS)
    assert await again(history) == [("same", [1, "more"])]
    await history.stop()


@pytest.mark.parametrize("left", ["all-states", "newest-state"])
@pytest.mark.parametrize("untold", ["first", "both"])
@in_virtual_time
async def test_what_does_not_say_whose_it_is_is_that_of_one_of_them_alone(tmp_path: Path, untold: str, left: str) -> None:
    """An engine of before wrote it for the first, or for both."""
    bench = bench_in(tmp_path)
    history = await rated_twice(bench)
    found = answers(bench)
    say_nothing(bench, found[:2] if untold == "first" else found)
    if left == "newest-state":
        state = bench.cluster.partition(bench.state())
        state.remove([record.offset for record in state.records if record.key == b"job"][:-1])
    newest = await history.find("job")
    [first] = [job for job in await jobs(history, Span(0, newest.accepted_at)) if job.id == "job"]
    rate, more = RecordingKey("rate", 0), RecordingKey("more", 0)
    assert await history.recordings(first, 1) == {rate: b"1", more: b'"more"'}
    assert await history.recordings(newest, 1) == {rate: b"2"}
    assert [line.run for line in (await timeline_of(history, "job")).lines if line.event == "recorded"] == [1, 1, 2]
    if left == "all-states":
        await export_span(history, Wanted(span=Span(0, wall_clock())), tmp_path / "span.gz")
        file = read_file_history(tmp_path / "span.gz")
        assert [await file.recordings(job, 1) for job in (first, newest)] == [{rate: b"1", more: b'"more"'}, {rate: b"2"}]
    await history.stop()


def say_nothing(bench: Bench, found: Sequence[StoredRecord], *, later: int = 0) -> None:
    """Takes from recordings what says whose they are."""
    for each in found:
        log = bench.cluster.partition(TopicPartition(each.topic, each.partition))
        log.records[:] = [
            replace(record, headers=(), timestamp=record.timestamp + later) if record.offset == each.offset else record
            for record in log.records
        ]


@in_virtual_time
async def test_what_each_of_them_recorded_stands_behind_its_begin(tmp_path: Path) -> None:
    """Though the clock of the client is two seconds ahead, whose time that of the acceptance is."""
    bench = bench_in(tmp_path)
    history = await rated_twice(bench)
    queue = bench.cluster.partition(TopicPartition(TOPICS.jobs_name("gated"), 0))
    queue.records[:] = [replace(record, timestamp=record.timestamp + 2_000) for record in queue.records]
    assert [(line.event, line.run) for line in (await timeline_of(history, "job")).lines] == [
        *(("accepted", 1), ("started", 1), ("recorded", 1), ("recorded", 1), ("completed", 1)),
        *(("accepted", 2), ("started", 2), ("recorded", 2), ("completed", 2)),
    ]
    await history.stop()


@in_virtual_time
async def test_what_is_damaged_or_removed_is_told_once_of_whom_it_is_and_in_its_time(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)

    def put(offset: int | None, value: bytes | None) -> None:
        told = () if offset is None else (source_header("gated", 0, offset),)
        bench.cluster.append(bench.state(), NewRecord(b"job", value, told))

    async with bench.engine(GatedWorker()):
        for done in (1, 2):
            ask(bench)
            await eventually(partial(has_completed, bench, done), "it is done")
            await passing(1)
            put(None, b'{"status": "its headers are damaged"}')
            put(None, None)
            await passing(2 * WINDOW_SECONDS)
    put(0, None)
    put(1, None)
    found = await timeline_of(LogHistory(InMemoryLog(bench.cluster), TOPICS), "job")
    own = ("accepted", "started", "completed", "damaged", "removed")
    assert [(line.event, line.run) for line in found.lines] == [
        *((event, 1) for event in own), *((event, 2) for event in own), ("removed", 1), ("removed", 2)
    ]  # fmt: skip


@in_virtual_time
async def test_what_became_of_it_is_told_by_retries_of_the_newest_alone(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    async with bench.engine(GatedWorker()):
        for done in (1, 2):
            ask(bench)
            await eventually(partial(has_completed, bench, done), "it is done")
            await passing(1)
            if done == 1:
                again = bench.enqueue("again", retryOf="job")
                further = bench.enqueue("further", retryOf=again)
            await passing(2 * WINDOW_SECONDS)
        history = LogHistory(InMemoryLog(bench.cluster), TOPICS)
        found = await timeline_of(history, "job")
        assert [each.job.id for each in found.retries] == [again, further]
        assert found.outcome == ("job", "completed")
        newest = bench.enqueue("newest", retryOf="job")
        await eventually(lambda: bench.has_completed(newest), "the retry of the second is done")
    assert (await timeline_of(history, "job")).outcome == (newest, "completed")
