"""A job whose process died twice while it ran runs apart, and is given up after the third time (rule X1)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import Job, JobContext
from headrace.core import snapshots
from headrace.core.snapshots import ISOLATED_FROM
from headrace.dead_letters.letters import DeadLetter, dead_letter_of
from headrace.engine.partition import Work
from headrace.engine.processes import ProcessPool, ProcessRoom, process_pools
from headrace.testing import InMemoryLog
from support.engines import eventually as eventually_async
from support.leases import Instance, caught, engine, lease_bench, of_status
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, STATE, Bench, GatedWorker, ended, passing
from support.process_workers import Behaves, InLoop
from support.virtual_time import in_virtual_time
from unit.engine.test_processes import children, end_of, running


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


def process_died(bench: Bench, job_id: str, times: int, *, reason: str = "died", apart: bool = False) -> None:
    """So many processes ran the job and ended, which their supervisors say.

    Args:
        apart: whether the job was in a process of its own, as soon as it had to be.
    """
    before: dict[str, Any] | None = None
    for number in range(times):
        instance = Instance(bench, f"dead-{number}")
        instance.claim()
        state = before or instance.accepted(job_id)
        if number:
            state = snapshots.crashed(state) if reason == "died" else state
        if apart and snapshots.is_isolated(state):
            state = {**state, "isolated": True}
        before = instance.begin(state)
        instance.release(reason)


def letters(bench: Bench) -> list[DeadLetter]:
    return [dead_letter_of(record) for record in bench.cluster.topic_records(DEAD_LETTERS)]


@in_virtual_time
async def test_a_job_that_took_three_processes_with_it_is_a_dead_letter_and_has_failed(bench: Bench) -> None:
    worker = GatedWorker()
    job_id, behind, other = bench.enqueue("bad", key="k"), bench.enqueue("behind", key="k"), bench.enqueue("other")
    process_died(bench, job_id, 3)
    async with engine(bench, worker):
        await eventually(lambda: bench.has_completed(behind, other), "the ends of its neighbours")
        job = ended(bench, job_id)
    assert sorted(worker.names_started()) == ["behind", "other"]
    assert (job.status, job.crashes, job.failures, job.attempt) == ("failed", 3, 0, 3)
    assert job.error is not None and job.error.type == "poison"
    assert job.error.message == "3 processes died while the job ran in them, and no other is put at risk"
    assert [each.status for each in job.attempts] == ["interrupted"] * 3
    [letter] = letters(bench)
    assert (letter.reason, letter.job_id, letter.attempt, letter.message) == ("poison", job_id, 3, job.error.message)
    assert letter.error_type == "headrace.errors.WorkerProcessDied"
    assert (letter.record() or {})["id"] == job_id
    states = [(record.key, record.offset) for record in bench.cluster.records(bench.state())]
    first_of_behind = min(offset for key, offset in states if key == behind.encode())
    assert max(offset for key, offset in states if key == job_id.encode()) < first_of_behind, "its key waited for its end"


@in_virtual_time
async def test_what_ends_otherwise_than_by_a_death_does_not_count(bench: Bench) -> None:
    worker = GatedWorker()
    job_id = bench.enqueue("good")
    process_died(bench, job_id, 5, reason="stopped")
    async with engine(bench, worker):
        await eventually(lambda: bench.has_completed(job_id), "its end")
        assert (ended(bench, job_id).crashes, ended(bench, job_id).attempt) == (0, 6)


@in_virtual_time
async def test_the_jobs_of_its_key_wait_until_the_letter_and_the_end_of_a_poison_job_are_acknowledged(bench: Bench) -> None:
    worker = GatedWorker()
    job_id, behind, other = bench.enqueue("bad", key="k"), bench.enqueue("behind", key="k"), bench.enqueue("other")
    process_died(bench, job_id, 3)
    letter = bench.cluster.hold_acknowledgements(DEAD_LETTERS)
    end = bench.cluster.hold_acknowledgements(STATE, matching=of_status("failed"))
    async with engine(bench, worker):
        for held in (letter, end):
            await caught(held)
            await passing(2)
            assert (worker.names_started(), bench.committed()) == (["other"], 0)
            assert bench.has_completed(other) and bench.statuses(behind) == []
            held.release()
        await eventually(lambda: bench.has_completed(behind), "the end of the next of its key")
    assert ended(bench, job_id).status == "failed"


@in_virtual_time
@pytest.mark.parametrize("room", [100, 1], ids=["taken in, and waiting", "not even taken in"])
async def test_a_count_outlives_owners_that_never_came_to_the_job(bench: Bench, room: int) -> None:
    """The second owner does not start the job, and dies; only its checkpoint tells the third of the deaths before."""
    bench.settings = bench.settings.model_copy(
        update={"engine": bench.settings.engine.model_copy(update={"buffer_per_partition": room})}
    )
    blocked, last = GatedWorker(concurrency=1), GatedWorker()
    blocked.close_gate("first")
    first, *_, job_id = [bench.enqueue(name, key="k") for name in ("first", "second", "third", "fourth", "bad")]
    process_died(bench, job_id, 1)
    log = InMemoryLog(bench.cluster, session_timeout=6.0)
    async with engine(bench, blocked, log):
        await eventually(lambda: blocked.running == ["first"], "the start of what stands before it")
        await passing(30)
        log.cut_off()
        async with engine(bench, last):
            await passing(60)
            await eventually(lambda: bench.has_completed(first, job_id), "all ends")
            assert [ended(bench, each).crashes for each in (first, job_id)] == [0, 1]
        blocked.open_gate("first")


class Counted:
    """The processes of a worker; notes how many of the engine's are there when an attempt begins."""

    def __init__(self, pool: ProcessPool, counts: list[int]) -> None:
        self._pool = pool
        self._counts = counts
        self.can_run, self.close = pool.can_run, pool.close

    async def run(self, work: Work, ctx: JobContext, *, alone: bool, begun: Callable[[], None]) -> Any:
        def noted() -> None:
            self._counts.append(len(children()))
            begun()

        return await self._pool.run(work, ctx, alone=alone, begun=noted)


@pytest.mark.parametrize("room", [{"alone": 2, "starting": 6}, {"alone": 6, "starting": 1}])
async def test_many_that_are_isolated_at_once_wait_for_room(bench: Bench, room: dict[str, int]) -> None:
    jobs = [bench.enqueue("pid") for _ in range(6)]
    states: list[dict[str, Any]] = []
    for number in range(ISOLATED_FROM):
        instance = Instance(bench, f"dead-{number}")
        instance.claim()
        states = [instance.begin(snapshots.crashed(state)) for state in states] or [
            instance.begin(instance.accepted(job)) for job in jobs
        ]
        instance.release("died")
    counts: list[int] = []
    pools = process_pools(ProcessRoom(**room))
    async with running(bench, InLoop(), processes=lambda worker: Counted(pools(worker), counts)):
        ends = [await end_of(bench, job) for job in jobs]
    assert [(end.status, end.crashes) for end in ends] == [("completed", ISOLATED_FROM)] * 6
    assert len(counts) == 6
    # When the first begins, the next may have been started beside it.
    assert (max(counts) if room["alone"] == 2 else counts[0]) <= 2


async def test_from_the_second_death_on_it_runs_in_a_process_of_its_own(bench: Bench) -> None:
    worker = InLoop()
    once, twice = bench.enqueue("pid"), bench.enqueue("pid")
    process_died(bench, once, 1)
    process_died(bench, twice, ISOLATED_FROM)
    async with running(bench, worker):
        before, isolated = await end_of(bench, once), await end_of(bench, twice)
        assert (before.result, before.crashes) == (os.getpid(), 1)
        assert isolated.result != os.getpid()
        assert (isolated.status, isolated.crashes) == ("completed", 2)
        assert children() == [], "a process of its own is for no other attempt"


async def test_a_job_beside_which_ten_engines_died_is_poison_though_it_ran_in_a_process_of_its_own(bench: Bench) -> None:
    spared, given_up = bench.enqueue("pid"), bench.enqueue("pid")
    process_died(bench, given_up, ISOLATED_FROM + 10, apart=True)
    process_died(bench, spared, ISOLATED_FROM + 9, apart=True)
    async with running(bench, InLoop()):
        job, other = await end_of(bench, given_up), await end_of(bench, spared)
    assert (job.status, job.crashes, job.engine_deaths, job.failures) == ("failed", 2, 10, 0)
    assert job.error is not None and job.error.type == "poison"
    assert (
        job.error.message == "2 processes died while the job ran in them, and 10 engines beside it, and no other is put at risk"
    )
    assert [letter.job_id for letter in letters(bench)] == [given_up]
    assert (other.status, other.crashes, other.engine_deaths) == ("completed", 2, 9)


@pytest.mark.parametrize("worker", [InLoop(), Behaves()], ids=["in the loop", "in processes"])
async def test_a_death_in_isolation_is_the_last_and_its_neighbours_go_on(bench: Bench, worker: GatedWorker) -> None:
    job_id, behind, beside = bench.enqueue("killed", key="k"), bench.enqueue("behind", key="k"), bench.enqueue("beside")
    process_died(bench, job_id, ISOLATED_FROM)
    async with running(bench, worker):
        job = await end_of(bench, job_id)
        for each in (behind, beside):
            assert (await end_of(bench, each)).status == "completed"
    assert (job.status, job.crashes, job.attempt, job.failures) == ("failed", 3, 3, 0)
    assert [each.status for each in job.attempts] == ["interrupted"] * 3
    assert job.attempts[-1].error is not None and "signal 9" in job.attempts[-1].error.message
    assert [letter.reason for letter in letters(bench)] == ["poison"]


async def test_as_many_deaths_as_the_setting_has_it(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(
        update={"engine": bench.settings.engine.model_copy(update={"max_crashes": 4, "grace_seconds": 0.0})}
    )
    job_id = bench.enqueue("exit")
    process_died(bench, job_id, ISOLATED_FROM)
    async with running(bench, InLoop()):
        job: Job = await end_of(bench, job_id)
    assert (job.status, job.crashes, job.attempt) == ("failed", 4, 4)


async def test_what_fails_or_takes_too_long_in_isolation_does_so_as_everywhere(bench: Bench) -> None:
    fails, slow = bench.enqueue("unheard"), bench.enqueue("waits", attemptTimeout=0.3)
    for each in (fails, slow):
        process_died(bench, each, ISOLATED_FROM)
    async with running(bench, InLoop()):
        [failed, late] = [await end_of(bench, each) for each in (fails, slow)]
    assert (failed.crashes, failed.failures, failed.error and failed.error.message) == (2, 1, "1 and 2")
    assert (late.crashes, late.failures, late.error and late.error.type) == (2, 1, "headrace.errors.JobTimeout")
    assert letters(bench) == []


async def test_a_worker_that_no_process_can_import_gets_its_last_chance_in_the_engine(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Local(InLoop):
        pass

    job_id = bench.enqueue("pid")
    process_died(bench, job_id, ISOLATED_FROM)
    async with running(bench, Local()):
        assert (await end_of(bench, job_id)).result == os.getpid()
    assert "define it at the top of a module" in caplog.text


async def test_a_letter_that_cannot_be_written_leaves_the_job_to_the_next_claim(bench: Bench) -> None:
    job_id = bench.enqueue("bad")
    process_died(bench, job_id, 3)
    bench.cluster.refuse_appends(DEAD_LETTERS)
    async with running(bench, GatedWorker()):

        async def look() -> bool:
            return bench.state_of(job_id) is not None and (bench.state_of(job_id) or {})["status"] == "failed"

        await eventually_async(look)
    assert [letter.reason for letter in letters(bench)] == ["poison"]


async def test_the_last_death_is_written_before_the_letter(bench: Bench) -> None:
    """Whoever has the job next knows of it, and puts no further process at risk."""
    job_id = bench.enqueue("killed")
    process_died(bench, job_id, ISOLATED_FROM)
    hold = bench.cluster.hold_appends(DEAD_LETTERS)
    async with running(bench, InLoop()):
        await hold.caught()
        state = bench.state_of(job_id) or {}
        assert (state["status"], state["crashes"], state["attempt"]) == ("queued", 3, 3)
    assert letters(bench) == []
    bench.cluster.end_faults()
    async with running(bench, InLoop()):
        job = await end_of(bench, job_id)
    assert (job.status, job.crashes, job.attempt) == ("failed", 3, 3)
