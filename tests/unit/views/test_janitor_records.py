"""What the janitor writes of jobs, repeats and removals, changes nothing of what a view shows, except where that was wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from headrace.core import snapshots
from headrace.core.ownership import Version
from headrace.core.records import Removal, removal_header, repeat_header, source_header, status_header, version_header
from headrace.core.snapshots import Writer, version_of
from headrace.testing import StoredRecord
from support.job_tables import Table
from support.written_jobs import Engines, WrittenLog

AT = "2026-03-02T09:33:00.000Z"


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.connection.close()


@pytest.fixture
def engines() -> Engines:
    return Engines(WrittenLog())


def repeat(engines: Engines, snapshot: dict[str, Any], outdone: Version) -> StoredRecord:
    """The janitor writes the snapshot that counts again, over what does not."""
    source = snapshot["source"]
    headers = (
        source_header(engines.worker, source["partition"], source["offset"]),
        version_header(version_of(snapshot)),
        status_header(snapshot["status"]),
        repeat_header(outdone),
    )
    return engines.log.put(engines.state(source["partition"]), snapshot["id"].encode(), orjson.dumps(snapshot), headers)


def remove(engines: Engines, job_id: str, removal: Removal) -> StoredRecord:
    return engines.log.put(engines.state(0), job_id.encode(), None, [removal_header(removal)])


def completed_and_written_over(engines: Engines) -> tuple[list[StoredRecord], dict[str, Any], StoredRecord, Version]:
    """A job ends under a second claim, and the frozen holder of the first has its last words.

    All records up to these, the snapshot that counts, the void record, and its version.
    """
    accepted = engines.enqueue("a")
    first = engines.claim("one", -1)
    engines.run("a", first)
    frozen = engines.snapshots["a"]
    second = engines.claim("two", first)
    engines.run("a", second, "two")
    engines.complete("a", {"sent": 1})
    last_words = snapshots.retried(frozen, {"type": "x", "message": "y"}, AT, AT)
    void = engines.write(snapshots.running(last_words, Writer("one", first), AT), keep=False)
    records = [record for record in engines.log.cluster.records(engines.state(0)) if record.offset < void.offset]
    return [accepted, *records], engines.snapshots["a"], void, Version(first, 2, 1)


@pytest.mark.parametrize("one_batch", [True, False])
def test_a_repeat_over_a_void_record_changes_nothing(table: Table, engines: Engines, one_batch: bool) -> None:
    records, winner, void, version = completed_and_written_over(engines)
    table.take(*records)
    before = table.job("a")
    if one_batch:
        table.take(void, repeat(engines, winner, version))
    else:
        for record in (void, repeat(engines, winner, version), repeat(engines, winner, version)):
            table.take(record)
            assert table.job("a") == before
    assert table.job("a") == before
    assert before is not None and (before["status"], before["attempt"]) == ("completed", 2)


@pytest.mark.parametrize("one_batch", [True, False])
def test_what_compaction_left_of_it_is_enough(table: Table, engines: Engines, one_batch: bool) -> None:
    """Of the claims the newest alone is left, so that nothing tells that the record is void but the repeat, which never is."""
    records, winner, void, version = completed_and_written_over(engines)
    engines.claim("three", -1)
    claim = engines.log.cluster.records(engines.state(0))[-1]
    late = repeat(engines, {**winner, "epoch": version.epoch, "attempt": 1}, version)
    if not one_batch:
        table.take(records[0], void)
        assert table.statuses() == {"a": "running"}
        table.take(claim)
        table.take(late)
    else:
        table.take(records[0], void, claim, late)
    assert table.statuses() == {"a": "completed"}
    assert table.job("a")["result"] == {"sent": 1}  # type: ignore[index]


def test_a_repeat_is_as_old_as_what_it_repeats(table: Table, engines: Engines) -> None:
    table.take(engines.enqueue("a"))
    first = engines.claim("one", -1)
    table.take(engines.run("a", first))
    old = engines.snapshots["a"]
    engines.write(snapshots.interrupted(old, AT))
    second = engines.claim("two", first)
    table.take(engines.run("a", second, "two"))
    table.take(repeat(engines, old, Version(first, 9, 9)))
    assert (table.statuses(), table.job("a")["attempt"]) == ({"a": "running"}, 2)  # type: ignore[index]
    table.take(engines.complete("a"))
    table.take(repeat(engines, old, Version(first, 9, 9)))
    assert table.statuses() == {"a": "completed"}


@pytest.mark.parametrize("reason", ["void", "ended"])
@pytest.mark.parametrize("one_batch", [True, False])
def test_a_removal_takes_away_what_it_names_and_what_is_older(
    table: Table, engines: Engines, reason: Any, one_batch: bool
) -> None:
    accepted = [engines.enqueue(name) for name in ("as it says", "older", "newer", "waits")]
    epoch = engines.claim("one", -1)
    written = [engines.run(name, epoch) for name in ("as it says", "older", "newer")]
    versions = {"as it says": Version(epoch, 1, 1), "older": Version(epoch, 1, 2), "newer": Version(epoch, 1, 0)}
    versions["waits"] = Version(epoch, 1, 1)
    removals = [remove(engines, name, Removal(reason, version)) for name, version in versions.items()]
    if one_batch:
        table.take(*accepted, *written, *removals)
    else:
        for batch in (accepted, written, removals):
            table.take(*batch)
    assert table.statuses() == {"newer": "running", "waits": "queued"}, "one that waits is not meant, and one that is newer"


def test_a_removal_that_is_met_again_does_not_take_away_what_came_after_it(table: Table, engines: Engines) -> None:
    """A view that was thrown away reads the log anew, and a job may be done again whose first life is removed."""
    accepted = engines.enqueue("a")
    epoch = engines.claim("one", -1)
    table.take(accepted, engines.run("a", epoch), engines.complete("a"))
    removal = Removal("ended", version_of(engines.snapshots["a"]))
    table.take(remove(engines, "a", removal))
    assert table.statuses() == {}
    engines.snapshots.pop("a")
    table.take(engines.enqueue("a"))
    second = engines.claim("two", epoch)
    table.take(engines.run("a", second, "two"), remove(engines, "a", removal))
    assert table.statuses() == {"a": "running"}
