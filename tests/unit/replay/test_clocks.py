"""What a history reads when clients' clocks are not the brokers': all that was written of a job, and not all of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from headrace.core.records import cancellation_key
from headrace.core.snapshots import Writer, running
from headrace.errors import HistoryGone
from headrace.ports import RecordingKey, TopicPartition
from headrace.recordings.records import recording_key, recording_partition
from headrace.replay.history import Span
from headrace.replay.inspection.state import states_at
from headrace.replay.inspection.timeline import timeline_of
from headrace.replay.recorded.log_history import LogHistory
from headrace.replay.recorded.scanning import READERS
from headrace.replay.recorded.spans import AHEAD_MILLISECONDS
from headrace.testing.reader import InMemoryReader
from headrace.testing.storage import StoredRecord
from support.timed_jobs import MINUTE, WHEN, give_time, jobs, put_at, told
from support.written_jobs import Engines, WrittenLog

NOW = 600 * MINUTE
AHEAD = NOW + 59 * MINUTE
SECOND = 1_000


def done(engines: Engines, job_id: str, asked_at: int, done_at: int, partition: int = 0) -> None:
    """A job, and what its engine wrote of it, by the brokers' clock."""
    put_at(engines, asked_at, job_id, partition)
    epoch = engines.claim(f"of-{job_id}", -1, partition)
    give_time(engines, partition, done_at)
    engines.run(job_id, epoch)
    give_time(engines, partition, done_at)
    engines.complete(job_id)
    give_time(engines, partition, done_at)


async def test_a_job_of_a_client_whose_clock_is_ahead_is_found_with_its_end(engines: Engines, history: LogHistory) -> None:
    done(engines, "job", AHEAD, NOW)
    assert (await history.find("job")).has_ended
    assert told(await jobs(history, Span(AHEAD, AHEAD + 1))) == [("job", "completed")]
    found = [each.state["status"] async for batch in states_at(history, AHEAD) for each in batch]
    assert found == ["completed"]


async def test_what_others_wrote_of_a_job_whose_clients_clock_is_ahead_is_told(
    log: WrittenLog, engines: Engines, history: LogHistory
) -> None:
    log.cluster.create_topics([log.topics.control, log.topics.dead_letters, log.topics.recordings])
    done(engines, "job", AHEAD, NOW)
    put_at(engines, AHEAD - MINUTE - 1, "child", 1, parentId="job")
    engines.run("child", engines.claim("one", -1, 1))
    give_time(engines, 1, NOW)
    answers = log.topics.recordings
    place = TopicPartition(answers.name, recording_partition("job", answers.partitions))
    log.put(place, recording_key("job", 1, RecordingKey("model", 0)), b"1", timestamp=NOW)
    log.put(TopicPartition(log.topics.control.name, 0), cancellation_key("default", "job"), b"{}", timestamp=NOW)
    headers = tuple(
        (f"headrace-{name}", value.encode())
        for name, value in {"schema-version": "1", "reason": "poison", "message": "it kills", "job-id": "job"}.items()
    )
    log.put(TopicPartition(log.topics.dead_letters.name, 0), b"job", b"{}", headers, timestamp=NOW)
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == [
        "accepted", "started", "completed", "recorded", "cancel-requested", "dead-letter", "child"
    ]  # fmt: skip
    assert [each.status for each in found.relatives] == ["running"]


@pytest.mark.parametrize("recorded_at", [NOW + 10, NOW - 10])
async def test_nothing_is_told_before_the_job_or_the_attempt_that_it_is_of(
    log: WrittenLog, engines: Engines, history: LogHistory, recorded_at: int
) -> None:
    log.cluster.create_topics([log.topics.recordings])
    put_at(engines, NOW + 2 * SECOND, "job")
    epoch = engines.claim("one", -1)
    engines.run("job", epoch)
    give_time(engines, 0, NOW)
    answers = log.topics.recordings
    place = TopicPartition(answers.name, recording_partition("job", answers.partitions))
    log.put(place, recording_key("job", 1, RecordingKey("model", 0)), b"1", timestamp=recorded_at)
    put_at(engines, NOW + 20, "child", 1, parentId="job")
    engines.complete("job")
    give_time(engines, 0, NOW + 30)
    found = await timeline_of(history, "job")
    assert [line.event for line in found.lines] == ["accepted", "started", "recorded", "child", "completed"]


@pytest.mark.parametrize("ahead", [0, 59 * MINUTE])
async def test_a_job_of_a_client_whose_clock_is_behind_is_found_behind_later_ones(
    engines: Engines, history: LogHistory, ahead: int
) -> None:
    behind = 59 * MINUTE
    put_at(engines, NOW, "first")
    put_at(engines, NOW + behind + ahead, "of another client")
    put_at(engines, NOW, "late")
    assert sorted(job.id for job in await jobs(history, Span(NOW, NOW + 1))) == ["first", "late"]
    found = [each.job.id async for batch in states_at(history, NOW) for each in batch]
    assert sorted(found) == ["first", "late"]
    assert [job.id for job in await jobs(history, Span(NOW + 1, NOW + 200 * MINUTE))] == ["of another client"]


async def test_a_span_is_not_refused_for_first_records_that_are_ahead_of_their_time(
    engines: Engines, history: LogHistory
) -> None:
    for partition in range(2):
        put_at(engines, NOW + 50 * MINUTE, f"ahead-{partition}", partition)
        put_at(engines, NOW + 1, f"job-{partition}", partition)
    assert sorted(job.id for job in await jobs(history, Span(NOW, NOW + MINUTE))) == ["job-0", "job-1"]
    found = [each.job.id async for batch in states_at(history, NOW + 1) for each in batch]
    assert sorted(found) == ["job-0", "job-1"]
    with pytest.raises(HistoryGone, match=r"came from 1970-01-01T10:00:00.001Z to .*Z\. Jobs of clients"):
        await jobs(history, Span(0, NOW + 1))


async def test_leases_are_known_that_were_renewed_within_the_minute_before(engines: Engines, history: LogHistory) -> None:
    asked_at = NOW + AHEAD_MILLISECONDS
    put_at(engines, asked_at, "job")
    engines.claim("two", 0)
    give_time(engines, 0, NOW - 30 * SECOND)
    engines.write(running(engines.snapshots["job"], Writer("one", -1), WHEN))
    give_time(engines, 0, NOW)
    assert told(await jobs(history, Span(asked_at, asked_at + 1))) == [("job", None)], "written by one that held it no more"
    assert (await history.find("job")).snapshot is None
    found = [each.state["status"] async for batch in states_at(history, asked_at) for each in batch]
    assert found == ["queued"]


async def test_reading_begins_at_the_span(log: WrittenLog, engines: Engines, history: LogHistory) -> None:
    log.cluster.create_topics([log.topics.recordings])
    fresh = LogHistory(log, log.topics)
    place = TopicPartition(log.topics.recordings.name, recording_partition("job", log.topics.recordings.partitions))
    early = NOW - AHEAD_MILLISECONDS - 2 * MINUTE
    for job_id, at in (("early", early), ("job", NOW)):
        done(engines, job_id, at, at)
        log.put(place, recording_key("job", 1, RecordingKey(job_id, 0)), b"1", timestamp=at)
    assert told(await jobs(fresh, Span(NOW, NOW + 1))) == [("job", "completed")]
    assert [each.place.key.name for each in await fresh.all_recordings("job")] == ["job"]
    await fresh.stop()
    assert {record.topic for record in log.given} == {place.topic, engines.jobs(0).topic, engines.state(0).topic}
    assert [record for record in log.given if record.timestamp < NOW] == []


async def test_partitions_are_read_side_by_side(
    log: WrittenLog, engines: Engines, history: LogHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for partition in range(8):
        done(engines, f"job-{partition}", NOW, NOW, partition)
    assert len({engines.state(partition) for partition in range(8)}) >= READERS
    together = asyncio.Barrier(READERS)

    class Together(InMemoryReader):
        """Gives nothing for the first time before so many have asked."""

        has_met = False

        async def fetch(self, *, timeout: float, maximum: int | None = None) -> Mapping[TopicPartition, Sequence[StoredRecord]]:
            if not self.has_met:
                self.has_met = True
                async with asyncio.timeout(20):
                    await together.wait()
            return await super().fetch(timeout=timeout, maximum=maximum)

    monkeypatch.setattr(log, "reader", lambda: Together(log.cluster, log._link))
    assert len(await jobs(history, Span(NOW, NOW + 1))) == 8
