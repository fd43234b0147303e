"""The view of jobs over a log in memory: in which order topics are read, ghosts, and restarts."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from headrace.core.identifiers import fresh_id
from headrace.core.status import JobStatus
from headrace.errors import ArgumentsInvalid
from headrace.models import Job
from headrace.ports import TopicPartition
from headrace.views import accepted, follower, job_intake, job_projection
from headrace.views.database import Positions, store_positions
from headrace.views.job_queries import JobFilter
from headrace.views.job_table import write_facts
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory
from support.job_views import PATIENCE, eventually, intake_of, opened, statuses, until
from support.written_jobs import TOPICS, WORKER, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick", "both_keepers")


async def test_what_is_queued_running_and_done(log: WrittenLog, engines: Engines, path: Path) -> None:
    for job_id, partition in (("a", 0), ("b", 1), ("c", 0)):
        engines.enqueue(job_id, partition)
    epoch = engines.claim("one", -1)
    engines.run("a", epoch)
    engines.complete("a")
    engines.run("c", epoch)
    async with opened(log, path) as view:
        assert await statuses(view) == {"a": "completed", "b": "queued", "c": "running"}
        assert await view.counts() == dict.fromkeys(JobStatus, 0) | {
            JobStatus.COMPLETED: 1,
            JobStatus.QUEUED: 1,
            JobStatus.RUNNING: 1,
        }
        engines.complete("c", {"n": 1})
        await view.catch_up(PATIENCE)
        job = await view.get_job("c")
        assert job is not None
        assert (job.status, job.result) == ("completed", {"n": 1})
        assert await view.get_job("c", tenant="other") is None
        assert await view.get_job("d") is None
        with pytest.raises(ArgumentsInvalid):
            await view.list_jobs(JobFilter(), cursor="nonsense")


async def test_a_rebuilt_view_shows_no_ghosts(log: WrittenLog, engines: Engines, path: Path) -> None:
    """Jobs below the watermark have ended; some of their snapshots are gone by now, and so is nothing of the queue."""
    for number in range(6):
        engines.enqueue(f"j{number}")
    epoch = engines.claim("one", -1)
    for number in range(4):
        engines.run(f"j{number}", epoch)
        engines.complete(f"j{number}")
    gone = [record.offset for record in log.cluster.records(engines.state(0)) if record.key in (b"j0", b"j1")]
    log.cluster.remove_records(engines.state(0), gone)
    engines.commit({0: 3})
    async with opened(log, path) as view:
        assert await statuses(view) == {"j2": "completed", "j3": "completed", "j4": "queued", "j5": "queued"}


async def test_no_ghosts_while_the_state_is_only_partly_read(log: WrittenLog, engines: Engines, path: Path) -> None:
    for number in range(3):
        engines.enqueue(f"j{number}")
    engines.enqueue("other", 1)
    epoch = engines.claim("one", -1)
    engines.run("j0", epoch)
    engines.complete("j0")
    log.cluster.withhold(engines.state(0))
    async with opened(log, path, wait=False) as view:
        with pytest.raises(TimeoutError):
            await view.wait_caught_up(0.1)
        assert await statuses(view) == {}, "the queue is not shown before it is known what has ended"
        assert not view.caught_up
        await until(lambda: view.behind == 3)
        log.cluster.give_out()
        await view.wait_caught_up(PATIENCE)
        assert await statuses(view) == {"j0": "completed", "j1": "queued", "j2": "queued", "other": "queued"}


async def test_jobs_that_ended_while_the_view_was_closed(log: WrittenLog, engines: Engines, path: Path) -> None:
    for number in range(4):
        engines.enqueue(f"j{number}")
    async with opened(log, path) as view:
        assert set((await statuses(view)).values()) == {"queued"}
    epoch = engines.claim("one", -1)
    for number in range(3):
        engines.run(f"j{number}", epoch)
        engines.complete(f"j{number}")
    # Of the first, neither the record nor the snapshot is left: it was deleted, and its tombstone is gone, too.
    gone = [record.offset for record in log.cluster.records(engines.state(0)) if record.key == b"j0"]
    log.cluster.remove_records(engines.state(0), gone)
    engines.commit({0: 3})
    engines.enqueue("j4")
    async with opened(log, path) as view:
        assert await statuses(view) == {"j1": "completed", "j2": "completed", "j3": "queued", "j4": "queued"}


async def test_a_look_waits_through_no_pause(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step to the end of the log follows the one before: only a view that is there already waits for what comes."""
    for module, pause in ((follower, "FETCH_SECONDS"), (job_intake, "LOOK_SECONDS"), (job_intake, "POLL_SECONDS")):
        monkeypatch.setattr(module, pause, 1000.0)
    for job_id in ("a", "b"):
        engines.enqueue(job_id)
    engines.run("a", engines.claim("one", -1))
    for _ in range(2):
        async with opened(log, path) as view:
            assert await statuses(view) == {"a": "running", "b": "queued"}
            if (intake := intake_of(view)) is not None:
                assert intake._follower is not None and not intake._follower.expects_more


async def test_a_restart_reads_only_what_is_new(log: WrittenLog, engines: Engines, path: Path) -> None:
    for number in range(50):
        engines.enqueue(f"j{number}")
    epoch = engines.claim("one", -1)
    for number in range(50):
        engines.run(f"j{number}", epoch)
    async with opened(log, path) as view:
        assert len(await statuses(view)) == 50
    engines.complete("j7")
    log.given.clear()
    async with opened(log, path) as view:
        assert (await statuses(view))["j7"] == "completed"
    state = [record for record in log.given if record.topic == TOPICS.job_state.name]
    queue = [record for record in log.given if record.topic == TOPICS.jobs_name(WORKER)]
    assert [record.key for record in state] == [b"j49", b"j7"], "the last one that was read, and what came after it"
    assert [record.key for record in queue] == [b"j49"]


async def test_a_view_that_has_caught_up_has_all_its_indexes(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    log.cluster.withhold(engines.state(0))
    log.put(engines.state(0), b"x", None)
    async with opened(log, path, wait=False) as view:
        await view.add_accepted(Job.model_validate(engines.snapshots["a"]))
        assert [job.id for job in (await view.list_jobs(JobFilter(user_id="ann"))).jobs] == ["a"]
        log.cluster.give_out()
        await view.wait_caught_up(PATIENCE)
        assert [job.id for job in (await view.list_jobs(JobFilter(user_id="ann"))).jobs] == ["a"]
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    connection.close()
    assert {"jobs_by_tenant", "jobs_by_worker", "jobs_by_user", "jobs_by_conversation"} <= names


async def test_what_is_queued_stays_queued_over_a_restart(log: WrittenLog, engines: Engines, path: Path) -> None:
    for number in range(5):
        engines.enqueue(f"j{number}")
    async with opened(log, path) as view:
        first = await statuses(view)
    engines.commit({0: 2})
    async with opened(log, path) as view:
        assert await statuses(view) == {job_id: status for job_id, status in first.items() if job_id not in ("j0", "j1")}


async def test_the_claims_are_known_after_a_restart(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    first = engines.claim("one", -1)
    engines.run("a", first)
    engines.claim("two", first)
    async with opened(log, path) as view:
        assert await statuses(view) == {"a": "running"}
    engines.complete("a")
    async with opened(log, path) as view:
        assert await statuses(view) == {"a": "running"}


async def test_what_was_learned_in_a_transaction_that_failed_is_learned_again(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.enqueue("a")
    first = engines.claim("one", -1)
    engines.run("a", first)
    engines.claim("two", first)
    failures = [sqlite3.OperationalError("the disk is full"), sqlite3.OperationalError("the disk is full")]

    def store(connection: sqlite3.Connection, positions: Positions) -> None:
        if failures:
            raise failures.pop()
        store_positions(connection, positions)

    monkeypatch.setattr(job_projection, "store_positions", store)
    async with opened(log, path) as view:
        assert not failures
        assert await statuses(view) == {"a": "running"}
    engines.complete("a")
    async with opened(log, path) as view:
        assert await statuses(view) == {"a": "running"}, "the second claim was kept, and makes this void"


async def test_taking_in_leaves_the_event_loop_alone(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def store(connection: sqlite3.Connection, positions: Positions) -> None:
        threads.add(threading.get_ident())
        store_positions(connection, positions)

    monkeypatch.setattr(job_projection, "store_positions", store)
    engines.enqueue("a")
    async with opened(log, path) as view:
        assert await statuses(view) == {"a": "queued"}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_an_accepted_job_is_there_at_once(log: WrittenLog, engines: Engines, path: Path) -> None:
    for partition in range(4):
        log.cluster.withhold(TopicPartition(TOPICS.job_state.name, partition))
    log.put(engines.state(0), b"x", None)
    async with opened(log, path, wait=False) as view:
        engines.enqueue("a")
        await view.add_accepted(Job.model_validate(engines.snapshots["a"]))
        assert await statuses(view) == {"a": "queued"}
        await asyncio.gather(*(view.add_accepted(Job.model_validate(engines.snapshots["a"])) for _ in range(20)))
        engines.run("a", engines.claim("one", -1))
        log.cluster.give_out()
        await view.wait_caught_up(PATIENCE)
        assert await statuses(view) == {"a": "running"}


async def test_who_adds_a_job_does_not_wait_for_its_row_and_who_reads_does(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted, "ACCEPTED_SECONDS", 3_600.0)
    held = threading.Event()

    def write_when_let(*given: Any) -> None:
        assert held.wait(PATIENCE)
        write_facts(*given)

    for partition in range(4):
        log.cluster.withhold(TopicPartition(TOPICS.job_state.name, partition))
    log.put(engines.state(0), b"x", None)
    async with opened(log, path, wait=False) as view:
        engines.enqueue("a")
        monkeypatch.setattr("headrace.views.job_projection.write_facts", write_when_let)
        await view.add_accepted(Job.model_validate(engines.snapshots["a"]))
        reading = [asyncio.create_task(statuses(view)), asyncio.create_task(statuses(view))]
        done, _ = await asyncio.wait(reading, timeout=0.1)
        assert not done
        held.set()
        assert [await each for each in reading] == [{"a": "queued"}] * 2
        # Nothing is owed any more.
        monkeypatch.setattr("headrace.views.job_projection.write_facts", None)
        assert await statuses(view) == {"a": "queued"}
        monkeypatch.undo()
        log.cluster.give_out()


async def test_a_row_that_cannot_be_written_keeps_nobody_from_reading_and_comes_with_the_log(
    log: WrittenLog, engines: Engines, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("the disk is full")

    for partition in range(4):
        log.cluster.withhold(TopicPartition(TOPICS.job_state.name, partition))
    log.put(engines.state(0), b"x", None)
    async with opened(log, path, wait=False) as view:
        engines.enqueue("a")
        with monkeypatch.context() as broken:
            broken.setattr("headrace.views.job_projection.write_facts", fail)
            await view.add_accepted(Job.model_validate(engines.snapshots["a"]))
            assert await statuses(view) == {}
        assert "it will read them from the log" in caplog.text
        log.cluster.give_out()
        await eventually(view, {"a": "queued"})


async def test_a_stop_in_the_moment_in_which_something_else_happens_is_heeded(log: WrittenLog, path: Path) -> None:
    async with opened(log, path) as view:
        await asyncio.sleep(0)
        if (intake := intake_of(view)) is not None:
            intake.look_for("another")
        log.put(TopicPartition(TOPICS.job_state.name, 0), b"x", None)
        async with asyncio.timeout(PATIENCE):
            await view.stop()


async def test_the_record_of_a_job_that_was_accepted_here_is_not_looked_at(log: WrittenLog, engines: Engines, path: Path) -> None:
    """That it is passed over is seen by one that is damaged: those of others are counted."""
    async with opened(log, path) as view:
        engines.enqueue("known")
        await view.catch_up(PATIENCE)
        topic, target = TOPICS.jobs_name(WORKER), TopicPartition(TOPICS.jobs_name(WORKER), 7)
        offset = log.cluster.partition(target).end
        own = engines.snapshots["known"] | {"id": "own", "source": {"topic": topic, "partition": 7, "offset": offset}}
        await view.add_accepted(Job.model_validate(own))
        assert await statuses(view) == {"known": "queued", "own": "queued"}
        log.put(target, b"own", b"damaged")
        await view.catch_up(PATIENCE)
        assert view.undecodable.total() == 0
        log.put(target, b"other", b"damaged")
        await view.catch_up(PATIENCE)
        assert view.undecodable == {"damaged job": 1}
        assert await statuses(view) == {"known": "queued", "own": "queued"}


async def test_an_accepted_job_leads_to_a_worker_without_definition(log: WrittenLog, path: Path) -> None:
    async with opened(log, path) as view:
        other = Engines(log, "undefined")
        for job_id in ("a", "b"):
            other.enqueue(job_id)
        await view.add_accepted(Job.model_validate(other.snapshots["a"]))
        await eventually(view, {"a": "queued", "b": "queued"})


async def test_long_arguments_are_omitted_in_lists(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a", args={"text": "x" * 5_000})
    async with opened(log, path) as view:
        (job,) = (await view.list_jobs(JobFilter())).jobs
        assert job.args is None
        assert job.to_wire()["argsOmitted"] is True
        single = await view.get_job("a")
        assert single is not None
        assert single.args == {"text": "x" * 5_000}


async def test_a_row_that_is_no_job_does_not_take_its_page_with_it(
    log: WrittenLog, engines: Engines, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines.enqueue("a")
    engines.enqueue("b")
    epoch = engines.claim("one", -1)
    engines.run("a", epoch)
    engines.write({**engines.snapshots["a"], "sequence": 5, "progress": "a secret"})
    async with opened(log, path) as view:
        assert await statuses(view) == {"b": "queued"}
        assert await view.get_job("a") is None
    assert "is no valid one: progress" in caplog.text
    assert "a secret" not in caplog.text


async def test_two_views_of_one_folder(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    async with opened(log, path) as one, opened(log, path) as two:
        assert one.path != two.path
        assert await statuses(one) == await statuses(two) == {"a": "queued"}


async def test_a_view_that_was_not_started(log: WrittenLog, path: Path) -> None:
    view = JobView(log, TOPICS, WorkerDirectory(log, TOPICS), path)
    with pytest.raises(RuntimeError):
        await view.list_jobs(JobFilter())


async def test_ids_of_both_kinds(log: WrittenLog, engines: Engines, path: Path) -> None:
    job_id = fresh_id(1_780_000_000_000, b"0123456789")
    engines.enqueue(job_id)
    engines.enqueue("plain")
    async with opened(log, path) as view:
        assert set(await statuses(view)) == {job_id, "plain"}
        single = await view.get_job(job_id)
        assert single is not None
        assert single.id == job_id
