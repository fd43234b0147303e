"""Records that no job can be made of, and that are as large as a topic takes: each costs itself alone, whatever it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.dead_letters.letters import DeadLetter, dead_letter_of
from headrace.ports import Header, NewRecord, TopicPartition
from support.leases import kinds, lease_bench
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import in_virtual_time

LONG = 30.0
# What a topic takes is 2 MiB: with the headers that an engine adds, such a record would be over it.
MUCH = 1_990_000
KEPT = 64 * 1024


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return lease_bench(tmp_path)


def put(bench: Bench, key: bytes, value: bytes | None, *headers: Header) -> None:
    bench.cluster.append(TopicPartition(TOPICS.jobs_name(GatedWorker.name), 0), NewRecord(key, value, headers))


async def refused_beside_a_job(bench: Bench, key: bytes, value: bytes | None, *headers: Header) -> DeadLetter:
    """The letter of a record that comes between two jobs; of which the one runs meanwhile, and both run once."""
    worker = GatedWorker()
    worker.close_gate("beside")
    async with bench.engine(worker):
        beside = bench.enqueue("beside")
        await eventually(lambda: worker.running == ["beside"], "the start of the job beside it")
        put(bench, key, value, *headers)
        behind = bench.enqueue("behind")
        await eventually(lambda: bench.has_completed(behind), "the end of the job behind it")
        await passing(LONG)
        assert worker.interrupted == []
        worker.open_gate("beside")
        await eventually(lambda: bench.committed() == 3, "the commit")
        assert bench.has_completed(beside)
        assert worker.started == [("beside", 1), ("behind", 1)]
        assert kinds(bench) == ["claim"]
    [letter] = bench.cluster.topic_records(DEAD_LETTERS)
    return dead_letter_of(letter)


@in_virtual_time
async def test_headers_that_would_not_fit_are_left_out_of_the_letter(bench: Bench) -> None:
    own = [("trace", b"t"), ("large", b"y" * MUCH), ("last", b"z")]
    letter = await refused_beside_a_job(bench, b"key", b"x" * 1000, *own)
    assert (letter.key, letter.value, letter.headers) == (b"key", b"x" * 1000, (("trace", b"t"),))
    assert letter.headers_left_out == len("large") + MUCH + len("last") + 1
    assert letter.to_wire()["headersLeftOut"] == letter.headers_left_out
    assert letter.reason == "undecodable"


@in_virtual_time
async def test_headers_without_values_are_bounded_too(bench: Bench) -> None:
    count = 200_000
    letter = await refused_beside_a_job(bench, b"key", b"no job", *[("h", b"")] * count)
    assert 0 < len(letter.headers) < KEPT
    assert letter.headers_left_out == count - len(letter.headers)


@in_virtual_time
async def test_headers_that_fit_are_kept_whole(bench: Bench) -> None:
    own = (("large", b"y" * (KEPT - 100)), ("last", b"z"))
    letter = await refused_beside_a_job(bench, b"key", b"x" * 1_900_000, *own)
    assert (letter.headers, letter.headers_left_out) == (own, None)
    assert (len(letter.value or b""), letter.cut_from_bytes) == (1_900_000, None)


@in_virtual_time
async def test_a_key_that_would_not_fit_is_cut(bench: Bench) -> None:
    letter = await refused_beside_a_job(bench, b"k" * MUCH, b"no job")
    assert (letter.key, letter.key_cut_from_bytes, letter.value) == (b"k" * KEPT, MUCH, b"no job")
    assert letter.to_wire()["keyCutFromBytes"] == MUCH


@in_virtual_time
async def test_a_letter_fits_when_all_of_a_record_is_as_large_as_is_kept(bench: Bench) -> None:
    letter = await refused_beside_a_job(bench, b"k" * KEPT, b"x" * 1_900_000, ("h", b"y" * (KEPT - 11)))
    assert (len(letter.key or b""), len(letter.value or b""), len(letter.headers)) == (KEPT, 1_900_000, 1)
    assert (letter.key_cut_from_bytes, letter.cut_from_bytes, letter.headers_left_out) == (None, None, None)


# JSON numbers that take 4 bytes, and 18 when they are written again.
GROWING = b"[" + b",".join([b"9e15"] * 190_000) + b"]"


@in_virtual_time
@pytest.mark.parametrize("worker_name", ["gated", "another"])
async def test_a_record_that_grows_when_it_is_written_again_fails_alone(bench: Bench, worker_name: str) -> None:
    value = (
        b'{"schemaVersion":1,"id":"grows","tenant":"default","workerName":"%b","createdAt":"2026-03-02T09:30:00.000Z",'
        b'"args":{"name":"x"},"ctx":{"userId":"ada","n":%b}}'
    ) % (worker_name.encode(), GROWING)
    assert len(value) < 1024 * 1024
    letter = await refused_beside_a_job(bench, b"key", value)
    assert (letter.value, letter.reason, letter.job_id) == (value, "undecodable", "grows")
    assert "when it is written again" in letter.message
    assert bench.statuses("grows") == ["failed"]
    [failed] = bench.written("grows")
    assert (failed["id"], failed["ctx"]) == ("grows", {})


@in_virtual_time
async def test_arguments_that_grow_are_not_repeated_and_the_job_runs(bench: Bench) -> None:
    worker = GatedWorker()
    async with bench.engine(worker):
        put(
            bench,
            b"key",
            b'{"schemaVersion":1,"id":"grows","tenant":"default","workerName":"gated","createdAt":"2026-03-02T09:30:00.000Z",'
            b'"args":{"name":"x","n":%b},"ctx":{}}' % GROWING,
        )
        await eventually(lambda: bench.committed() == 1, "the commit")
    assert worker.started == [("x", 1)]
    assert bench.statuses("grows") == ["running", "completed"]
    assert not bench.cluster.topic_records(DEAD_LETTERS)
