"""Jobs of a span as a history reads them in bulk, on the real broker: each with the snapshot that counts by the rules."""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka import TopicPartition as ClientPartition
from aiokafka.consumer.fetcher import PartitionRecords

from headrace import Settings
from headrace.core.partitions import state_partition
from headrace.core.records import source_header, status_header
from headrace.core.topics import Topic, Topics
from headrace.kafka import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from headrace.replay import RecordedJob, Span, Wanted, open_history, states_at
from support.engines import read_all
from support.log import Outcomes, numbered, numbers_of, started
from support.traffic import WORKERS, Tally, record_traffic

EVER = Span(0, 2**42)


async def write(log: KafkaLog, target: TopicPartition, records: Iterable[NewRecord]) -> None:
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        writer.submit(target, list(records), outcomes.expect())
        await outcomes.offsets()


async def damage(log: KafkaLog, topics: Topics, settings: Settings) -> None:
    """Writes what nobody can read into a queue and beside its jobs' state, and each request of that queue once more."""
    queue = TopicPartition(topics.jobs_name(Tally.name), 0)
    asked = [each for each in await read_all(settings, queue.topic) if each.partition == queue.partition]
    number = state_partition(Tally.name, queue.partition, topics.job_state.partitions)
    assert asked
    await write(log, queue, [NewRecord(b"x", b"no json"), NewRecord(b"x", b'{"id": 3}'), NewRecord(b"x", None)])
    await write(log, queue, [NewRecord(each.key or b"", each.value) for each in asked])
    headers = (source_header(Tally.name, 0, 0), ("headrace-version", b"9/x"), status_header("running"))
    lease = b"lease/%b/0/nobody" % Tally.name.encode()
    unreadable = [NewRecord(asked[0].key or b"", b"{}", headers), NewRecord(lease, b"no json"), NewRecord(b"x", b"{}")]
    await write(log, TopicPartition(topics.job_state.name, number), unreadable)


async def plain_records(settings: Settings, topic: Topic) -> list[ConsumerRecord[bytes | None, bytes | None]]:
    """All records of a topic in the order of each partition, by a consumer of its own that knows nothing of jobs."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [ClientPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        found, ends = [], await consumer.end_offsets(partitions)
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    finally:
        await consumer.stop()
    return found


def decoded(value: bytes | None) -> Any:
    """What JSON makes of it, or None."""
    try:
        return json.loads(value or b"")
    except ValueError:
        return None


async def asked_and_told(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """By job id, the request as it was first made and the last snapshot. One engine wrote all of it: none of them is void."""
    topics = Topics(settings.namespace)
    requests: dict[str, Any] = {}
    snapshots: dict[str, Any] = {}
    for worker in WORKERS:
        for record in await plain_records(settings, topics.jobs(worker.name)):
            if isinstance(found := decoded(record.value), dict) and found.get("workerName") == worker.name:
                place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "at": record.timestamp}
                requests.setdefault(found["id"], {**place, "record": found})
    for record in await plain_records(settings, topics.job_state):
        found = decoded(record.value)
        if record.key is not None and isinstance(found, dict) and {"id", "status"} <= found.keys():
            snapshots[record.key.decode()] = found
    return requests, snapshots


async def test_each_job_comes_once_with_what_the_rules_make_of_its_records(settings: Settings, log: KafkaLog) -> None:
    traffic = await record_traffic(settings, 300, cancelled=15)
    await damage(log, Topics(settings.namespace), settings)
    async with open_history(settings) as history:
        async with aclosing(history.jobs(Wanted(span=EVER, workers=[worker.name for worker in WORKERS]))) as batches:
            scanned = [job async for batch in batches for job in batch]
        by_id = {job.id: job for job in scanned}
        expected = {job.id for jobs in traffic.jobs.values() for job in jobs}
        assert (len(scanned), set(by_id)) == (len(expected), expected)
        requests, snapshots = await asked_and_told(settings)
        for job in scanned:
            place = {"topic": job.source.topic, "partition": job.source.partition, "offset": job.offset, "at": job.accepted_at}
            assert {**place, "record": job.record} == requests[job.id]
            assert job.snapshot == snapshots[job.id]
        assert set(requests) == expected
        # The state of a moment goes by every record's own rules.
        ruled: dict[str, RecordedJob] = {}
        async with aclosing(states_at(history, time.time_ns() // 1_000_000 + 1_000)) as moments:
            async for batch in moments:
                ruled |= {each.job.id: each.job for each in batch}
        # A moment's state is no record: it has no time in the log.
        assert {job_id: replace(job, snapshot_at=None) for job_id, job in by_id.items()} == ruled
        statuses = Counter(job.snapshot["status"] for job in scanned if job.snapshot is not None)
        assert statuses["cancelled"] == 15 and statuses["failed"] and statuses.total() == len(expected)
        assert any(job.snapshot is not None and job.snapshot["attempt"] > 1 for job in scanned), "there were retries"
        for job in [*scanned[:3], by_id[min(traffic.cancelled)]]:
            assert await history.find(job.id) == job


async def test_what_was_fetched_is_let_go_before_the_garbage_collector_comes_by(log: KafkaLog, topic: str) -> None:
    target = TopicPartition(topic, 0)
    await write(log, target, numbered(range(10)))
    gc.collect()
    gc.disable()
    try:
        async with started(log.reader()) as reader:
            await reader.assign({target: 0}, ends={target: 10})
            assert numbers_of((await reader.fetch_unplaced(timeout=20))[target]) == list(range(10))
            assert await reader.fetch_unplaced(timeout=0.1) == {}
            left = [each for each in gc.get_objects() if type(each) is PartitionRecords and each._tp.topic == topic]
            assert left == []
    finally:
        gc.enable()
