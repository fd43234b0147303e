"""Whatever stands in a queue, with whatever time: it costs itself alone, and those behind it are done."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import WorkerEngine
from headrace.dead_letters.letters import dead_letter_of
from headrace.ports import Header, NewRecord, TopicPartition
from headrace.testing import InMemoryLog
from support.leases import lease_bench
from support.log import eventually
from support.memory_engines import DEAD_LETTERS, TOPICS, Bench, GatedWorker, passing
from support.virtual_time import run_in_virtual_time

QUEUE = TopicPartition(TOPICS.jobs_name(GatedWorker.name), 0)
FRESH = "01990000-0000-7000-8000-000000000001"
DERIVED = "job-x"
IN_NANOSECONDS = 1_780_000_000_000_000_000

Put = tuple[bytes, bytes | None, list[Header], int | None]


def nested(depth: int, *, objects: bool = False) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth if objects else b"[" * depth + b"]" * depth


def job(job_id: str, args: bytes, ctx: bytes = b"{}", more: bytes = b"") -> bytes:
    begin = b'{"schemaVersion":1,"id":"%b","tenant":"default","workerName":"gated","createdAt":"2026-03-02T09:30:00.000Z"'
    return begin % job_id.encode() + b',"args":%b,"ctx":%b%b}' % (args, ctx, more)


def deep(job_id: str, pad: int = 0, more: bytes = b"") -> bytes:
    return job(job_id, b'{"name":"x","deep":%b,"pad":"%b"}' % (nested(300), b"y" * pad), more=more)


async def passed_over(folder: Path, records: list[Put]) -> tuple[Bench, list[str | None]]:
    """Runs an engine until the job behind the records has ended; the ids of the dead letters."""
    bench = lease_bench(folder)
    for key, value, headers, timestamp in records:
        bench.cluster.append(QUEUE, NewRecord(key, value, headers), timestamp=timestamp)
    good = bench.enqueue("good")
    engine = WorkerEngine(bench.settings, log=InMemoryLog(bench.cluster))
    engine.register_worker(GatedWorker())
    await engine.start()
    try:
        await eventually(lambda: bench.has_completed(good), "the end of the job behind")
        await eventually(lambda: bench.committed() == len(records) + 1, "the commit of all")
        await passing(5)
        assert not engine._broken.is_set()
    finally:
        await engine.stop(grace_seconds=0)
    return bench, [dead_letter_of(record).job_id for record in bench.cluster.topic_records(DEAD_LETTERS)]


@pytest.mark.parametrize(
    ("record", "letters"),
    [
        pytest.param(deep(DERIVED), [DERIVED], id="id-derived"),
        pytest.param(deep(FRESH), [], id="id-fresh"),
        pytest.param(deep(FRESH, pad=40_000), [FRESH], id="large"),
        pytest.param(deep(FRESH, more=b',"attempt":3'), [FRESH], id="says-what-owners-say"),
        pytest.param(job(FRESH, b"7", b'{"d":%b}' % nested(300)), [FRESH], id="no-job-and-a-deep-context"),
        pytest.param(job(DERIVED, b"7", b'{"d":%b}' % nested(1000, objects=True)), [DERIVED], id="no-job-and-derived"),
    ],
)
def test_json_that_can_be_read_and_not_be_written_again_costs_one_record(
    tmp_path: Path, record: bytes, letters: list[str]
) -> None:
    async def scenario() -> None:
        bench, found = await passed_over(tmp_path, [(b"k", record, [], None)])
        assert found == letters
        assert all(bench.statuses(job_id)[-1] == "failed" for job_id in letters)
        if not letters:
            assert bench.statuses(FRESH)[-1] == "completed"

    run_in_virtual_time(scenario())


def test_a_time_that_no_calendar_has_costs_one_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench, found = await passed_over(tmp_path, [(b"k", b'{"id":"job-z"}', [], IN_NANOSECONDS)])
        assert found == ["job-z"]
        assert bench.written("job-z")[-1]["createdAt"] == "9999-12-31T23:59:59.999Z"

    run_in_virtual_time(scenario())


def _deeper(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(children, max_size=3).map(lambda each: b"[" + b",".join(each) + b"]")


texts = st.text(max_size=20).map(orjson.dumps)
numbers = st.sampled_from([b"0", b"-1", b"1e999", b"18446744073709551616", b"null", b"true", b"1.5"])
depths = st.builds(lambda depth, objects: nested(depth, objects=objects), st.integers(0, 1_100), st.booleans())
values = st.recursive(texts | numbers | depths, _deeper, max_leaves=5)
names = st.sampled_from(["schemaVersion", "id", "tenant", "workerName", "createdAt", "args", "ctx", "retry", "orderingKey"])
own_names = st.sampled_from(["attempt", "status", "source", "attemptTimeout", "idempotencyKey", "worker_name", "runAt"])
whole = {
    "schemaVersion": b"1",
    "id": b'"job-x"',
    "tenant": b'"default"',
    "workerName": b'"gated"',
    "createdAt": b'"2026-03-02T09:30:00.000Z"',
    "args": b'{"name":"x"}',
    "ctx": b"{}",
}


def _text_of(fields: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in fields.items()) + b"}"


objects_of = st.dictionaries(names, values | st.builds(lambda value: b'{"name":"x","d":%b}' % value, values), max_size=3)
nearly_jobs = st.builds(
    lambda changed, more, job_id: _text_of({**whole, "id": job_id, **changed, **more}),
    objects_of,
    st.dictionaries(own_names, values, max_size=2),
    st.sampled_from([b'"job-x"', b'"%b"' % FRESH.encode()]),
)
contents = st.none() | st.binary(max_size=40) | values | nearly_jobs
times = st.none() | st.integers(0, 2**63 - 1) | st.sampled_from([0, IN_NANOSECONDS, 253_402_300_800_000])
headers = st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=20)), max_size=2)


@given(records=st.lists(st.tuples(st.binary(max_size=10), contents, headers, times), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_the_bytes_the_key_the_headers_and_the_time_those_behind_are_done(tmp_path: Path, records: list[Put]) -> None:
    async def scenario() -> None:
        await passed_over(tmp_path, records)

    run_in_virtual_time(scenario())
