"""Records that a fetch did not return are read again; only what is not there is passed over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import BrokerError
from headrace.ports import Record, TopicPartition
from headrace.testing.consumer import InMemoryGroupConsumer
from support.leases import engine, lease_bench
from support.memory_engines import TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

QUEUE = TOPICS.jobs_name(GatedWorker.name)

Fetched = Mapping[TopicPartition, Sequence[Record]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


def spoil_fetches(patch: pytest.MonkeyPatch, spoil: Callable[[Fetched], Fetched]) -> None:
    """What the engines fetch of the queue goes through `spoil`; positions have moved past it by then."""
    original = InMemoryGroupConsumer.fetch

    async def fetch(self: InMemoryGroupConsumer, **options: Any) -> Fetched:
        fetched = await original(self, **options)
        return spoil(fetched) if any(source.topic == QUEUE for source in fetched) else fetched

    patch.setattr(InMemoryGroupConsumer, "fetch", fetch)


@pytest.mark.parametrize("times", [1, 3])
@in_virtual_time
async def test_what_a_failed_fetch_has_thrown_away_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    left = times

    def fail(fetched: Fetched) -> Fetched:
        nonlocal left
        left -= 1
        if left >= 0:
            raise BrokerError("Invalid CRC")
        return fetched

    worker = GatedWorker()
    async with engine(bench, worker):
        await passing(10)
        spoil_fetches(monkeypatch, fail)
        first = bench.enqueue("a")
        await passing(5)
        second = bench.enqueue("b")
        await passing(30)
        assert bench.has_completed(first)
        assert bench.has_completed(second)


@in_virtual_time
async def test_what_a_fetch_leaves_out_is_read_again_and_done_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = False

    def leave_out(fetched: Fetched) -> Fetched:
        nonlocal spoilt
        if spoilt or sum(map(len, fetched.values())) < 3:
            return fetched
        spoilt = True
        return {source: [records[0], *records[2:]] for source, records in fetched.items()}

    worker = GatedWorker()
    jobs = [bench.enqueue(name, key="one") for name in "abcd"]
    spoil_fetches(monkeypatch, leave_out)
    async with engine(bench, worker):
        await passing(30)
        assert spoilt
        assert all(bench.has_completed(job) for job in jobs)
    assert worker.started == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]


@in_virtual_time
async def test_what_is_not_there_is_passed_over_and_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when it is damaged on the brokers for good."""

    def leave_out(fetched: Fetched) -> Fetched:
        return {source: [record for record in records if record.offset != 1] for source, records in fetched.items()}

    spoil_fetches(monkeypatch, leave_out)
    worker = GatedWorker()
    jobs = [bench.enqueue("a") for _ in range(3)]
    with caplog.at_level(logging.ERROR):
        async with engine(bench, worker):
            await passing(60)
            assert [bench.has_completed(job) for job in jobs] == [True, False, True]
    [told] = [record.getMessage() for record in caplog.records if record.name == "headrace.engine.gaps"]
    assert "has no records from offset 1 to 1" in told
