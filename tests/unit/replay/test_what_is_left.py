"""Spans of which jobs may be missing, or that are to come: refused with what is left, and with where to begin."""

from __future__ import annotations

import re
import time

import pytest

from headrace.core import snapshots
from headrace.core.timestamps import parse_timestamp
from headrace.errors import HistoryGone
from headrace.replay.history import Span
from headrace.replay.inspection.state import states_at
from headrace.replay.recorded.log_history import LogHistory
from support.timed_jobs import ALWAYS, MINUTE, give_time, jobs, put_at
from support.written_jobs import Engines, WrittenLog


async def test_a_span_before_the_log_says_where_it_begins(engines: Engines, history: LogHistory) -> None:
    with pytest.raises(HistoryGone, match="No job of the namespace view-test is in the log"):
        await jobs(history)
    for number in range(4):
        put_at(engines, (100 + number) * MINUTE, f"job-{number}")
    with pytest.raises(
        HistoryGone,
        match=r"to 1970-01-01T01:40:00.000Z lies before .* came from 1970-01-01T01:40:00.000Z to 1970-01-01T01:43:00.000Z\.",
    ):
        await jobs(history, Span(0, 100 * MINUTE))
    assert len(await jobs(history, Span(0, 101 * MINUTE))) == 1, "nothing was deleted: all that ever was is there"
    engines.log.cluster.delete_records(engines.jobs(0), 2)
    with pytest.raises(HistoryGone, match=r"begin at 2.*Z, or as long as that job is there at 1970-01-01T01:42:00.000Z"):
        await jobs(history, Span(101 * MINUTE, ALWAYS.end))
    assert len(await jobs(history, Span(102 * MINUTE, 200 * MINUTE))) == 2
    engines.log.cluster.delete_records(engines.jobs(0), 4)
    with pytest.raises(HistoryGone, match="is in the log any more"):
        await jobs(history)


async def test_of_a_span_that_is_gone_it_is_not_said_where_to_begin(engines: Engines, history: LogHistory) -> None:
    for number in range(4):
        put_at(engines, (100 + number) * MINUTE, f"job-{number}")
    engines.log.cluster.delete_records(engines.jobs(0), 2)
    with pytest.raises(HistoryGone) as gone:
        await jobs(history, Span(90 * MINUTE, 102 * MINUTE))
    assert re.fullmatch(
        r"The whole span from 1970-01-01T01:30:00.000Z to 1970-01-01T01:42:00.000Z is gone: the jobs of the namespace view-test"
        r" that are left came from 1970-01-01T01:42:00.000Z to 1970-01-01T01:43:00.000Z. All that came since 2\S+Z is there\.",
        str(gone.value),
    )
    with pytest.raises(HistoryGone, match=r"at any time: begin at 1970-01-01T01:42:00.000Z, as long as that job is there\."):
        await jobs(history, Span(90 * MINUTE, 103 * MINUTE))
    # Another partition has some of it, and so nobody knows what this one had.
    put_at(engines, 95 * MINUTE, "old", 1)
    with pytest.raises(
        HistoryGone,
        match=r"is gone: jobs of send_digest that were accepted before 1970-01-01T01:42:00.000Z were deleted, and the first in"
        r" one of its partitions was accepted at 1970-01-01T01:42:00.000Z\. All that came since 2\S+Z is there\.",
    ):
        await jobs(history, Span(90 * MINUTE, 102 * MINUTE))


async def test_a_span_that_is_still_to_come_says_where_the_log_ends(engines: Engines, history: LogHistory) -> None:
    for number, partition in ((0, 0), (3, 1), (1, 0)):
        put_at(engines, (100 + number) * MINUTE, f"job-{number}", partition)
    now = time.time_ns() // 1_000_000
    with pytest.raises(HistoryGone, match=r"still to come.*last job of the namespace view-test.* 1970-01-01T01:43:00.000Z"):
        await jobs(history, Span(now + 60 * MINUTE, now + 120 * MINUTE))
    assert await jobs(history, Span(now - 60 * MINUTE, now)) == []
    put_at(engines, now + 70 * MINUTE, "ahead")
    assert [job.id for job in await jobs(history, Span(now + 60 * MINUTE, now + 120 * MINUTE))] == ["ahead"]


async def test_each_queue_of_which_something_was_deleted_is_judged_by_itself(engines: Engines, history: LogHistory) -> None:
    put_at(engines, 50 * MINUTE, "old", 1)
    for number in range(2):
        put_at(engines, (100 + number) * MINUTE, f"job-{number}")
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    with pytest.raises(HistoryGone, match=r"first job of send_digest .* at 1970-01-01T01:41:00.000Z, .*: begin at 2"):
        await jobs(history, Span(60 * MINUTE, ALWAYS.end))
    assert [job.id for job in await jobs(history, Span(101 * MINUTE, 200 * MINUTE))] == ["job-1"]
    engines.log.cluster.delete_records(engines.jobs(0), 2)
    with pytest.raises(HistoryGone, match=r"send_digest .* were deleted: .* is still to come\. Begin at 2"):
        await jobs(history, Span(60 * MINUTE, ALWAYS.end))
    with pytest.raises(HistoryGone, match=r"is gone: jobs of send_digest .* is still to come\. All that came since 2"):
        await jobs(history, Span(40 * MINUTE, 200 * MINUTE))


async def test_what_is_young_is_there_whatever_was_deleted(engines: Engines, history: LogHistory) -> None:
    now = time.time_ns() // 1_000_000
    put_at(engines, now - 20 * 24 * 60 * MINUTE, "old")
    put_at(engines, now - MINUTE, "young")
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    assert [job.id for job in await jobs(history, Span(now - 60 * MINUTE, now))] == ["young"]
    with pytest.raises(HistoryGone, match=r"send_digest .* were deleted: .* was accepted at"):
        await jobs(history, Span(now - 8 * 24 * 60 * MINUTE, now))


async def test_a_span_of_a_millisecond_is_a_span(engines: Engines, history: LogHistory) -> None:
    """And no question of how all stood then, which is about jobs of before, too."""
    for number in range(3):
        put_at(engines, (100 + number) * MINUTE, f"job-{number}")
    to_come = time.time_ns() // 1_000_000 + 30 * MINUTE
    with pytest.raises(HistoryGone, match=r"The span from .* is still to come\."):
        await jobs(history, Span(to_come, to_come + 1))
    assert len([each async for batch in states_at(history, to_come) for each in batch]) == 3

    engines.log.cluster.delete_records(engines.jobs(0), 1)
    at = 102 * MINUTE
    assert [job.id for job in await jobs(history, Span(at, at + 1))] == ["job-2"]
    with pytest.raises(HistoryGone, match=r"were deleted, and may have run at the moment 1970-01-01T01:42:00\.000Z"):
        [each async for each in states_at(history, at)]
    with pytest.raises(HistoryGone, match=r"The whole span from .* is gone"):
        await jobs(history, Span(90 * MINUTE, 90 * MINUTE + 1))


async def test_what_was_deleted_too_early_is_missed_where_its_state_is_left(log: WrittenLog, engines: Engines) -> None:
    # As when jobs are kept for longer now than they were.
    history = LogHistory(log, log.topics, retention_seconds=time.time())
    put_at(engines, 50 * MINUTE, "old", 1, created="1970-01-01T00:50:00.000Z")
    put_at(engines, 100 * MINUTE, "gone", created="1970-01-01T01:40:00.000Z")
    epoch = engines.claim("one", -1)
    begun = snapshots.running(engines.snapshots["gone"], snapshots.Writer("one", epoch), "1970-01-01T01:40:01.000Z")
    engines.write(begun)
    give_time(engines, 0, 100 * MINUTE)
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    told = r"job gone, accepted at 1970-01-01T01:40:00.000Z, was deleted .*"
    with pytest.raises(HistoryGone, match=told + r"Begin after 1970-01-01T01:40:00.000Z\."):
        await jobs(history, Span(99 * MINUTE, 200 * MINUTE))
    assert await jobs(history, Span(100 * MINUTE + 1, 200 * MINUTE)) == []
    put_at(engines, 110 * MINUTE, "left")
    put_at(engines, 120 * MINUTE, "later")
    with pytest.raises(HistoryGone, match=told + r"Begin at 1970-01-01T01:50:00.000Z\."):
        await jobs(history, Span(99 * MINUTE, 200 * MINUTE))
    assert [job.id for job in await jobs(history, Span(110 * MINUTE, 200 * MINUTE))] == ["left", "later"]


@pytest.mark.parametrize("left", [None, 30 * MINUTE, -MINUTE])
@pytest.mark.parametrize("is_moment", [False, True])
async def test_what_a_refused_span_is_told_is_good_for_an_hour(
    engines: Engines, history: LogHistory, monkeypatch: pytest.MonkeyPatch, left: int | None, is_moment: bool
) -> None:
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    begin = history.kept_from - 5 * MINUTE
    put_at(engines, begin - MINUTE, "old", 1)
    put_at(engines, begin - MINUTE, "gone")
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    if left is not None:
        put_at(engines, history.kept_from + left, "first")

    async def ask(at: int) -> None:
        if is_moment:
            assert [each async for each in states_at(history, at)]
        else:
            await jobs(history, Span(at, at + 8 * 24 * 60 * MINUTE))

    with pytest.raises(HistoryGone) as refused:
        await ask(begin)
    found = re.search(r"[bB]egin at (\S+Z)", str(refused.value))
    assert found is not None
    await ask(parse_timestamp(found[1]))
    clock += 55 * 60
    engines.log.cluster.delete_records(engines.jobs(0), engines.log.cluster.partition(engines.jobs(0)).end)
    await ask(parse_timestamp(found[1]))
