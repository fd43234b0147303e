"""What an attempt takes from the earlier ones of its job, and not from those of another job that had its id before."""

from __future__ import annotations

import asyncio

import orjson

from headrace.core.timestamps import format_timestamp
from headrace.core.topics import Topics
from headrace.models import Job
from headrace.ports import NewRecord, RecordingKey, TopicPartition
from headrace.recordings import LiveRecordings
from headrace.recordings.records import recording_key, recording_partition
from headrace.testing import InMemoryLog

TOPICS = Topics("recorded")
NOW = 500 * 3_600_000
HOUR = 3_600_000


def job(job_id: str, started: int) -> Job:
    began = format_timestamp(started)
    given = {"id": job_id, "workerName": "asks", "status": "running"}
    return Job.model_validate({**given, "createdAt": began, "updatedAt": began, "startedAt": began})


async def test_what_does_not_say_whose_it_is_is_not_taken_where_it_is_older_than_the_job() -> None:
    """Engines of before said that of nothing. Another job that waits, and began before all of it, has all of it read."""
    log, count = InMemoryLog(), TOPICS.recordings.partitions
    await log.create_topics([TOPICS.recordings])
    number = recording_partition("job", count)
    other = next(each for each in map(str, range(100)) if recording_partition(each, count) == number)
    for at, name in ((NOW - 2 * HOUR, "another's"), (NOW + 10, "own")):
        record = NewRecord(recording_key("job", 1, RecordingKey(name, 0)), orjson.dumps(name))
        log.cluster.append(TopicPartition(TOPICS.recordings.name, number), record, timestamp=at)
    recordings = LiveRecordings(log, TOPICS)
    found, _ = await asyncio.gather(
        recordings.before(job("job", NOW), 2),
        recordings.before(job(other, NOW - 3 * HOUR), 2),
    )
    assert found == {RecordingKey("own", 0): b'"own"'}
    await recordings.stop(timeout=0)
