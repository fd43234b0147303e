"""Whatever an engine made of a job, the same code run again makes the same of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.core.comparison import Outcome, Verdict
from headrace.ports import TopicPartition
from headrace.replay.history import RecordedJob
from headrace.replay.rerunning.rerun import Rerun, Rerunner
from support.histories import InMemoryHistory
from support.log import eventually
from support.memory_engines import TOPICS, Bench, GatedWorker
from support.nasty import NASTY, NastyInThread, NastyWorker
from support.process_workers import InLoop
from support.virtual_time import in_virtual_time

BEHAVIOURS = (
    *("unheard", "busy", "give-up", "group", "generator-exit", "huge", "large", "no-json", "none", "sys-exit", "progress"),
    "anything",
)
# Of these an engine fails in planning the next attempt, and a replay plans none.
PLANNED = {"never-retry", "word-retry"}
# What differs from process to process, or from look to look.
_ADDRESS = re.compile("0x[0-9a-f]+")


async def ran_twice(bench: Bench, worker: GatedWorker, again: GatedWorker, name: str) -> Rerun:
    """What came of a job of that name, and what comes of it when it is run again."""
    async with bench.engine(worker):
        job_id = bench.enqueue(name)
        await eventually(lambda: bench.statuses(job_id)[-1:] in (["completed"], ["failed"]), "its end")
    source = TopicPartition(TOPICS.jobs_name(worker.name), 0)
    [record] = bench.cluster.records(source)
    job = RecordedJob(orjson.loads(record.value or b""), source, 0, record.timestamp, bench.state_of(job_id))
    async with Rerunner(InMemoryHistory(), [again]) as rerunner:
        return await rerunner.rerun(job)


def without_addresses(outcome: Outcome | None) -> tuple[Any, ...]:
    assert outcome is not None
    message = None if outcome.error_message is None else _ADDRESS.sub("0x", outcome.error_message)
    return outcome.status, outcome.result, outcome.error_type, message


@pytest.mark.parametrize("name", BEHAVIOURS)
@in_virtual_time
async def test_what_comes_of_it_is_the_same(tmp_path: Path, name: str) -> None:
    rerun = await ran_twice(Bench(tmp_path), InLoop(), InLoop(), name)
    assert without_addresses(rerun.replayed) == without_addresses(rerun.recorded)
    assert rerun.comparison.verdict is Verdict.SAME or "0x" in str(rerun.replayed.error_message)


@pytest.mark.parametrize("kind", [NastyWorker, NastyInThread])
@pytest.mark.parametrize("name", sorted(NASTY.keys() - PLANNED))
@in_virtual_time
async def test_what_resists_is_told_in_the_same_way(tmp_path: Path, name: str, kind: type[GatedWorker]) -> None:
    rerun = await ran_twice(Bench(tmp_path), kind(), kind(), name)
    assert without_addresses(rerun.replayed) == without_addresses(rerun.recorded)
