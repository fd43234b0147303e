"""How far a history reads what jobs recorded, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.codec import encode
from headrace.core.partitions import key_partition
from headrace.core.records import SOURCE_HEADER, conversation_key, memory_key
from headrace.models import MemoryEntry
from headrace.ports import ConversationRef, RecordingKey, TopicPartition
from headrace.recordings.records import recording_key, recording_partition
from headrace.replay.history import Span, Wanted
from headrace.replay.recorded.folding import place_of_job
from headrace.replay.recorded.log_history import LogHistory
from headrace.testing.reader import InMemoryReader
from support.histories import recorded_job
from support.timed_jobs import ALWAYS, MINUTE, WHEN, give_time, jobs, put_at
from support.written_jobs import Engines, WrittenLog

JOB = replace(recorded_job("send_digest", job_id="job", status="queued", attempts=[]), accepted_at=MINUTE)

TALK = ConversationRef("default", "ann", "talk")


async def test_what_a_job_recorded_is_given_by_attempt(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    engines.enqueue("a%b")
    engines.enqueue("other")
    job = await history.find("a%b")
    assert await history.recordings(job, 1) == {}
    log.cluster.create_topics([log.topics.recordings])
    fresh = LogHistory(log, log.topics)
    place = TopicPartition(log.topics.recordings.name, recording_partition("a%b", log.topics.recordings.partitions))
    for job_id, attempt, number, value in (
        ("a%b", 1, 0, b"1"), ("a%b", 1, 0, b"2"), ("a%b", 1, 1, b"3"), ("a%b", 2, 0, b"4"), ("other", 1, 0, b"5")
    ):  # fmt: skip
        log.put(place, recording_key(job_id, attempt, RecordingKey("model", number)), value, timestamp=90 * MINUTE)
    found = await jobs(fresh)
    assert "a%b" in {job.id for job in found}
    assert await fresh.recordings(job, 1) == {RecordingKey("model", 0): b"2", RecordingKey("model", 1): b"3"}
    assert await fresh.recordings(job, 2) == {RecordingKey("model", 0): b"4"}
    assert await fresh.recordings(job, 3) == {}
    await fresh.stop()


async def test_recordings_are_read_as_far_as_jobs_can_have_made_them(log: WrittenLog, engines: Engines) -> None:
    log.cluster.create_topics([log.topics.recordings])
    fresh = LogHistory(log, log.topics)
    place = TopicPartition(log.topics.recordings.name, recording_partition("a", log.topics.recordings.partitions))
    epoch, key = engines.claim("one", -1), RecordingKey("model", 0)
    for at, job_id in ((MINUTE, "a"), (600 * MINUTE, "b")):
        put_at(engines, at, job_id)
        engines.run(job_id, epoch)
        give_time(engines, 0, at)
        engines.complete(job_id)
        give_time(engines, 0, at)
        # Both in one partition, whoever's they are.
        log.put(place, recording_key("a", 1 if job_id == "a" else 2, key), job_id.encode(), timestamp=at)
    assert [job.id for job in await jobs(fresh, Span(0, 2 * MINUTE))] == ["a"]
    assert [each.value for each in await fresh.all_recordings("a")] == [b"a"], (
        "the other was recorded when all had ended long ago"
    )
    assert len(await jobs(fresh)) == 2
    assert [each.value for each in await fresh.all_recordings("a")] == [b"a", b"b"]
    assert [record.offset for record in log.given if record.topic == place.topic].count(0) == 1, "nothing is read again"
    await fresh.stop()


async def test_of_jobs_that_are_asked_for_from_the_newest_on_each_answer_is_kept_once(log: WrittenLog, engines: Engines) -> None:
    log.cluster.create_topics([log.topics.recordings])
    fresh = LogHistory(log, log.topics)
    place = TopicPartition(log.topics.recordings.name, recording_partition("a", log.topics.recordings.partitions))
    epoch, times = engines.claim("one", -1), [MINUTE, 600 * MINUTE, 1_200 * MINUTE]
    for number, at in enumerate(times):
        put_at(engines, at, f"job-{number}")
        engines.run(f"job-{number}", epoch)
        give_time(engines, 0, at)
        engines.complete(f"job-{number}")
        give_time(engines, 0, at)
        log.put(place, recording_key("a", 1, RecordingKey("model", number)), b"%d" % number, timestamp=at)
    for number in (2, 1, 0):
        assert len(await jobs(fresh, Span(times[number], times[number] + MINUTE))) == 1
        expected = [b"%d" % each for each in range(number, 3)]
        assert [each.value for each in await fresh.all_recordings("a")] == expected, "in the order of the log"
    values = fresh._answers._values
    assert values is not None and values.append(b"") == 3, "each value is kept once"
    await fresh.stop()


async def test_a_read_goes_on_for_others_when_one_who_waits_gives_up() -> None:
    readers = 0

    class Counting(WrittenLog):
        def reader(self) -> InMemoryReader:
            nonlocal readers
            readers += 1
            return super().reader()

    log = Counting()
    log.cluster.create_topics([log.topics.recordings, log.topics.memory])
    who = ConversationRef("default", "ann", "c")
    answers = TopicPartition(log.topics.recordings.name, recording_partition("job", log.topics.recordings.partitions))
    entries = TopicPartition(log.topics.memory.name, key_partition(conversation_key(*who), log.topics.memory.partitions))
    told = ((SOURCE_HEADER, place_of_job(JOB)),)
    log.put(answers, recording_key("job", 1, RecordingKey("model", 0)), b"1", told, timestamp=90 * MINUTE)
    entry = MemoryEntry.model_validate(
        {"userId": "ann", "conversationId": "c", "id": "e", "role": "user", "content": "x", "at": WHEN}
    )
    log.put(entries, memory_key(*who, "token"), encode(entry))
    log.cluster.withhold(answers, entries)
    history = LogHistory(log, log.topics)
    history._since, history._until = 0, 1 << 50
    reads: list[Callable[[], Awaitable[Any]]] = [lambda: history.recordings(JOB, 1), lambda: history.memory_at(who, 9_000)]
    for read in reads:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await read()
    assert readers == 2
    log.cluster.give_out()
    assert await history.recordings(JOB, 1) == {RecordingKey("model", 0): b"1"}
    assert [each.id for each in (await history.memory_at(who, 9_000)).entries] == ["e"]
    assert readers == 2
    await history.stop()


async def test_what_is_being_read_ends_with_the_history(log: WrittenLog) -> None:
    log.cluster.create_topics([log.topics.recordings])
    place = TopicPartition(log.topics.recordings.name, recording_partition("job", log.topics.recordings.partitions))
    log.put(place, recording_key("job", 1, RecordingKey("model", 0)), b"1", timestamp=90 * MINUTE)
    log.cluster.withhold(place)
    history = LogHistory(log, log.topics)
    history._since, history._until = 0, 1 << 50
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await history.recordings(JOB, 1)
    await history.stop()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "history-read"] == []


def put_entry(log: WrittenLog, entry_id: str) -> None:
    """Somebody says something in `TALK`, in the first second."""
    place = TopicPartition(log.topics.memory.name, key_partition(conversation_key(*TALK), log.topics.memory.partitions))
    entry = {"userId": TALK.user_id, "conversationId": TALK.conversation_id, "id": entry_id, "role": "user", "content": "x"}
    key = memory_key(*TALK, f"token-{entry_id}")
    log.put(place, key, encode(MemoryEntry.model_validate({**entry, "at": WHEN})), timestamp=1_000)


async def test_what_came_since_is_there_when_jobs_are_asked_for_once_more(log: WrittenLog, engines: Engines) -> None:
    """Whoever keeps a history open sees what a job records while it runs, and what is said meanwhile; each is read once."""
    history = LogHistory(log, log.topics)
    engines.enqueue("job")
    engines.run("job", engines.claim("one", -1))
    place = TopicPartition(log.topics.recordings.name, recording_partition("job", log.topics.recordings.partitions))

    async def seen() -> tuple[list[bytes], list[str]]:
        [job] = await jobs(history)
        of_stream = list((await history.recordings(job, 1)).values())
        assert list((await history.recordings(await history.find("job"), 1)).values()) == of_stream
        memory = await history.memory_at(TALK, 9_000)
        assert len(await history.memory_records(TALK, 9_000)) == len(memory.entries)
        return of_stream, [each.id for each in memory.entries]

    assert await seen() == ([], []), "there are no such topics yet"
    log.cluster.create_topics([log.topics.recordings, log.topics.memory])
    assert await seen() == ([], [])
    for number in range(3):
        log.put(place, recording_key("job", 1, RecordingKey("model", number)), b"%d" % number, timestamp=2_000)
        put_entry(log, f"e{number}")
        assert await seen() == ([b"%d" % each for each in range(number + 1)], [f"e{each}" for each in range(number + 1)])
    for topic in (log.topics.recordings, log.topics.memory):
        assert [record.offset for record in log.given if record.topic == topic.name] == [0, 1, 2], "nothing is read again"
    await history.stop()


async def test_what_jobs_recorded_while_a_stream_is_read_is_there_when_they_are_given(log: WrittenLog, engines: Engines) -> None:
    log.cluster.create_topics([log.topics.recordings])
    history, count = LogHistory(log, log.topics), log.topics.recordings.partitions
    number = recording_partition("early", count)
    late = next(name for each in range(100) if recording_partition(name := f"late-{each}", count) == number)
    for partition, name in enumerate(("early", late)):
        engines.enqueue(name, partition)
        engines.run(name, engines.claim("one", -1, partition))
    log.cluster.withhold(engines.state(1))
    batches = history.jobs(Wanted(span=ALWAYS))
    [early] = await anext(batches)
    assert await history.recordings(early, 1) == {}
    key = RecordingKey("model", 0)
    log.put(TopicPartition(log.topics.recordings.name, number), recording_key(late, 1, key), b"1", timestamp=2_000)
    log.cluster.give_out()
    [job] = await anext(batches)
    assert (early.id, job.id) == ("early", late)
    assert await history.recordings(job, 1) == {key: b"1"}
    await batches.aclose()
    await history.stop()
