"""Whatever a worker raises, its job ends: in the event loop, in a thread, in a process. A fault of ours ends the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import WorkerEngine
from headrace.core.status import IllegalMove
from headrace.engine.dispatcher import Dispatcher
from headrace.engine.guarding import Guard
from headrace.engine.outcomes import Outcomes
from headrace.testing import InMemoryLog
from support.log import eventually
from support.memory_engines import Bench, GatedWorker, ended, passing
from support.nasty import NASTY, NastyInProcess, NastyInThread, NastyWorker
from support.virtual_time import in_virtual_time, run_in_virtual_time
from unit.engine.test_processes import end_of, running


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("name", NASTY)
@in_virtual_time
async def test_a_job_that_raises_it_in_the_event_loop_ends(bench: Bench, name: str, waits: bool) -> None:
    await ends(bench, NastyWorker(), name, waits=waits)


@pytest.mark.parametrize("name", NASTY)
@in_virtual_time
async def test_a_job_that_raises_it_in_a_thread_ends(bench: Bench, name: str) -> None:
    await ends(bench, NastyInThread(), name)


async def ends(bench: Bench, worker: GatedWorker, name: str, **args: Any) -> None:
    async with bench.engine(worker) as engine:
        job_id = bench.enqueue(name, key="k", args={"name": name, **args})
        behind = bench.enqueue("behind", key="k")
        await eventually(lambda: bench.has_completed(behind), "the end of the job behind it")
        job = ended(bench, job_id)
        assert job.status == "failed" and job.error is not None and job.error.message is not None
        assert engine.statistics[worker.name].ended == 2
        await passing(1)
        assert bench.committed() == 2


@in_virtual_time
async def test_what_resists_is_named_with_what_came_of_looking_at_it(bench: Bench) -> None:
    async with bench.engine(NastyWorker()):
        resisting, delegating, coded = bench.enqueue("guarded"), bench.enqueue("delegating"), bench.enqueue("coded-retry")
        await passing(60)
        error = ended(bench, resisting).error
        assert error is not None and error.type == "headrace.errors.JobFailed"
        assert error.message == (
            "The worker raised <class 'support.nasty.Guarded'>, and to look at that raised <class 'LookupError'>: no __class__"
        )
        assert ended(bench, delegating).failures == ended(bench, coded).failures == 2, "its retries are those of its policy"


@given(names=st.lists(st.sampled_from(sorted(NASTY)), min_size=1, max_size=8), together=st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_of_them_in_one_turn_of_the_loop_end_beside_each_other(tmp_path: Path, names: list[str], together: bool) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        async with bench.engine(NastyWorker()):
            jobs = [bench.enqueue(name, key="k" if together else None) for name in names]
            good = bench.enqueue("good", key="k" if together else None)
            await eventually(lambda: bench.has_completed(good), "the end of the last")
            await passing(60)
            assert {ended(bench, job).status for job in jobs} == {"failed"}

    run_in_virtual_time(scenario())


@pytest.mark.long
async def test_jobs_that_raise_it_in_a_process_end_and_the_process_goes_on(bench: Bench) -> None:
    async with running(bench, NastyInProcess()):
        jobs = {name: bench.enqueue(name) for name in NASTY}
        for name, job_id in jobs.items():
            job = await end_of(bench, job_id)
            assert job.status == "failed" and job.error is not None, name
            assert not job.error.type.endswith("WorkerProcessDied"), name


@pytest.mark.parametrize("waits", [False, True])
@in_virtual_time
async def test_a_fault_of_ours_at_the_end_of_an_attempt_ends_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    def fault(*_: Any) -> None:
        raise IllegalMove("a fault in headrace itself")

    monkeypatch.setattr(Outcomes, "write", fault)
    await crashes(bench, waits=waits)


@in_virtual_time
async def test_a_fault_of_ours_in_a_callback_of_the_journal_ends_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: Any) -> None:
        raise IllegalMove("a fault in headrace itself")

    monkeypatch.setattr(Dispatcher, "_ended", fault)
    await crashes(bench)


@in_virtual_time
async def test_a_fault_of_ours_in_a_rebalance_ends_the_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> None:
        raise IllegalMove("a fault in headrace itself")

    monkeypatch.setattr(Dispatcher, "suspend", fault)
    async with bench.engine(NastyWorker()) as engine:
        other = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster))
        other.register_worker(NastyWorker())
        await other.start()
        async with asyncio.timeout(120):
            await engine.ended()
        await other.stop(grace_seconds=0)


async def crashes(bench: Bench, **args: Any) -> None:
    async with bench.engine(NastyWorker()) as engine:
        bench.enqueue("good", args={"name": "good", **args})
        async with asyncio.timeout(30):
            assert "a fault in headrace itself" in str(await engine.ended())


def test_a_guarded_callback_raises_nothing_and_tells() -> None:
    told: list[BaseException] = []
    error = ValueError("boom")

    def fails() -> None:
        raise error

    Guard(told.append)(fails)()
    assert told == [error]
