"""Each claim of an engine has a name of its own, and so a key: nothing of one stands over what is said of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from headrace.core.ownership import NO_OFFSET
from headrace.core.records import lease_name, parse_checkpoint_key, parse_lease_key
from headrace.testing import InMemoryLog, StoredRecord
from headrace.testing.simulation.compacted import compact
from headrace.testing.simulation.reading import StateReader
from support.leases import Instance, caught, engine, kinds, lease_bench, lease_records, of_kind, seconds_until
from support.memory_engines import STATE, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


def names(bench: Bench, kind: str) -> list[str]:
    """By which names the lease records of a kind speak, in their order; the key and the value say the same."""
    found = []
    for record in bench.cluster.records(bench.state()):
        key = parse_lease_key(record.key or b"")
        fields = orjson.loads(record.value or b"{}")
        if key is not None and fields.get("kind") == kind:
            assert fields["instanceId"] == key.lease
            found.append(key.lease)
    return found


def checkpoints(bench: Bench) -> dict[str, set[int]]:
    """The epochs of the checkpoints under each name."""
    found: dict[str, set[int]] = {}
    for record in bench.cluster.records(bench.state()):
        if (key := parse_checkpoint_key(record.key or b"")) is not None:
            fields = orjson.loads(record.value or b"")
            assert fields["instanceId"] == key.lease
            found.setdefault(key.lease, set()).add(fields["epoch"])
    return found


def reader_of(records: Sequence[StoredRecord]) -> StateReader:
    reader = StateReader(GatedWorker.name)
    for record in records:
        reader.read(record)
    return reader


@in_virtual_time
async def test_all_that_speaks_of_a_claim_has_its_name(bench: Bench) -> None:
    log, worker = InMemoryLog(bench.cluster), GatedWorker()
    async with engine(bench, worker, log) as running:
        one, two = running.instance_id, f"{running.instance_id}.2"
        await seconds_until(lambda: bool(checkpoints(bench)), "a first checkpoint")
        log.refuse_appends(STATE, matching=of_kind("renewal"))
        await seconds_until(lambda: len(checkpoints(bench)) == 2, "a checkpoint under the second claim")
        job = bench.enqueue("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert {snapshot["instanceId"] for snapshot in bench.written(job)} == {one}, "jobs tell who ran them"
    first, second = bench.claims()
    assert names(bench, "claim") == [one, two]
    assert checkpoints(bench) == {one: {first.offset}, two: {second.offset}}
    epochs = {(each.fields["epoch"], each.fields["instanceId"]) for each in lease_records(bench) if each.kind == "renewal"}
    assert epochs == {(first.offset, one), (second.offset, two)}
    assert names(bench, "release") == [two]


@in_virtual_time
async def test_a_void_claim_covers_nothing_that_counts(bench: Bench) -> None:
    """A renewal of which its writer does not know the fate lands between what the next claim names and that claim."""
    log, worker = InMemoryLog(bench.cluster), GatedWorker()
    async with engine(bench, worker, log) as running:
        await seconds_until(lambda: bool(kinds(bench)), "the claim")
        late = log.land_late(STATE, matching=of_kind("renewal"))
        await caught(late)
        held = log.hold_appends(STATE, matching=of_kind("claim"))
        await caught(held)
        late.release()
        await seconds_until(lambda: bool(names(bench, "renewal")), "the renewal")
        held.release()
        await seconds_until(lambda: len(kinds(bench)) == 2, "the void claim")
        written = bench.cluster.records(bench.state())
        full, rest = reader_of(written), reader_of(compact(written))
        assert full.ledgers[0].epoch == bench.claims()[0].offset, "the second claim is void"
        assert rest.ledgers[0] == full.ledgers[0]
        job = bench.enqueue("a")
        await seconds_until(lambda: bench.has_completed(job), "the job's end")
        assert names(bench, "claim") == [lease_name(running.instance_id, number) for number in (1, 2, 3)]


@in_virtual_time
async def test_a_claim_that_landed_unheard_is_released_by_its_own_name(bench: Bench) -> None:
    log = InMemoryLog(bench.cluster)
    log.refuse_appends(STATE, matching=of_kind("claim"))
    async with engine(bench, GatedWorker(), log) as leaving:
        log.lose_acknowledgements(STATE, matching=of_kind("claim"))
        await seconds_until(lambda: bool(kinds(bench)), "the claim")
    [claim] = bench.claims()
    [release] = [record for record in lease_records(bench) if record.kind == "release"]
    assert (names(bench, "claim"), names(bench, "release")) == ([f"{leaving.instance_id}.2"], [f"{leaving.instance_id}.2"])
    assert release.fields["epoch"] == claim.offset


@in_virtual_time
async def test_a_look_at_the_log_s_time_covers_no_claim(bench: Bench) -> None:
    holder = Instance(bench, "holder")
    holder.claim()
    async with holder.renewing(), engine(bench, GatedWorker()) as waiter:
        await passing(10)
        tombstones = [record.key or b"" for record in bench.cluster.records(bench.state()) if record.value is None]
        assert [parse_lease_key(key) for key in tombstones] == [(GatedWorker.name, 0, f"{waiter.instance_id}.0")]
        assert kinds(bench) == ["claim"]
    assert holder.epoch != NO_OFFSET
