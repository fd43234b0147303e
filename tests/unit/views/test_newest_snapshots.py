"""What a batch tells of a job more than once is not looked at more than once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.job_tables import Table
from support.written_jobs import Engines, WrittenLog

LONG = "x" * 40_000


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.connection.close()


@pytest.fixture
def engines() -> Engines:
    return Engines(WrittenLog())


def test_of_the_snapshots_of_a_batch_the_newest_that_can_be_decoded_counts(table: Table, engines: Engines) -> None:
    table.take(engines.enqueue("a"), engines.enqueue("b"))
    epoch = engines.claim("one", -1)
    running, ended = engines.run("a", epoch), engines.complete("a")
    begun, done = engines.run("b", epoch), engines.complete("b")
    table.take(running, replace(ended, value=b"damaged"), replace(begun, value=b"damaged"), done)
    assert table.statuses() == {"a": "running", "b": "completed"}
    assert table.projection.undecodable.counts == {"damaged job-state": 1}, "what the newest takes the place of is not looked at"


def test_a_job_record_is_not_looked_at_where_a_snapshot_of_the_batch_has_all_of_it(table: Table, engines: Engines) -> None:
    short, long = engines.enqueue("short"), engines.enqueue("long", args={"text": LONG})
    epoch = engines.claim("one", -1)
    table.take(replace(short, value=b"damaged"), long, engines.run("short", epoch), engines.run("long", epoch))
    assert table.projection.undecodable.total == 0
    assert table.job("short")["args"] == {"to": ["ann"]}  # type: ignore[index]
    assert table.job("long")["args"] == {"text": LONG}  # type: ignore[index]


def test_what_follows_an_end_or_comes_late_is_no_newer(table: Table, engines: Engines) -> None:
    table.take(engines.enqueue("ended"), engines.enqueue("late"))
    epoch = engines.claim("one", -1)
    records = [engines.run("ended", epoch), engines.complete("ended")]
    records.append(engines.write({**engines.snapshots["ended"], "attempt": 2, "status": "running"}))
    second = {**engines.snapshots["late"], "epoch": epoch, "attempt": 2, "sequence": 1, "status": "running"}
    records += [engines.write(second), engines.write({**second, "attempt": 1, "status": "queued"})]
    table.take(*records)
    assert table.statuses() == {"ended": "completed", "late": "running"}
