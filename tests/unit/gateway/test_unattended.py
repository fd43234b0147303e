"""The operator is told of jobs that are accepted for a worker that no engine runs, and not of each."""

from __future__ import annotations

import pytest

from headrace_gateway.operations import Operations, Unattended
from support.access import a_principal
from support.jobs import DIGEST_WORKER, MEMORY_WORKER, InMemoryJobs

FIRST, SECOND = DIGEST_WORKER.name, MEMORY_WORKER.name


class Clock:
    """Seconds that stand until they are set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has; it is empty then."""
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


async def test_once_a_minute_for_each_worker(caplog: pytest.LogCaptureFixture) -> None:
    clock, jobs = Clock(), InMemoryJobs()
    unattended = Unattended(jobs, clock)
    for _ in range(3):
        await unattended.accepted(FIRST)
    await unattended.accepted(SECOND)
    first, second = lines(caplog)
    assert (repr(FIRST) in first, repr(SECOND) in second) == (True, True)
    assert "No engine runs the worker" in first
    clock.now += 59.0
    await unattended.accepted(FIRST)
    assert lines(caplog) == []
    clock.now += 1.0
    await unattended.accepted(FIRST)
    [again] = lines(caplog)
    assert again.endswith(": 4."), "two with the first line's, and two since"


async def test_nothing_of_one_that_an_engine_runs_until_none_does(caplog: pytest.LogCaptureFixture) -> None:
    clock, jobs = Clock(), InMemoryJobs(live={FIRST: 1})
    unattended = Unattended(jobs, clock)
    await unattended.accepted(FIRST)
    jobs.live = {}
    clock.now += 0.5
    await unattended.accepted(FIRST)
    assert lines(caplog) == [], "it was looked at a moment ago"
    clock.now += 0.5
    await unattended.accepted(FIRST)
    assert len(lines(caplog)) == 1


async def test_every_accepted_job_counts(caplog: pytest.LogCaptureFixture) -> None:
    jobs = InMemoryJobs()
    operations = Operations(jobs, a_principal("ann"), unattended=Unattended(jobs))
    await operations.enqueue(FIRST, {"to": ["ann"]})
    assert len(lines(caplog)) == 1
