"""What a history reads from the log: the jobs of a span with the snapshot that counts, one job, and what is there no more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson
import pytest

from headrace.codec import encode
from headrace.core import snapshots
from headrace.core.identifiers import fresh_id
from headrace.core.partitions import key_partition
from headrace.core.records import conversation_key, memory_key, repeat_header, source_header, status_header, version_header
from headrace.core.snapshots import version_of
from headrace.errors import HistoryGone, JobUnknown, WorkerUnknown
from headrace.models import MemoryEntry
from headrace.ports import ConversationRef, TopicPartition
from headrace.replay.history import Span, Wanted
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded import joining
from headrace.replay.recorded.log_history import LogHistory
from headrace.testing.reader import InMemoryReader
from headrace.testing.storage import StoredRecord
from support.timed_jobs import ALWAYS, MINUTE, give_time, jobs, put_at, told
from support.written_jobs import Engines, WrittenLog


async def test_each_job_of_a_span_comes_with_the_snapshot_that_counts(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    for job_id in ("done", "running", "waiting"):
        engines.enqueue(job_id)
    engines.run("done", epoch)
    engines.complete("done", {"n": 1})
    engines.run("running", epoch)
    found = await jobs(history)
    assert told(found) == [("done", "completed"), ("running", "running"), ("waiting", None)]
    [done] = [job for job in found if job.id == "done"]
    assert (done.source, done.offset, done.accepted_at) == (engines.jobs(0), 0, 1_000)
    assert done.record["args"] == {"to": ["ann"]} and done.snapshot is not None and done.snapshot["result"] == {"n": 1}


async def test_the_last_words_of_a_predecessor_count_for_nothing(engines: Engines, history: LogHistory) -> None:
    old = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", old)
    new = engines.claim("two", old)
    before = engines.snapshots["job"]
    engines.complete("job", "from the grave")
    engines.snapshots["job"] = before
    assert told(await jobs(history)) == [("job", "running")]
    engines.run("job", new, "two")
    engines.complete("job", "right")
    [job] = await jobs(history)
    assert job.snapshot is not None and (job.snapshot["result"], job.snapshot["attempt"]) == ("right", 2)


async def test_it_is_known_when_a_snapshot_was_made_unless_a_janitor_wrote_it_once_more(
    log: WrittenLog, engines: Engines, history: LogHistory
) -> None:
    epoch = engines.claim("one", -1)
    for job_id in ("job", "repeated", "waiting"):
        engines.enqueue(job_id)
    for job_id in ("job", "repeated"):
        engines.run(job_id, epoch)
    made = engines.complete("job")
    written = engines.complete("repeated")
    # Compaction has left the janitor's record alone.
    log.cluster.remove_records(engines.state(0), [written.offset])
    version = version_of(engines.snapshots["repeated"])
    log.put(engines.state(0), written.key, written.value, (*written.headers, repeat_header(version)))
    assert {job.id: job.snapshot_at for job in await jobs(history)} == {
        "job": made.timestamp,
        "repeated": None,
        "waiting": None,
    }
    assert (await history.find("repeated")).snapshot_at is None


async def test_a_lease_is_known_from_the_first_that_is_read_of_it(engines: Engines, history: LogHistory) -> None:
    engines.enqueue("job")
    engines.run("job", 0)
    engines.claim("two", 0)
    engines.complete("job", "from the grave")
    assert told(await jobs(history)) == [("job", "running")]


async def test_an_older_snapshot_that_stands_behind_a_newer_one_is_older(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    older = engines.snapshots["job"]
    newer = {**older, "sequence": older["sequence"] + 1, "progress": "half"}
    engines.write(newer)
    engines.write(older)
    [job] = await jobs(history)
    assert job.snapshot == newer


async def test_what_a_janitor_repeats_is_taken_for_what_it_repeats(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    engines.run("job", epoch)
    right = engines.snapshots["job"]
    # A void claim that compaction took away has left a snapshot of a higher epoch.
    void = snapshots.running(right, snapshots.Writer("ghost", epoch + 50), "2026-03-02T09:31:30.000Z")
    engines.write(void, keep=False)
    headers = (
        source_header(engines.worker, 0, 0),
        version_header(version_of(right)),
        status_header(right["status"]),
        repeat_header(version_of(void)),
    )
    engines.log.put(engines.state(0), b"job", orjson.dumps(right), headers)
    [job] = await jobs(history)
    assert job.snapshot is not None and job.snapshot["attempt"] == 1


async def test_a_snapshot_of_a_queue_that_was_there_before_is_of_no_job(engines: Engines, history: LogHistory) -> None:
    epoch = engines.claim("one", -1)
    engines.enqueue("job")
    other = {**snapshots.running(engines.snapshots["job"], snapshots.Writer("one", epoch), "2026-03-02T09:31:00.000Z"), "id": "x"}
    engines.write(other)
    assert told(await jobs(history)) == [("job", None)]


async def test_a_span_is_by_the_times_of_the_job_records(engines: Engines, history: LogHistory) -> None:
    start = 100 * MINUTE
    # The clocks of two writers differ: what is later in the log has an earlier time.
    for at, name in ((start - 1, "before"), (start, "first"), (start + 30, "late"), (start + 10, "early"), (start + 20, "end")):
        put_at(engines, at, name)
    span = Span(start, start + 20)
    assert [job.id for job in await jobs(history, span)] == ["first", "early"]
    assert await history.count(Wanted(span=Span(start, 1 << 50))) == 4
    assert await history.count(Wanted(span=Span(0, start), workers=["send_digest"])) == 1


async def test_a_record_of_a_clock_that_is_ahead_hides_no_others(engines: Engines, history: LogHistory) -> None:
    start = 100 * MINUTE
    for at, name in ((start, "first"), (start + 50 * MINUTE, "ahead"), (start + 1, "second")):
        put_at(engines, at, name)
    assert [job.id for job in await jobs(history, Span(start, start + MINUTE))] == ["first", "second"]


async def test_jobs_are_chosen_by_worker_and_by_fields(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    other = Engines(log, "other")
    epoch = engines.claim("one", -1)
    engines.enqueue("a", ctx={"userId": "ada"}, args={"kind": "x", "n": 3, "deep": {"flag": True}})
    engines.enqueue("b", ctx={"userId": "ben"})
    other.enqueue("c", ctx={"userId": "ada"})
    engines.run("b", epoch)
    engines.fail("b")
    assert told(await jobs(history, ALWAYS, "other")) == [("c", None)]
    assert [each[0] for each in told(await jobs(history, userId="ada"))] == ["a", "c"]
    assert told(await jobs(history, status="failed")) == [("b", "failed")]
    assert told(await jobs(history, status="queued", ctx__userId="ada", args__n="3", args__deep__flag="true")) == [("a", None)]
    assert told(await jobs(history, error__type="ValueError")) == [("b", "failed")]
    assert await jobs(history, args__missing="") == []
    Engines(log, "idle")  # has a queue, and never had a job
    with pytest.raises(WorkerUnknown, match=r"'nobody'.*Recorded are jobs of: other, send_digest\.$"):
        await jobs(history, ALWAYS, "nobody")


class OneByOne(InMemoryReader):
    """Reads one record at a time."""

    async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[StoredRecord]]:
        return await super().fetch(timeout=timeout, maximum=1)


@pytest.mark.parametrize(("ends", "requests"), [(True, 1), (True, 2), (False, 1)])
async def test_reading_of_states_ends_when_nothing_more_can_come(
    log: WrittenLog, engines: Engines, history: LogHistory, monkeypatch: pytest.MonkeyPatch, ends: bool, requests: int
) -> None:
    monkeypatch.setattr(joining, "SETTLED_MILLISECONDS", 500)
    monkeypatch.setattr(log, "reader", lambda: OneByOne(log.cluster, log._link))
    epoch = engines.claim("one", -1)
    for _ in range(requests):
        engines.enqueue("job")
    engines.run("job", epoch)
    if ends:
        engines.complete("job")
    for number in range(3):
        log.put(engines.state(0), b"other-%d" % number, b"{}", timestamp=10_000)
    late = engines.complete("job") if not ends else log.put(engines.state(0), b"late", b"{}", timestamp=20_000)
    assert told(await jobs(history, Span(0, 2_000))) == [("job", "completed")]
    assert (late in log.given) is not ends


async def test_a_request_that_was_made_again_and_done_is_a_job_whose_end_is_awaited(
    log: WrittenLog, engines: Engines, history: LogHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "SETTLED_MILLISECONDS", 500)
    monkeypatch.setattr(log, "reader", lambda: OneByOne(log.cluster, log._link))
    epoch = engines.claim("one", -1)
    for job_id in ("job", "other"):
        engines.enqueue(job_id)
        engines.run(job_id, epoch)
    engines.complete("job")
    engines.snapshots.pop("job")
    engines.enqueue("job")
    log.put(engines.state(0), b"filler", b"{}", timestamp=10_000)
    engines.run("job", epoch)
    engines.complete("job")
    log.put(engines.state(0), b"filler", b"{}", timestamp=20_000)
    engines.complete("other")
    assert told(await jobs(history, Span(0, 2_000))) == [("job", "completed"), ("job", "completed"), ("other", "completed")]


@pytest.mark.parametrize("job_id", ["named-by-hand", fresh_id(600_000, b"0123456789"), fresh_id(1_000, b"0123456789")])
async def test_a_job_is_found_whenever_it_was(engines: Engines, history: LogHistory, job_id: str) -> None:
    engines.enqueue("other")
    put_at(engines, 600_000, job_id, 3, args={"about": "other"}, orderingKey="k")
    epoch = engines.claim("one", -1, 3)
    engines.run(job_id, epoch)
    give_time(engines, 3, 600_000)
    job = await history.find(job_id)
    assert (job.id, job.source, job.offset) == (job_id, engines.jobs(3), 0)
    assert job.snapshot is not None and job.snapshot["status"] == "running"


@pytest.mark.parametrize(
    ("job_id", "written"),
    [("a&b", b"a\\u0026b"), ("a<b", b"a\\u003Cb"), ("plain", b"\\u0070lain"), ('"\\', b"\\u0022\\u005c"), ("ä", b"\\u00e4")],
    ids=["ampersand", "less", "letter", "quoted", "umlaut"],
)
async def test_an_id_is_found_however_its_writer_escapes_it(
    engines: Engines, history: LogHistory, job_id: str, written: bytes
) -> None:
    made = [engines.enqueue(job_id), engines.enqueue("child", 1, parentId=job_id)]
    for record in made:
        records = engines.log.cluster.partition(TopicPartition(record.topic, record.partition)).records
        assert record.value is not None and record.value.count(orjson.dumps(job_id)) == 1
        records[-1] = replace(record, value=record.value.replace(orjson.dumps(job_id), b'"%b"' % written))
    engines.run(job_id, engines.claim("one", -1))
    found = await timeline_of(history, job_id)
    assert (found.job.id, found.state["status"]) == (job_id, "running")
    assert [each.job.id for each in found.relatives] == ["child"]


async def test_of_two_records_with_one_id_that_one_is_found_which_was_done(engines: Engines, history: LogHistory) -> None:
    engines.enqueue("twice", n=1)
    engines.snapshots.clear()
    engines.enqueue("twice", n=2)
    epoch = engines.claim("one", -1)
    engines.run("twice", epoch)
    assert (await history.find("twice")).offset == 1
    assert [(job.id, job.offset) for job in await jobs(history)] == [("twice", 1)], "the other is no job of its own"


async def test_a_request_that_was_made_again_within_the_span_is_no_job_of_it(engines: Engines, history: LogHistory) -> None:
    start = 100 * MINUTE
    put_at(engines, start - 1, "twice")
    put_at(engines, start, "twice")
    put_at(engines, start, "once")
    engines.run("twice", engines.claim("one", -1))
    give_time(engines, 0, start)
    assert told(await jobs(history, Span(start, start + 1))) == [("once", None)]


async def test_what_is_said_of_a_job_that_is_not_there(engines: Engines, history: LogHistory) -> None:
    engines.enqueue("gone")
    epoch = engines.claim("one", -1)
    engines.run("gone", epoch)
    engines.complete("gone")
    with pytest.raises(JobUnknown, match="no job 'nothing' in the log of the namespace view-test"):
        await history.find("nothing")
    engines.log.cluster.delete_records(engines.jobs(0), 1)
    with pytest.raises(HistoryGone, match=r"job gone was deleted.*it was completed at the end"):
        await history.find("gone")


async def test_a_damaged_record_costs_itself_alone(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    log.put(engines.jobs(0), b"x", b"no json")
    log.put(engines.jobs(0), b"x", b'{"id": 3}')
    engines.enqueue("job")
    epoch = engines.claim("one", -1)
    log.put(engines.state(0), b"lease/send_digest/0/two", b'{"kind": "claim"}')
    log.put(engines.state(0), b"job", b"{}")
    engines.run("job", epoch)
    assert told(await jobs(history)) == [("job", "running")]


@pytest.mark.parametrize("value", [b"no json", b"{}", b"[]"], ids=["no-json", "nothing", "list"])
async def test_a_damaged_snapshot_does_not_cost_a_span_its_other_jobs(
    log: WrittenLog, engines: Engines, history: LogHistory, value: bytes
) -> None:
    epoch = engines.claim("one", -1)
    for job_id in ("job", "other"):
        engines.enqueue(job_id)
        engines.run(job_id, epoch)
    version = version_of({**engines.snapshots["job"], "sequence": 9})
    log.put(
        engines.state(0), b"job", value, (source_header(engines.worker, 0, 0), version_header(version), status_header("failed"))
    )
    assert told(await jobs(history)) == [("job", None), ("other", "running")]
    assert told(await jobs(history, status="running")) == [("other", "running")]


async def test_the_newest_definition_of_each_worker_is_known(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    engines.define("digest")
    assert {name: each.kind for name, each in (await history.worker_definitions()).items()} == {"send_digest": "digest"}


async def test_a_conversation_is_as_it_was(log: WrittenLog, history: LogHistory) -> None:
    conversation = ConversationRef("default", "ada", "trip")
    assert (await history.memory_at(conversation, 5_000)).entries == ()
    log.cluster.create_topics([log.topics.memory])
    fresh = LogHistory(log, log.topics)
    place = TopicPartition(log.topics.memory.name, key_partition(conversation_key(*conversation), log.topics.memory.partitions))
    for number, at in enumerate((1_000, 3_000, 2_000)):
        entry = MemoryEntry.model_validate(
            {
                "userId": "ada",
                "conversationId": "trip",
                "id": f"e{number}",
                "role": "user",
                "content": "x",
                "at": "2026-03-02T09:30:00Z",
            }
        )
        log.put(place, memory_key(*conversation, f"token-{number}"), encode(entry), timestamp=at)
    assert [each.id for each in (await fresh.memory_at(conversation, 1_999)).entries] == ["e0"]
    # What stands before a record was there before it, whatever the clock of its writer says.
    assert [each.id for each in (await fresh.memory_at(conversation, 2_000)).entries] == ["e0", "e1", "e2"]
    assert (await fresh.memory_at(conversation, 999)).entries == ()


async def test_a_conversation_is_read_ahead_if_its_partition_is_not_too_large(log: WrittenLog) -> None:
    conversation = ConversationRef("default", "ada", "trip")
    empty = LogHistory(log, log.topics)
    await empty.read_memory_ahead(conversation, at_most=None)
    assert log.topics.memory.name not in log.cluster.topic_names()
    log.cluster.create_topics([log.topics.memory])
    place = TopicPartition(log.topics.memory.name, key_partition(conversation_key(*conversation), log.topics.memory.partitions))
    for number in range(3):
        log.put(place, memory_key(*conversation, f"token-{number}"), b"{}")

    def given() -> int:
        return sum(record.topic == place.topic for record in log.given)

    for at_most, expected in ((2, 0), (3, 3), (None, 3)):
        log.given.clear()
        await LogHistory(log, log.topics).read_memory_ahead(conversation, at_most=at_most)
        assert given() == expected
    fresh = LogHistory(log, log.topics)
    await asyncio.gather(*(fresh.read_memory_ahead(conversation, at_most=3) for _ in range(10)))
    log.given.clear()
    assert (await fresh.memory_at(conversation, 1 << 50)).entries == ()
    await fresh.read_memory_ahead(conversation, at_most=None)
    assert given() == 0


async def test_nothing_is_made_in_an_empty_cluster(history: LogHistory, log: WrittenLog) -> None:
    log.cluster.delete_topics(list(log.cluster.topic_names()))
    with pytest.raises(HistoryGone):
        await jobs(history)
    with pytest.raises(JobUnknown):
        await history.find("job")
    assert await history.worker_definitions() == {}
    assert log.cluster.topic_names() == set()
