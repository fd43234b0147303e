"""What a janitor writes to a real cluster over the last words of a frozen engine (rules J1 and J2 of the ownership protocol)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from headrace import AbstractWorker, Client, Job, JobContext, Settings
from headrace.codec import encode
from headrace.core import snapshots
from headrace.core.partitions import state_partition
from headrace.core.records import (
    lease_key,
    parse_removal,
    parse_snapshot_headers,
    source_header,
    status_header,
    version_header,
)
from headrace.core.snapshots import Writer, version_of
from headrace.core.topics import JOB_STATE_PARTITIONS, Topics
from headrace.engine import janitor
from headrace.kafka.log import KafkaLog
from headrace.models import ClaimRecord, ReleaseRecord
from headrace.ports import LogWriter, NewRecord, Record, TopicPartition
from support.engines import ended, engine_with, eventually, read_all, with_engine

AT = "2026-03-02T09:31:00.000Z"


class Quick(AbstractWorker[dict[str, Any]]):
    name = "quick"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        return "done"


class Frozen:
    """An engine that exists in the log alone, and writes there what it is told."""

    def __init__(self, settings: Settings, writer: LogWriter, name: str) -> None:
        self._writer = writer
        self.name = name
        self.epoch = -1
        self._state = TopicPartition(
            Topics(settings.namespace).job_state.name, state_partition(Quick.name, 0, JOB_STATE_PARTITIONS)
        )
        self.lease_key = lease_key(Quick.name, 0, name)

    async def claim(self) -> None:
        """Claims as if nobody had before."""
        record = ClaimRecord(worker_name=Quick.name, partition=0, instance_id=self.name, previous=-1, term_seconds=25.0)
        acknowledged = await self._writer.append(self._state, NewRecord(self.lease_key, encode(record)), timeout=20)
        self.epoch = acknowledged.offset

    async def release(self) -> None:
        record = ReleaseRecord(worker_name=Quick.name, partition=0, instance_id=self.name, epoch=self.epoch, reason="stopped")
        await self._writer.append(self._state, NewRecord(self.lease_key, encode(record)), timeout=20)

    async def begin(self, job: Job) -> None:
        """Writes under its claim that an attempt of the job begins."""
        assert job.source is not None
        source = job.source.to_wire()
        accepted = snapshots.queued(job.to_wire(), source)
        snapshot = snapshots.running(accepted, Writer(self.name, self.epoch), AT)
        headers = (
            source_header(Quick.name, 0, job.source.offset),
            version_header(version_of(snapshot)),
            status_header(snapshot["status"]),
        )
        await self._writer.append(self._state, NewRecord(job.id.encode(), orjson.dumps(snapshot), headers), timeout=20)


@asynccontextmanager
async def writing(settings: Settings) -> AsyncIterator[LogWriter]:
    log = KafkaLog(settings)
    writer = log.writer()
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop(timeout=5)
        await log.close()


async def last_of(settings: Settings, key: bytes) -> Record:
    """The last record of a key."""
    return [record for record in await read_all(settings, Topics(settings.namespace).job_state) if record.key == key][-1]


async def test_what_counts_is_written_again_and_what_counts_for_nothing_is_removed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "TIMES", replace(janitor.TIMES, start=0.0, round=0.5, settled=0.5))
    settings, topics = with_engine(settings, partitions=1), Topics(settings.namespace)
    async with writing(settings) as writer, Client(settings) as client:
        frozen, loser = (Frozen(settings, writer, name) for name in ("frozen", "loser"))
        log = KafkaLog(settings)
        await log.create_topics([topics.job_state])
        await log.close()
        await frozen.claim()
        await frozen.release()
        async with engine_with(settings, Quick()) as engine:
            job = await ended(client, await engine.enqueue(Quick.name, {}))
            assert job.source is not None
            ghost = job.model_copy(update={"id": "ghost", "source": job.source.model_copy(update={"offset": 7})})
            await frozen.begin(job)
            await frozen.begin(ghost)
            await loser.claim()

            async def repeated() -> bool:
                headers = parse_snapshot_headers((await last_of(settings, job.id.encode())).headers)
                return headers is not None and headers.repeated and headers.status == "completed"

            async def removed() -> bool:
                leases = [await last_of(settings, each.lease_key) for each in (frozen, loser)]
                return all(lease.value is None for lease in leases)

            async def forgotten() -> bool:
                record = await last_of(settings, b"ghost")
                removal = parse_removal(record.headers)
                return record.value is None and removal is not None and removal.reason == "void"

            for tidied in (repeated, removed, forgotten):
                await eventually(tidied)
            found = await client.get_job(job.id)
            assert found is not None and (found.status, found.result, found.instance_id) == (
                "completed",
                "done",
                engine.instance_id,
            )
            assert (await client.get_job("ghost")) is None
