"""The view of jobs where the log or the file proves wrong, or the broker is away."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from headrace.errors import BrokerUnreachable
from headrace.views import job_intake, reading
from headrace.views.jobs import JobView
from headrace.views.workers import WorkerDirectory
from support.job_views import PATIENCE, eventually, opened, statuses, until
from support.written_jobs import TOPICS, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick", "both_keepers")


def another_log() -> WrittenLog:
    log = WrittenLog()
    engines = Engines(log)
    engines.define()
    engines.enqueue("new")
    return log


async def test_another_cluster_that_is_shorter(
    log: WrittenLog, engines: Engines, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        engines.enqueue(f"j{number}")
    engines.run("j0", engines.claim("one", -1))
    async with opened(log, path):
        pass
    async with opened(another_log(), path) as view:
        assert await statuses(view) == {"new": "queued"}
    assert "made anew" in caplog.text


async def test_another_cluster_that_is_longer(
    log: WrittenLog, engines: Engines, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its offsets go further than those that were read: it is told by the last record that was read."""
    engines.enqueue("old")
    engines.run("old", engines.claim("one", -1))
    async with opened(log, path):
        pass
    other = another_log()
    for number in range(5):
        other.put(engines.state(0), b"x%d" % number, None, timestamp=77_000 + number)
    for number in range(5):
        other.put(engines.jobs(0), b"x%d" % number, b"damaged", timestamp=77_000 + number)
    async with opened(other, path) as view:
        await eventually(view, {"new": "queued"})
        await view.wait_caught_up(PATIENCE)
        assert await statuses(view) == {"new": "queued"}
    assert "another record stands at offset" in caplog.text


async def test_a_log_that_begins_beyond_what_was_read(
    log: WrittenLog, engines: Engines, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines.enqueue("a")
    engines.run("a", engines.claim("one", -1))
    async with opened(log, path):
        pass
    partition = engines.state(0)
    for _ in range(58):
        log.put(partition, b"x", None)
    log.cluster.delete_records(partition, 50)
    log.cluster.remove_records(partition, range(50, 60))
    engines.commit({0: 1})
    async with opened(log, path) as view:
        assert await statuses(view) == {}
    assert "begins at 50" in caplog.text


def spoil(path: Path) -> None:
    """Damages everything behind the first pages of a closed file, so that it opens, and then fails."""
    connection = sqlite3.connect(path)
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE name IN ('jobs', 'jobs_by_id')"))
    [size] = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    for page in roots.values():
        content[(page - 1) * size : page * size] = b"\xaa" * size
    path.write_bytes(bytes(content))


def put_in_the_way_of(path: Path) -> None:
    """Puts in the place of a file what cannot be removed as a file is."""
    path.unlink()
    (path / "x").mkdir(parents=True)


@pytest.mark.parametrize("first", ["reader", "writer"])
async def test_damage_that_shows_later_is_mended(
    log: WrittenLog, engines: Engines, path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        engines.enqueue(f"j{number}")
    engines.run("j0", engines.claim("one", -1))
    async with opened(log, path):
        pass
    spoil(path)
    if first == "writer":
        engines.complete("j0")
    else:
        log.cluster.withhold(*log.partitions())
    async with opened(log, path, wait=False) as view:
        await statuses(view)
        log.cluster.give_out()
        await view.wait_caught_up(PATIENCE)
        done = "completed" if first == "writer" else "running"
        await eventually(view, {"j0": done, "j1": "queued", "j2": "queued", "j3": "queued", "j4": "queued"})
    assert "damaged" in caplog.text


async def test_damage_is_mended_while_the_broker_is_away(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    async with opened(log, path):
        pass
    spoil(path)
    async with opened(log, path, wait=False) as view:
        log.go_away()
        async with asyncio.timeout(PATIENCE):
            assert await statuses(view) == {}
        log.accept_requests()
        await eventually(view, {"a": "queued"})


async def test_a_file_that_cannot_be_made_anew_is_told_and_not_waited_for_without_end(
    log: WrittenLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_intake, "MEND_SECONDS", 0.2)
    # One, which has its connection already: another would find no file to open.
    monkeypatch.setattr(reading, "READING_THREADS", 1)
    damage = sqlite3.DatabaseError("malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def look(_: sqlite3.Connection) -> None:
        raise damage

    async with opened(log, path) as view:
        assert await statuses(view) == {}
        put_in_the_way_of(path)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(sqlite3.DatabaseError, match="malformed"):
                await view._read(look)


async def test_a_broker_that_is_away_for_a_while(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    async with opened(log, path) as view:
        log.go_away()
        await until(lambda: view.trouble is not None)
        assert await statuses(view) == {"a": "queued"}
        assert view.caught_up, "what was read stays read"
        engines.enqueue("b")
        log.accept_requests()
        await eventually(view, {"a": "queued", "b": "queued"})
        await until(lambda: view.trouble is None)


async def test_a_broker_that_is_away_at_the_start(log: WrittenLog, path: Path) -> None:
    log.go_away()
    view = JobView(log, TOPICS, WorkerDirectory(log, TOPICS), path)
    with pytest.raises(BrokerUnreachable):
        await view.start()
    await view.stop()


async def test_a_broker_that_goes_away_while_the_topics_are_looked_for(log: WrittenLog, engines: Engines, path: Path) -> None:
    engines.enqueue("a")
    log.cluster.withhold(engines.state(0))
    log.put(engines.state(0), b"x", None)
    async with opened(log, path, wait=False) as view:
        log.go_away()
        await until(lambda: view.trouble is not None)
        log.cluster.give_out()
        log.accept_requests()
        await view.wait_caught_up(PATIENCE)
        assert await statuses(view) == {"a": "queued"}
        assert view.trouble is None
