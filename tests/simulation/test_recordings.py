"""Recordings in a simulation: whatever a seed draws, an answer is in the log before its job has it, and is paid for once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from headrace.core.topics import Topics
from headrace.job_context import JobContext
from headrace.recordings import parse_recording_key
from headrace.testing.simulation import FaultKind, Scenario, simulate
from headrace.testing.simulation.kinds import DRAWN
from headrace.testing.simulation.surroundings import NAMESPACE
from headrace.testing.simulation.workload import SimulatedWorker, WorkArguments

RECORDINGS = Topics(NAMESPACE).recordings.name
# Where a job's recordings begin is told by clocks, which may differ by a minute.
CLOCKS = {FaultKind.CLOCK_AHEAD, FaultKind.CLOCK_BACK, FaultKind.BROKER_CLOCK, FaultKind.SUSPENDED}
SEEDS = range(12)


class Payments:
    """What simulated jobs asked outside for, and were handed.

    Attributes:
        paid: how often one asked.
        reused: how often one took what an earlier attempt had paid for.
        wrong: what must not be.
    """

    def __init__(self) -> None:
        self.paid = 0
        self.reused = 0
        self.wrong: list[str] = []
        self._handed: dict[str, list[str]] = {}

    async def ask(self, worker: SimulatedWorker, ctx: JobContext) -> None:
        """Asks for something in an attempt."""
        job_id, before = ctx.job.id, list(self._handed.get(ctx.job.id, ()))

        def pay() -> str:
            self.paid += 1
            if before:
                self.wrong.append(f"attempt {ctx.attempt} of {job_id} pays again for what {before} had paid for")
            return f"{ctx.fencing_token}"

        answer = await ctx.recorded("model", pay, reuse=True)
        records = worker._host.log.cluster.topic_records(RECORDINGS)
        known = {(place.job_id, record.value) for record in records if (place := parse_recording_key(record.key)) is not None}
        if (job_id, f'"{answer}"'.encode()) not in known:
            self.wrong.append(f"attempt {ctx.attempt} of {job_id} was handed {answer}, which is not in the log")
        self.reused += answer != f"{ctx.fencing_token}"
        self._handed.setdefault(job_id, []).append(answer)


@pytest.fixture
def payments(monkeypatch: pytest.MonkeyPatch) -> Payments:
    made = Payments()
    work: Callable[..., Any] = SimulatedWorker.work

    async def asks_first(worker: SimulatedWorker, args: WorkArguments, ctx: JobContext, *, apart: bool) -> Any:
        await made.ask(worker, ctx)
        return await work(worker, args, ctx, apart=apart)

    monkeypatch.setattr(SimulatedWorker, "work", asks_first)
    return made


def test_an_answer_is_in_the_log_before_its_job_has_it_and_is_paid_for_once(payments: Payments) -> None:
    for seed in SEEDS:
        scenario = Scenario.of(seed)
        report = simulate(dataclasses.replace(scenario, faults=(scenario.faults & DRAWN) - CLOCKS))
        assert [str(violation) for violation in report.violations] == []
        assert payments.wrong == [], seed
    assert payments.paid > 100
    assert payments.reused > 10
