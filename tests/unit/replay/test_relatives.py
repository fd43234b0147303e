"""The jobs around one: its children, and the chain of its retries from the first to the last."""

from __future__ import annotations

import orjson
import pytest

from headrace.core.identifiers import fresh_id
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from support.timed_jobs import put_at
from support.written_jobs import Engines, WrittenLog


async def test_the_jobs_that_came_of_it_are_told_with_how_they_stand(
    log: WrittenLog, engines: Engines, history: LogHistory
) -> None:
    other = Engines(log, "other")
    engines.enqueue("job")
    other.enqueue("child", parentId="job")
    other.enqueue("named", args={"about": "job"})
    other.enqueue("stranger", parentId="jobs")
    put_at(engines, 5_000, "again", 1, retryOf="job")
    epoch = other.claim("one", -1)
    other.run("child", epoch)
    found = await timeline_of(history, "job")
    assert sorted((each.relation, each.job.id, each.status) for each in found.relatives) == [
        ("child", "child", "running"), ("retry", "again", "queued")
    ]  # fmt: skip
    assert [line.event for line in found.lines] == ["accepted", "child", "retry"]
    wire = orjson.loads(orjson.dumps(found.to_wire()))
    assert [each["id"] for each in wire["children"]] == ["child"] and wire["children"][0]["workerName"] == "other"
    assert wire["lines"][0]["topic"] == engines.jobs(0).topic and wire["lines"][0]["origin"] == "log"


CHAIN = [fresh_id(1_000, bytes(10)), "second", "third", "fourth"]


@pytest.fixture
def chain(log: WrittenLog, engines: Engines) -> list[str]:
    """A job that was done anew three times, in other partitions and at last by another worker, and completed in the end."""
    other = Engines(log, "other")
    of = [engines, engines, engines, other]
    for number, (job_id, writer) in enumerate(zip(CHAIN, of, strict=True)):
        earlier = {"retryOf": CHAIN[number - 1]} if number else {}
        writer.enqueue(job_id, number, **earlier)
        writer.run(job_id, writer.claim("one", -1, number))
        if job_id == CHAIN[-1]:
            writer.complete(job_id)
        else:
            writer.fail(job_id)
    engines.enqueue("stranger", 4, retryOf="somebody")
    engines.enqueue("child", 4, parentId="second")
    return CHAIN


@pytest.mark.parametrize("position", range(4))
async def test_each_job_of_a_chain_of_retries_has_all_of_it(chain: list[str], history: LogHistory, position: int) -> None:
    own = chain[position]
    found = await timeline_of(history, own)
    states = ["failed", "failed", "failed", "completed"]
    expected = [
        ("retried" if other < position else "retry", job_id, states[other])
        for other, job_id in enumerate(chain)
        if other != position
    ]
    told = [(each.relation, each.job.id, each.status) for each in found.relatives if each.relation != "child"]
    assert told == expected
    assert [each.job.id for each in found.relatives if each.relation == "child"] == (["child"] if own == "second" else [])
    assert found.outcome == (chain[-1], "completed")
    assert found.retry_of == (chain[position - 1] if position else None)
    # What came of the retries is told by theirs.
    assert [line.event for line in found.lines].count("retry") == (1 if position < 3 else 0)
    wire = orjson.loads(orjson.dumps(found.to_wire()))
    assert wire["outcome"] == {"id": chain[-1], "status": "completed"}
    assert [each["id"] for each in wire["retries"]] == chain[position + 1 :]
    assert [each["retryOf"] for each in wire["retries"]] == chain[position:-1]
    assert [each["id"] for each in wire["retried"]] == chain[:position]


@pytest.mark.parametrize("last", ["a", "b"])
@pytest.mark.parametrize("swapped", [False, True], ids=["a-first", "b-first"])
async def test_of_retries_of_one_job_the_newest_tells_what_became_of_it(
    engines: Engines, history: LogHistory, last: str, swapped: bool
) -> None:
    """Whatever the partitions in which they stand, and readers side by side find them."""
    engines.enqueue("job")
    places = {"a": 6, "b": 1} if swapped else {"a": 1, "b": 6}
    newest = {"a": 5_000, "b": 4_000} if last == "a" else {"a": 4_000, "b": 5_000}
    for name, at in (("a", 2_000), ("b", 3_000)):
        put_at(engines, at, name, places[name], retryOf="job")
        put_at(engines, newest[name], f"{name}-again", places[name] + 1, retryOf=name)
    first, second = sorted(newest, key=newest.__getitem__)
    found = await timeline_of(history, "job")
    assert [each.job.id for each in found.retries] == ["a", "b", f"{first}-again", f"{second}-again"]
    assert found.outcome == (f"{last}-again", "queued")


async def test_a_retry_is_never_told_before_what_it_does_anew(engines: Engines, history: LogHistory) -> None:
    """Whoever asked for the first of them has a clock that is ahead."""
    engines.enqueue("job")
    put_at(engines, 9_000, "first", 1, retryOf="job")
    put_at(engines, 5_000, "second", 2, retryOf="first")
    found = await timeline_of(history, "job")
    assert [each.job.id for each in found.retries] == ["first", "second"] and found.outcome[0] == "second"


@pytest.mark.parametrize("looks_at", ["first", "last"])
async def test_a_long_chain_costs_no_more_reading_than_a_short_one(
    log: WrittenLog, engines: Engines, history: LogHistory, chain: list[str], looks_at: str
) -> None:
    engines.enqueue("bystander", 7)

    async def times_read(last: str) -> int:
        log.given.clear()
        found = await timeline_of(history, chain[0] if looks_at == "first" else last)
        assert found.outcome[0] == last
        return sum(record.key == b"bystander" for record in log.given)

    before = await times_read(chain[-1])
    for number in range(10):
        engines.enqueue(f"more-{number}", number % 4, retryOf=f"more-{number - 1}" if number else chain[-1])
    assert await times_read("more-9") == before > 0


async def test_what_a_job_retries_may_be_gone(chain: list[str], engines: Engines, history: LogHistory) -> None:
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    found = await timeline_of(history, "third")
    assert [(each.relation, each.job.id) for each in found.relatives] == [("retried", "second"), ("retry", "fourth")]
    engines.log.cluster.delete_records(engines.jobs(1), 1)
    found = await timeline_of(history, "third")
    assert [(each.relation, each.job.id) for each in found.relatives] == [("retry", "fourth")]
    assert found.retry_of == "second" and found.to_wire()["job"]["retryOf"] == "second"


async def test_jobs_that_name_each_other_end_the_search(engines: Engines, history: LogHistory) -> None:
    """Nobody writes this; whoever did must not have a reader turn for ever."""
    engines.enqueue("one", retryOf="two")
    engines.enqueue("two", retryOf="one")
    found = await timeline_of(history, "one")
    assert {each.job.id for each in found.relatives} == {"two"}


async def test_a_child_that_was_asked_for_twice_is_one(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    other = Engines(log, "other")
    engines.enqueue("job")
    epoch = other.claim("one", -1)
    other.enqueue("child", parentId="job")
    other.enqueue("child", parentId="job")
    other.run("child", epoch)
    found = await timeline_of(history, "job")
    assert [(each.job.id, each.job.offset, each.status) for each in found.relatives] == [("child", 0, "running")]
    assert [line.event for line in found.lines] == ["accepted", "child"]


async def test_a_child_whose_newest_record_is_damaged_is_told_so(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    engines.enqueue("job")
    engines.enqueue("child", parentId="job")
    epoch = engines.claim("one", -1)
    made = engines.run("child", epoch)
    log.put(engines.state(0), b"child", b"{}", made.headers)
    found = await timeline_of(history, "job")
    assert [(each.job.id, each.status) for each in found.relatives] == [("child", "damaged")]
