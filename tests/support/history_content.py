"""What a namespace has that a history is to give: in a log in memory, in the same records on a cluster, and in an export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson

from headrace.codec import encode
from headrace.core.partitions import key_partition
from headrace.core.records import conversation_key, memory_key
from headrace.core.topics import Topics
from headrace.models import MemoryEntry
from headrace.ports import AppendFailed, ConversationRef, Log, NewRecord, RecordingKey, TopicPartition
from headrace.recordings.records import recording_key, recording_partition
from headrace.replay import Span, Wanted
from headrace.replay.exports.exporting import export_span
from headrace.replay.exports.file_history import FileHistory, read_file_history
from headrace.replay.recorded.log_history import LogHistory
from support.written_jobs import JOB_PARTITIONS, STATE_PARTITIONS, Engines, WrittenLog

TRIP = ConversationRef("default", "ann", "trip")
SELLS, PACKS, IDLE = "sells", "packs", "idle"
"""Workers; of the last one no job was ever accepted."""


def written_log(namespace: str) -> WrittenLog:
    """Jobs of two workers, of which one was done, with a child, recordings and memory; one has failed, and one waits."""
    log = WrittenLog(Topics(namespace))
    log.cluster.create_topics([log.topics.recordings, log.topics.memory])
    entry = MemoryEntry(**TRIP._asdict(), id="e", role="user", content="to Rome", at="2026-03-02T09:30:00.000Z")
    memory = log.topics.memory
    place = TopicPartition(memory.name, key_partition(conversation_key(*TRIP), memory.partitions))
    log.put(place, memory_key(*TRIP, "token"), encode(entry))
    sells, packs, idle = Engines(log, SELLS), Engines(log, PACKS), Engines(log, IDLE)
    for each in (sells, packs, idle):
        each.define()
    sells.enqueue("sold", args={"for": {"whom": "ann"}})
    sells.enqueue("refused")
    sells.enqueue("waiting", 1, ctx={"userId": "bob"})
    packs.enqueue("packed", parentId="sold")
    epoch = sells.claim("one", -1)
    sells.run("sold", epoch)
    sells.complete("sold", {"total": 21})
    sells.run("refused", epoch)
    sells.fail("refused", message="the till is closed")
    packs.run("packed", packs.claim("one", -1))
    packs.complete("packed")
    answers = log.topics.recordings
    for number, value in enumerate((7, {"rate": 3})):
        answered = TopicPartition(answers.name, recording_partition("sold", answers.partitions))
        log.put(answered, recording_key("sold", 1, RecordingKey("rate", number)), orjson.dumps(value))
    return log


async def copied(written: WrittenLog, log: Log) -> None:
    """Writes all of it to another log, in the same order within each partition; the times are those at which that is done."""
    topics = written.topics
    queues = [topics.jobs(worker, JOB_PARTITIONS) for worker in (SELLS, PACKS, IDLE)]
    shared = [topics.workers, topics.recordings, topics.memory, replace(topics.job_state, partitions=STATE_PARTITIONS)]
    # What was accepted comes after the memory of then, and before what was made of it.
    await log.create_topics([*shared, *queues])
    names = [topics.workers.name, topics.memory.name, *(queue.name for queue in queues)]
    writer = log.writer()
    await writer.start()
    try:
        for name in (*names, topics.job_state.name, topics.recordings.name):
            records = [
                (TopicPartition(each.topic, each.partition), NewRecord(each.key or b"", each.value, each.headers))
                for each in written.cluster.topic_records(name)
            ]
            outcomes = await writer.append_all(records, timeout=30)
            assert not [each for each in outcomes if isinstance(each, AppendFailed)]
    finally:
        await writer.stop(timeout=5)


async def exported_jobs(written: WrittenLog, path: Path) -> FileHistory:
    """The same out of a file: all jobs in their span."""
    history = LogHistory(written, written.topics)
    try:
        jobs = [job async for batch in history.jobs(Wanted(span=Span(0, 1 << 50))) for job in batch]
        times = [job.accepted_at for job in jobs]
        await export_span(history, Wanted(span=Span(min(times), max(times) + 1)), path)
    finally:
        await history.stop()
    return read_file_history(path)
