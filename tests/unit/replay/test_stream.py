"""A replay of many jobs: each is run once, compared, counted and told."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import AbstractWorker, JobContext, worker
from headrace.core.comparison import Verdict
from headrace.errors import ConfigurationError
from headrace.replay.exports.export_format import ExportHeader, ExportWriter
from headrace.replay.facade import StreamRequest, replay_stream
from headrace.replay.history import Span
from headrace.replay.rerunning.rerun import Rerunner, RerunOptions
from headrace.replay.streams.pacing import Pacing
from headrace.replay.streams.stream import StreamReplay
from headrace.replay.streams.summary import Replayed
from support.recorded import ListedHistory, Today, everything, recorded_job


def odd_fails(args: dict[str, Any]) -> int:
    if args["number"] % 2:
        raise ValueError("odd")
    return int(args["number"])


async def test_every_job_is_run_compared_and_told() -> None:
    jobs = [recorded_job(number) for number in range(5)]
    cancelled = recorded_job(6, status="cancelled")
    waiting = recorded_job(8, status="queued")
    batches = [jobs[:2], jobs[2:], [cancelled, waiting]]
    heard: list[Replayed] = []
    today = Today(odd_fails)
    replay = StreamReplay(ListedHistory(batches), today, everything(batches), Pacing(concurrency=2), heard.append)
    assert (replay.found, replay.all_found) == (0, False)
    summary = await replay.run()
    assert (replay.found, replay.all_found, summary.jobs) == (7, True, 7)
    assert {each.job_id: each.comparison.verdict for each in heard} == {
        jobs[0].id: Verdict.SAME,
        jobs[1].id: Verdict.NEWLY_FAILING,
        jobs[2].id: Verdict.SAME,
        jobs[3].id: Verdict.NEWLY_FAILING,
        jobs[4].id: Verdict.SAME,
        cancelled.id: Verdict.NOT_COMPARABLE,
        waiting.id: Verdict.NOT_COMPARABLE,
    }
    assert [kind.what for kind in summary.worst("not-comparable")] == ["cancelled", "had not ended"]
    assert heard[0].worker == "count"
    assert sorted(today.begun) == [0, 1, 2, 3, 4], "the others would have been run for nothing"


class Numbered(BaseModel):
    number: int
    unit: str = ""


class Asks(AbstractWorker[Numbered]):
    """Notes that it was run, which is an effect outside."""

    name = "count"

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def run(self, args: Numbered, ctx: JobContext) -> int:
        self.asked.append(args.number)
        return args.number


async def test_what_the_code_did_not_make_of_its_jobs_is_told_with_what_was_recorded_and_asks_for_nothing() -> None:
    kinds = ("headrace.errors.WorkerProcessDied", "headrace.errors.BrokerUnreachable", "poison", "undecodable")
    died = [
        recorded_job(number, status="failed", result=None, error={"type": kind, "message": "it was so"})
        for number, kind in enumerate(kinds, 1)
    ]
    cancelled, damaged = recorded_job(6, status="cancelled"), replace(recorded_job(7), damaged=True)
    odd = replace(recorded_job(8, status="running"), record={**recorded_job(8).record, "args": {"number": "many"}})
    own = recorded_job(9, status="failed", error={"type": "ValueError", "message": "odd"})
    batches, asks, heard = [[*died, cancelled, damaged, odd, own]], Asks(), list[Replayed]()
    history = ListedHistory(batches)
    async with Rerunner(history, [asks], RerunOptions(live=True)) as rerunner:
        summary = await StreamReplay(history, rerunner, everything(batches), heard=heard.append).run()
    assert asks.asked == [9]
    assert dict(summary.counts) == {"not-comparable": 6, "arguments-refused": 1, "newly-fixed": 1}
    told = [f"{kind}: it was so" for kind in kinds] + ["cancelled", "the newest record of what became of it is damaged"]
    assert [kind.what for kind in summary.worst("not-comparable")] == told[:5]
    assert {each.job_id: each.comparison.reason for each in heard}[damaged.id] == told[5]
    [refused] = summary.worst("arguments-refused")
    assert refused.what.startswith("arguments_invalid: Arguments of count are wrong: number: ")
    left_out = {each["id"]: each["replayed"] for each in summary.to_json()["notSame"] if each["replayed"] is None}
    assert left_out.keys() == {job.id for job in (*died, cancelled, damaged)}


async def test_how_many_jobs_will_have_the_fields_is_told_by_the_share_that_had_them_so_far() -> None:
    statuses = ["failed", "completed", "completed", "completed"], ["completed"] * 2, ["failed"] * 2
    numbers = iter(range(8))
    batches = [[recorded_job(next(numbers), status=status) for status in batch] for batch in statuses]
    wanted = replace(everything(batches), fields={"status": "failed"})
    replay = StreamReplay(ListedHistory(batches), Today(odd_fails), wanted)
    told = [(replay.read, replay.expected(8))]
    ids = []
    async with aclosing(replay.jobs()) as chosen:
        async for batch in chosen:
            ids += [job.id for job in batch]
            told.append((replay.read, replay.expected(8)))
            assert replay.expected(None) is None, "nobody knows how many are to be read"
    assert ids == [batches[0][0].id, batches[2][0].id, batches[2][1].id]
    assert [*told, (replay.read, replay.expected(8))] == [(0, None), (4, 2), (8, 3), (8, 3)]
    assert replay.expected(None) == 3


async def test_without_fields_all_are_expected() -> None:
    batches = [[recorded_job(number) for number in range(3)]]
    replay = StreamReplay(ListedHistory(batches), Today(odd_fails), everything(batches))
    assert (replay.expected(4), replay.expected(None)) == (4, None)
    await replay.run()
    assert replay.expected(4) == 3, "some were no jobs"


async def test_of_two_workers_with_one_name_nobody_knows_which_is_meant(tmp_path: Path) -> None:
    @worker(name="count")
    async def one(args: dict[str, Any], ctx: JobContext) -> int:
        return 1

    @worker(name="count")
    async def two(args: dict[str, Any], ctx: JobContext) -> int:
        return 2

    with ExportWriter(tmp_path / "none.gz") as writer:
        writer.finish(ExportHeader(namespace="headrace", span=Span(0, 10_000), counts=writer.counts))
    request = StreamRequest(code=[one, two], span=None, file=tmp_path / "none.gz")
    with pytest.raises(ConfigurationError, match=r"Two workers are named 'count', .*one and .*two: name one of them alone"):
        await replay_stream(request)
