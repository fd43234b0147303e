"""How every job stood at a moment: told by the log where it is there, and rebuilt where compaction has been."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from headrace.core import snapshots
from headrace.core.records import repeat_header, source_header, status_header, version_header
from headrace.core.snapshots import Writer, version_of
from headrace.core.timestamps import format_timestamp
from headrace.errors import HistoryGone, WorkerUnknown
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from support.timed_jobs import put_at
from support.written_jobs import Engines, WrittenLog

ERROR = {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}
SECOND = 1_000
START = 1_000 * SECOND


def at(second: int) -> int:
    return START + second * SECOND


class Life:
    """A job of whose records each has the time that it tells of itself."""

    def __init__(self, engines: Engines, job_id: str, accepted: int, **fields: Any) -> None:
        self.engines = engines
        made = engines.enqueue(job_id, created=format_timestamp(at(accepted)), **fields)
        queue = engines.log.cluster.partition(engines.jobs(0))
        queue.records[-1] = type(made)(*engines.jobs(0), made.offset, at(accepted), made.key, made.value)
        self.job_id = job_id

    def write(self, second: int, move: Any, *arguments: Any, keep: bool = True, behind: int = 0) -> int:
        """A snapshot; returns its offset.

        Args:
            behind: so many seconds its engine's clock is behind the brokers'.
        """
        state = move(self.engines.snapshots[self.job_id], *arguments, format_timestamp(at(second - behind)))
        made = self.engines.write(state, keep=keep)
        partition = self.engines.log.cluster.partition(self.engines.state(0))
        partition.records[-1] = type(made)(
            made.topic, made.partition, made.offset, at(second), made.key, made.value, made.headers
        )
        return made.offset


async def told(history: LogHistory, second: int, *workers: str, **fields: str) -> dict[str, tuple[str, int, str]]:
    """Status, attempt and origin of each job at a moment."""
    return {
        each.job.id: (str(each.state["status"]), each.state["attempt"], each.origin)
        async for batch in states_at(history, at(second), workers=workers, fields=fields)
        for each in batch
    }


@pytest.fixture
def lives(engines: Engines) -> dict[str, list[int]]:
    """Three jobs; the offsets of each one's snapshots."""
    writer = Writer("one", engines.claim("one", -1))
    done, failed, _ = Life(engines, "done", 1), Life(engines, "failed", 2), Life(engines, "waiting", 50)
    return {
        "done": [
            done.write(10, lambda before, now: snapshots.running(before, writer, now)),
            done.write(20, snapshots.completed, {"n": 1}),
        ],
        "failed": [
            failed.write(11, lambda before, now: snapshots.running(before, writer, now)),
            failed.write(21, lambda before, now: snapshots.retried(before, ERROR, now, now)),
            failed.write(31, lambda before, now: snapshots.running(before, writer, now)),
            failed.write(41, lambda before, now: snapshots.failed(before, ERROR, now)),
        ],
    }


MOMENTS: dict[int, dict[str, tuple[str, int]]] = {
    1: {"done": ("queued", 0)},
    9: {"done": ("queued", 0), "failed": ("queued", 0)},
    10: {"done": ("running", 1), "failed": ("queued", 0)},
    20: {"done": ("completed", 1), "failed": ("running", 1)},
    30: {"done": ("completed", 1), "failed": ("queued", 1)},
    40: {"done": ("completed", 1), "failed": ("running", 2)},
    41: {"done": ("completed", 1), "failed": ("failed", 2)},
    99: {"done": ("completed", 1), "failed": ("failed", 2), "waiting": ("queued", 0)},
}


@pytest.mark.parametrize("second", MOMENTS)
async def test_a_moment_is_told_by_the_log_alone(lives: dict[str, list[int]], history: LogHistory, second: int) -> None:
    expected = {job_id: (*state, "log") for job_id, state in MOMENTS[second].items()}
    assert await told(history, second) == expected


@pytest.mark.parametrize("second", MOMENTS)
@pytest.mark.parametrize("left", [1, 2, 3])
async def test_a_moment_that_compaction_has_taken_is_rebuilt(
    engines: Engines, lives: dict[str, list[int]], history: LogHistory, second: int, left: int
) -> None:
    state = engines.log.cluster.partition(engines.state(0))
    times = {record.offset: record.timestamp for record in state.records}
    for offsets in lives.values():
        state.remove(offsets[:-left])
    expected = {}
    for job_id, stood in MOMENTS[second].items():
        offsets = lives.get(job_id, [])
        kept = offsets[-left:]
        whole = kept == offsets or times[kept[0]] <= at(second)
        expected[job_id] = (*stood, "log" if whole else "snapshot")
    assert await told(history, second) == expected


async def test_what_a_rebuilt_job_says_is_of_its_moment(
    engines: Engines, lives: dict[str, list[int]], history: LogHistory
) -> None:
    engines.log.cluster.partition(engines.state(0)).remove([*lives["done"][:-1], *lives["failed"][:-1]])
    found = {each.job.id: each async for batch in states_at(history, at(30)) for each in batch}
    state = found["failed"].state
    assert [each["status"] for each in state["attempts"]] == ["failed"] and "error" not in state
    assert (state["updatedAt"], state["startedAt"]) == (format_timestamp(at(21)), format_timestamp(at(11)))
    assert state["args"] == {"to": ["ann"]}


async def test_jobs_are_chosen_by_worker_and_by_what_they_were_then(
    log: WrittenLog, lives: dict[str, list[int]], history: LogHistory
) -> None:
    Engines(log, "other").enqueue("stranger")
    assert set(await told(history, 20)) == {"done", "failed", "stranger"}
    assert set(await told(history, 20, "other")) == {"stranger"}
    assert set(await told(history, 20, status="running")) == {"failed"}
    assert set(await told(history, 41, status="running")) == set()
    with pytest.raises(WorkerUnknown, match="'nobody'"):
        await told(history, 20, "nobody")


async def test_a_request_that_was_made_again_is_the_same_job(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    life = Life(engines, "job", 1)
    Life(engines, "job", 2)
    life.write(10, lambda before, now: snapshots.running(before, Writer("one", epoch), now))
    for second, status in ((5, "queued"), (15, "running")):
        found = [each async for batch in states_at(history, at(second)) for each in batch]
        assert [(each.job.id, each.job.offset, each.state["status"]) for each in found] == [("job", 0, status)]


async def test_void_records_count_for_nothing(engines: Engines, history: LogHistory) -> None:
    old = engines.claim("one", -1)
    life = Life(engines, "job", 1)
    life.write(10, lambda before, now: snapshots.running(before, Writer("one", old), now))
    engines.claim("two", old)
    life.write(20, snapshots.completed, None, keep=False)
    assert await told(history, 30) == {"job": ("running", 1, "log")}


async def test_what_a_janitor_repeats_was_true_before_it_did(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    life = Life(engines, "job", 1)
    life.write(10, lambda before, now: snapshots.running(before, Writer("one", epoch), now))
    offset = life.write(20, snapshots.completed, None)
    repeat(engines, 60)
    engines.log.cluster.partition(engines.state(0)).remove([offset])
    assert await told(history, 15) == {"job": ("running", 1, "log")}
    assert await told(history, 30) == {"job": ("completed", 1, "snapshot")}


@pytest.mark.parametrize("damaged", [False, True], ids=["readable", "damaged"])
@pytest.mark.parametrize("started", ["log", "snapshot"])
async def test_what_is_repeated_was_not_true_before_its_original_whatever_its_engines_clock_says(
    engines: Engines, history: LogHistory, started: str, damaged: bool
) -> None:
    """The engine's clock is half a minute behind, and the log has the end that a janitor has written once more."""
    epoch = engines.claim("one", -1)
    life = Life(engines, "job", 1)
    begin = life.write(40, lambda before, now: snapshots.running(before, Writer("one", epoch), now), behind=30)
    life.write(90, snapshots.completed, None, behind=30)
    repeat(engines, 150)
    state = engines.log.cluster.partition(engines.state(0))
    if damaged:
        state.records[-2] = replace(state.records[-2], value=b"{")
    if started == "snapshot":
        state.remove([begin])
    for second in (70, 89):
        assert await told(history, second) == {"job": ("running", 1, started)}
    if not damaged:
        assert await told(history, 90) == {"job": ("completed", 1, "log")}
        [ended] = [line for line in (await timeline_of(history, "job")).lines if line.event == "completed"]
        assert (ended.at, ended.origin) == (at(90), "log")


def repeat(engines: Engines, second: int) -> None:
    """A janitor writes the newest snapshot of the job once more."""
    made = engines.log.cluster.records(engines.state(0))[-1]
    version, status = version_of(engines.snapshots["job"]), engines.snapshots["job"]["status"]
    headers = (source_header(engines.worker, 0, 0), version_header(version), status_header(status), repeat_header(version))
    engines.log.put(engines.state(0), b"job", made.value, headers, timestamp=at(second))


async def test_a_moment_before_the_log_says_where_that_begins(
    engines: Engines, lives: dict[str, list[int]], history: LogHistory
) -> None:
    with pytest.raises(HistoryGone, match=r"begin at 1970-01-01T00:16:41.000Z\."):
        await told(history, 0)
    with pytest.raises(HistoryGone, match=r"The moment 2\d{3}-.* is still to come. The last job .* was accepted at 1970-"):
        await told(history, 4_000_000_000)


async def test_a_moment_at_which_jobs_ran_that_were_deleted_since_is_refused(
    engines: Engines, lives: dict[str, list[int]], log: WrittenLog, history: LogHistory
) -> None:
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    for second in (1, 2, 15, 99):
        with pytest.raises(HistoryGone, match=r"Jobs of send_digest that had ended before 2.* may have run .*: begin at 2"):
            await told(history, second)
    now = time.time_ns() // 1_000_000
    assert set(await told(history, (now - START) // SECOND)) == {"failed", "waiting"}, "it had ended long before"
    # As when jobs are kept for longer now than they were: what is left of it still tells.
    longer = LogHistory(log, log.topics, retention_seconds=time.time())
    for second in (2, 19):
        with pytest.raises(
            HistoryGone, match=r"job done, which ended at 1970-.*Z, was deleted.* from 1970-01-01T00:17:00.000Z on\."
        ):
            await told(longer, second)
    assert set(await told(longer, 20)) == {"failed"}
    elsewhere = next(number for number in range(8) if engines.state(number) != engines.state(0))
    put_at(engines, at(1), "other", elsewhere)
    engines.log.cluster.delete_records(engines.jobs(0), 3)
    with pytest.raises(HistoryGone, match=r"job done, .* was deleted"):
        await told(longer, 19)
    await longer.stop()
