"""Attempts in child processes: they can be killed, and whatever becomes of one costs its attempt alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace import ConfigurationError, Job, RetryPolicy, WorkerEngine
from headrace.recordings import live
from support.engines import eventually as eventually_async
from support.late_workers import GATE, TOO_LATE, ImportedLate
from support.memory_engines import TOPICS, Bench, GatedWorker, ended, loop_clock, wall_clock
from support.process_workers import Behaves, BehavesAsync, NoWorker, Overridden, Unheard, kept
from support.processes import alive

PATIENCE_SECONDS = 60.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@asynccontextmanager
async def running(bench: Bench, worker: GatedWorker, **engine: Any) -> AsyncIterator[WorkerEngine]:
    """An engine with real processes, in real time."""
    from headrace.testing import InMemoryLog

    made = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster), **engine)
    made.register_worker(worker)
    await made.start()
    try:
        yield made
    finally:
        await made.stop(grace_seconds=0)
        assert children() == [], "no process outlives its engine"


def children() -> list[int]:
    """The child processes of this process that are an engine's."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it ends in this moment
            if "headrace.engine.processes" in " ".join(each.cmdline()):
                found.append(each.pid)
    return found


async def end_of(bench: Bench, job_id: str) -> Job:
    async def look() -> Job | None:
        state = bench.state_of(job_id)
        return ended(bench, job_id) if state is not None and state["status"] in ("completed", "failed") else None

    return await eventually_async(look, within=PATIENCE_SECONDS)


async def result_of(bench: Bench, name: str, **fields: Any) -> Job:
    return await end_of(bench, bench.enqueue(name, **fields))


async def test_attempts_run_in_processes_that_are_kept_and_replaced_when_they_die(bench: Bench) -> None:
    async with running(bench, Behaves()):
        first = await result_of(bench, "pid")
        again = await result_of(bench, "pid")
        assert first.result == again.result != os.getpid()
        assert children() == [first.result]
        for name, how in (
            ("segfault", "was killed by signal 11 (SIGSEGV)"),
            ("exit", "ended with exit code 3"),
            ("killed", "was killed by signal 9 (SIGKILL), as the system does when memory runs out"),
            ("grandchild", "ended with exit code 7"),
            ("aborts", "was killed by signal 6 (SIGABRT)"),
        ):
            died = await result_of(bench, name)
            assert died.status == "failed" and died.error is not None
            assert died.error.type == "headrace.errors.WorkerProcessDied"
            assert how in died.error.message
            assert (died.failures, died.crashes) == (1, 0)
        other = await result_of(bench, "pid")
        assert other.result not in (first.result, os.getpid())
        assert not alive(first.result)


async def test_a_death_is_a_failure_and_the_policy_decides_what_follows(bench: Bench) -> None:
    worker = Behaves()
    worker.retry = RetryPolicy(max_attempts=2, initial=0.01)
    async with running(bench, worker):
        job = await result_of(bench, "exit")
        assert [(each.status, each.error and each.error.type) for each in job.attempts] == [
            ("failed", "headrace.errors.WorkerProcessDied")
        ] * 2


async def test_an_attempt_records_through_its_engine(bench: Bench) -> None:
    clocks: dict[str, Any] = {"clock": loop_clock, "now": wall_clock}
    async with running(bench, Behaves(), **clocks):
        job = await result_of(bench, "records")
        [found, beginning, now] = job.result
        assert found[1] == 1 and beginning == "x", "of the first attempt"
        assert datetime.fromisoformat(now) == job.attempts[1].started_at
        failed = await result_of(bench, "records-a-failure")
        assert failed.result == ["integer division or modulo by zero", 2]
        refused = await result_of(bench, "records-no-json")
        assert refused.error is not None and refused.error.type == "headrace.errors.RecordingRefused"
    async with running(bench, BehavesAsync(), **clocks):
        many = await result_of(bench, "records-many")
        assert len(many.result) == 20 and set(many.result) != {os.getpid()}
        blocked = await result_of(bench, "records")
        assert blocked.error is not None and "await recorded()" in blocked.error.message
    keys = [record.key or b"" for record in bench.cluster.topic_records(TOPICS.recordings.name)]
    assert sorted(keys) == sorted(
        [
            *(f"{job.id}/1/model/0".encode(), f"{job.id}/2/large/0".encode()),
            *(f"{failed.id}/1/model/0/0".encode(), f"{failed.id}/1/model/0".encode(), f"{refused.id}/1/model/0/0".encode()),
            *(f"{many.id}/1/model/{n}".encode() for n in range(20)),
        ]
    )


async def test_brokers_that_take_no_recording_interrupt_an_attempt_in_a_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = live._APPEND_SECONDS
    monkeypatch.setattr(live, "_APPEND_SECONDS", 0.1)
    held = bench.cluster.hold_acknowledgements(TOPICS.recordings.name)
    async with running(bench, BehavesAsync(), clock=loop_clock, now=wall_clock):
        job_id = bench.enqueue("records-many")

        async def interrupted() -> bool:
            return "queued" in bench.statuses(job_id)

        await eventually_async(interrupted, within=PATIENCE_SECONDS)
        monkeypatch.setattr(live, "_APPEND_SECONDS", patience)
        held.release()
        job = await end_of(bench, job_id)
    assert (job.status, job.failures) == ("completed", 0)
    assert job.attempts[0].status == "interrupted"


async def test_what_is_returned_and_raised_is_as_in_a_thread(bench: Bench) -> None:
    worker = Behaves()
    worker.retry = RetryPolicy(max_attempts=3, initial=0.01, retry_on=(Unheard,), give_up_on=("builtins.MemoryError",))
    async with running(bench, worker):
        assert (await result_of(bench, "none")).result is None
        assert len((await result_of(bench, "large")).result) == 500_000
        huge = await result_of(bench, "huge")
        assert huge.error is not None and huge.error.type == "headrace.errors.ResultTooLarge"
        strange = await result_of(bench, "no-json")
        assert strange.error is not None and "is no JSON" in strange.error.message
        assert strange.error.type == "headrace.errors.ResultInvalid"
        unheard = await result_of(bench, "unheard")
        assert unheard.failures == 3, "its class is known by its name"
        assert unheard.error is not None
        assert (unheard.error.type, unheard.error.message) == ("support.process_workers.Unheard", "1 and 2")
        assert "raise Unheard(1, 2)" in (unheard.error.traceback or "")
        assert "headrace/engine" not in (unheard.error.traceback or "")
        busy = await result_of(bench, "busy")
        assert (busy.status, busy.result, busy.failures) == ("completed", 2, 1)
        assert busy.attempts[0].error is not None and busy.attempts[0].error.type == "support.process_workers.Busy"
        gave_up = await result_of(bench, "give-up")
        assert (gave_up.status, gave_up.failures) == ("failed", 1)
        for name, kind in (("group", "ExceptionGroup"), ("generator-exit", "GeneratorExit")):
            strange = await result_of(bench, name)
            assert strange.error is not None and strange.error.type == kind
        memory = await result_of(bench, "memory")
        assert memory.error is not None and memory.error.type == "MemoryError"
        left = await result_of(bench, "sys-exit")
        assert left.error is not None and "tried to end the process" in left.error.message


async def test_the_context_is_that_of_the_attempt(bench: Bench) -> None:
    async with running(bench, Behaves()):
        job = await result_of(bench, "context", key="k")
        assert job.result["id"] == job.id
        assert job.result["args"] == {"name": "context"}
        assert (job.result["status"], job.result["attempt"], job.result["token"]) == ("running", 1, [job.epoch, 1])
        none = await result_of(bench, "memory-of-conversations")
        assert none.error is not None and none.error.type == "headrace.errors.MemoryStoreError"


async def test_progress_and_what_is_logged_come_from_the_child(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with running(bench, Behaves()):
        job = await result_of(bench, "progress")
        assert job.progress is not None and (job.progress.fraction, job.progress.text) == (1.0, "100 of 100")
        await result_of(bench, "logs")
    [said, traced] = [record for record in caplog.records if record.name == "headrace.job"]
    assert (said.getMessage(), said.levelno) == ("from afar", logging.WARNING)
    assert (vars(said)["worker"], vars(said)["attempt"]) == ("gated", 1)
    assert said.process != os.getpid()
    assert "Unheard: 3 and 4" in (traced.exc_text or "")
    assert "not loud enough" not in caplog.text


@pytest.mark.parametrize("name", ["blocks", "sleeps"])
async def test_an_attempt_that_takes_too_long_is_killed(bench: Bench, tmp_path: Path, name: str) -> None:
    async with running(bench, Behaves()):
        warm = await result_of(bench, "pid")
        begun = time.monotonic()
        job = await result_of(bench, name, attemptTimeout=0.5, args={"name": name, "file": str(tmp_path / "pid")})
        assert time.monotonic() - begun < 30, "and not 60 s"
        assert job.error is not None and job.error.type == "headrace.errors.JobTimeout"
        assert job.error.message == "The attempt took longer than 0.5 s."
        assert not alive(warm.result)
        assert (await result_of(bench, "pid")).result != warm.result


async def test_an_attempt_that_is_interrupted_is_killed_at_once_and_has_not_failed(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with running(bench, Behaves()) as engine:
        job_id = bench.enqueue("sleeps", args={"name": "sleeps", "file": str(file)})

        async def begun() -> bool:
            return file.exists() and file.read_text() != ""

        await eventually_async(begun)
        before = time.monotonic()
        assert await engine.stop(grace_seconds=0)
        assert time.monotonic() - before < 30, "and not 60 s"
        assert not alive(int(file.read_text()))
        assert bench.statuses(job_id) == ["running", "queued"]


async def test_a_child_keeps_the_loop_from_nothing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the start of a process does, nor one that is blocked itself: the loop has things to do meanwhile, and does them."""
    gate = tmp_path / "gate"
    monkeypatch.setenv(GATE, str(gate))

    async def let_it_start() -> None:
        while not children():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        gate.touch()

    starting = asyncio.create_task(let_it_start())
    async with running(bench, ImportedLate()):
        blocked = bench.enqueue("blocks")
        for job in (bench.enqueue("large"), bench.enqueue("progress")):
            assert (await end_of(bench, job)).status == "completed"
        assert bench.statuses(blocked) == ["running"]
    await starting
    assert not (tmp_path / TOO_LATE).exists()


@pytest.mark.parametrize("worker", [BehavesAsync(), Overridden()], ids=["async", "overridden"])
async def test_other_kinds_of_workers_run_in_processes_too(bench: Bench, worker: Behaves) -> None:
    async with running(bench, worker):
        [first, second] = [await result_of(bench, "pid"), await result_of(bench, "pid")]
        if isinstance(worker, Overridden):
            assert first.result["overridden"] == first.result["pid"] != os.getpid()
        else:
            assert first.result == second.result != os.getpid()
        failed = await result_of(bench, "unheard")
        assert failed.error is not None and failed.error.message == "1 and 2"


async def test_a_worker_that_cannot_be_imported_is_refused_with_what_to_do(bench: Bench) -> None:
    class Local(Behaves):
        pass

    engine = WorkerEngine(bench.settings, log=bench_log(bench))
    for wrong in (Local(), NoWorker(6)):
        with pytest.raises(ConfigurationError, match="define it at the top of a module"):
            engine.register_worker(wrong)
    engine.register_worker(kept)


def bench_log(bench: Bench) -> Any:
    from headrace.testing import InMemoryLog

    return InMemoryLog(bench.cluster)


async def test_an_object_that_stands_in_a_module_is_found_there(bench: Bench) -> None:
    bench_worker: Any = kept
    async with running(bench, bench_worker):
        assert (await result_of(bench, "a")).result == 5
