"""The audit holds up nobody and is bounded, whatever the brokers do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
import pytest

from headrace import AuditEntry, AuditTrail, BrokerError
from headrace.codec import decode
from headrace.core.topics import AUDIT_PARTITIONS, Topics
from headrace.models import AuditRecord
from headrace.ports import TopicPartition
from headrace.settings import load_settings
from headrace.testing import InMemoryCluster, InMemoryLog
from support.log import eventually

SETTINGS = load_settings()
TOPIC = Topics(SETTINGS.namespace).audit(1).name


def records(cluster: InMemoryCluster) -> list[AuditRecord]:
    """What stands in the log, whatever the partition."""
    partitions = [TopicPartition(TOPIC, number) for number in range(AUDIT_PARTITIONS)]
    return [decode(AuditRecord, record.value) for partition in partitions for record in cluster.records(partition)]


def entry(number: int = 0, **values: Any) -> AuditEntry:
    return AuditEntry(at=1_769_850_900_123 + number, transport="http", outcome="ok", **values)


async def test_each_entry_is_a_record_that_its_model_reads() -> None:
    cluster = InMemoryCluster()
    async with AuditTrail(SETTINGS, log=InMemoryLog(cluster)) as trail:
        for number in range(100):
            trail.write(
                entry(number, tenant="acme", subject=f"user/{number % 7}", tool="scheduler", action="enqueue", job_id="j")
            )
        trail.write(entry(100, left_out=3))
        await eventually(lambda: len(records(cluster)) == 101, "it was written")
    found = {record.at.timestamp(): record for record in records(cluster)}
    known = found[1_769_850_900.150]
    assert known.to_wire() == {
        "schemaVersion": 1,
        "at": "2026-01-31T09:15:00.150Z",
        "gateway": known.gateway,
        "transport": "http",
        "tenant": "acme",
        "subject": "user/6",
        "tool": "scheduler",
        "action": "enqueue",
        "outcome": "ok",
        "jobId": "j",
    }
    assert {record.outcome for record in found.values()} == {"ok"}
    assert sorted(record.left_out or 0 for record in found.values()) == [0] * 100 + [3]


async def test_what_is_written_last_is_in_the_log_after_the_stop() -> None:
    cluster = InMemoryCluster()
    async with AuditTrail(SETTINGS, log=InMemoryLog(cluster)) as trail:
        trail.write(entry())
    assert len(records(cluster)) == 1


async def test_all_records_of_a_principal_stand_in_one_partition_in_their_order() -> None:
    cluster = InMemoryCluster()
    async with AuditTrail(SETTINGS, log=InMemoryLog(cluster)) as trail:
        for number in range(60):
            trail.write(entry(number, tenant="t", subject=str(number % 3)))
            if number % 10 == 0:
                await asyncio.sleep(0.03)
    for subject in "012":
        found = {
            partition: [
                record["at"]
                for record in map(_raw, cluster.records(TopicPartition(TOPIC, partition)))
                if record["subject"] == subject
            ]
            for partition in range(AUDIT_PARTITIONS)
        }
        [times] = [times for times in found.values() if times]
        assert len(times) == 20 and times == sorted(times)


def _raw(record: object) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(record.value)  # type: ignore[attr-defined]
    return found


async def test_brokers_that_are_away_bound_what_waits_and_the_log_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    cluster = InMemoryCluster()
    log = InMemoryLog(cluster)
    async with AuditTrail(SETTINGS, log=log, most_waiting=50) as trail:
        held = cluster.hold_appends(TOPIC)
        for number in range(200):
            trail.write(entry(number, tenant="acme"))
            if number % 20 == 0:
                await asyncio.sleep(0.03)
        assert trail.lost == 150
        held.release()
        await eventually(lambda: len(records(cluster)) == 50, "it was written")
        trail.write(entry(300))
        await eventually(lambda: len(records(cluster)) == 51, "it was written")
    lost = [record for record in caplog.records if "of the audit are lost" in record.getMessage()]
    assert len(lost) == 1 and lost[0].levelno == logging.WARNING, "it is said once, not for each"


async def test_strangers_leave_room_for_those_who_are_known() -> None:
    cluster = InMemoryCluster()
    async with AuditTrail(SETTINGS, log=InMemoryLog(cluster), most_waiting=50) as trail:
        held = cluster.hold_appends(TOPIC)
        for number in range(100):
            trail.write(entry(number))
        for number in range(25):
            trail.write(entry(number, tenant="acme"))
        assert trail.lost == 75
        trail.write(entry(tenant="acme"))
        assert trail.lost == 76
        held.release()
        await eventually(lambda: len(records(cluster)) == 50, "it was written")
    assert [record.tenant for record in records(cluster)].count("acme") == 25


async def test_what_the_brokers_refuse_is_lost_and_the_next_is_written(caplog: pytest.LogCaptureFixture) -> None:
    cluster = InMemoryCluster()
    async with AuditTrail(SETTINGS, log=InMemoryLog(cluster)) as trail:
        cluster.refuse_appends(TOPIC, times=1, reason=BrokerError("The disk is full."))
        trail.write(entry(1))
        await eventually(lambda: trail.lost == 1, "it was written")
        trail.write(entry(2))
        await eventually(lambda: len(records(cluster)) == 1, "it was written")
    assert "1 records of the audit are lost: The disk is full" in caplog.text


async def test_after_the_stop_nothing_is_raised() -> None:
    trail = AuditTrail(SETTINGS, log=InMemoryLog())
    trail.write(entry())
    await trail.start()
    await trail.stop()
    trail.write(entry())
    assert trail.lost == 2
