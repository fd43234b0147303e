"""What an engine promises of the log: who may write, what is known before anything starts, and what is committed when."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace import AbstractWorker, BrokerUnreachable, Client, JobContext, Settings
from headrace.broker import LocalBrokerOptions, start_local_broker
from headrace.codec import encode
from headrace.core.lease import LeaseTiming
from headrace.core.ownership import Version
from headrace.core.partitions import state_partition
from headrace.core.records import lease_key, source_header, status_header, version_header
from headrace.core.recovery import PartitionRecovery
from headrace.core.topics import JOB_STATE_PARTITIONS, Topics
from headrace.engine.news import WorkerNews
from headrace.engine.partition import OwnedPartition
from headrace.engine.takeover import Claimant, Takeover
from headrace.kafka.log import KafkaLog
from headrace.models import ClaimRecord
from headrace.ports import NewRecord, TopicPartition
from headrace.runtime import system_clock
from headrace.settings import load_settings
from support.engines import committed, ended, engine_with, eventually, read_all, snapshots_of, with_engine


class Watchful(AbstractWorker[dict[str, Any]]):
    """Looks into the log from within the attempt."""

    name = "watchful"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def run(self, args: dict[str, Any], ctx: JobContext) -> list[str]:
        return [each["status"] for each in await snapshots_of(self.settings, ctx.job.id)]


async def test_running_is_in_the_log_before_the_work_starts(settings: Settings) -> None:
    async with engine_with(settings, Watchful(settings)) as engine, Client(settings) as client:
        job = await ended(client, await engine.enqueue("watchful", {}))
    assert job.result == ["running"]


class Gated(AbstractWorker[dict[str, Any]]):
    name = "gated"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.attempts: dict[str, list[int]] = {}

    async def run(self, args: dict[str, Any], ctx: JobContext) -> None:
        self.attempts.setdefault(args["name"], []).append(ctx.attempt)
        if args.get("waits"):
            await self.gate.wait()


def one_partition(settings: Settings) -> Settings:
    return with_engine(settings, partitions=1, commit_interval_seconds=0.05)


async def test_the_watermark_waits_for_the_slowest(settings: Settings) -> None:
    gated, settings = Gated(), one_partition(settings)
    async with engine_with(settings, gated) as engine, Client(settings) as client:
        first = await engine.enqueue("gated", {"name": "first"})
        await ended(client, first)
        slow = await engine.enqueue("gated", {"name": "slow", "waits": True})
        for number in range(20):
            await ended(client, await engine.enqueue("gated", {"name": f"quick-{number}"}))

        async def at(offset: int) -> bool:
            return await committed(settings, "gated") == {0: offset}

        await eventually(lambda: at(1))
        gated.gate.set()
        await ended(client, slow)
        await eventually(lambda: at(22))


async def test_what_ended_above_the_watermark_does_not_run_again_in_the_next_engine(settings: Settings) -> None:
    settings = one_partition(settings)
    first, second = Gated(), Gated()
    second.gate.set()
    async with Client(settings) as client:
        async with engine_with(settings, first, grace=0.0) as engine:
            slow = await engine.enqueue("gated", {"name": "slow", "waits": True})
            for number in range(20):
                await ended(client, await engine.enqueue("gated", {"name": f"quick-{number}"}))
        assert (await client.get_job(slow.id)) is not None
        async with engine_with(settings, second):
            done = await ended(client, slow)
    assert done.attempt == 2
    assert second.attempts == {"slow": [2]}, "the only job that had not ended"


class Cut(AbstractWorker[dict[str, Any]]):
    """Loses the broker in its first attempt, and says in which order its attempts were made."""

    name = "cut"
    order_by = ("key",)

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    async def run(self, args: dict[str, Any], ctx: JobContext) -> str:
        self.seen.append((args["name"], ctx.attempt))
        if args["name"] == "first" and ctx.attempt == 1:
            raise BrokerUnreachable("no answer within 10 s")
        return "done"


async def test_a_broker_that_was_away_while_a_job_ran_is_no_failure_of_the_job(settings: Settings) -> None:
    cut = Cut()
    async with engine_with(settings, cut) as engine, Client(settings) as client:
        first = await engine.enqueue("cut", {"name": "first", "key": "k"})
        second = await engine.enqueue("cut", {"name": "second", "key": "k"})
        done = await ended(client, first)
        await ended(client, second)
    assert (done.status, done.result) == ("completed", "done")
    assert [(attempt.attempt, attempt.status) for attempt in done.attempts] == [(1, "interrupted"), (2, "completed")]
    assert cut.seen == [("first", 1), ("first", 2), ("second", 1)], "it runs again before the others of its key"


RACING = 5


def candidate(name: str = "claimed") -> OwnedPartition:
    return OwnedPartition(
        source=TopicPartition("unused", 0),
        state_partition=state_partition(name, 0, JOB_STATE_PARTITIONS),
        recovery=PartitionRecovery(name, 0, 0),
    )


async def test_of_racing_claims_one_at_a_time_holds_and_later_records_of_the_others_are_void(settings: Settings) -> None:
    log, topics = KafkaLog(settings), Topics(settings.namespace)
    await log.create_topics([topics.job_state])
    writer = log.writer()
    await writer.start()
    won: list[OwnedPartition] = []

    async def take(instance: str) -> None:
        reader = log.reader()
        await reader.start()
        # A term so short that the others wait for it: nobody renews, and nobody releases.
        claimant = Claimant(reader, writer, topics.job_state.name, instance, system_clock, LeaseTiming(1.0), by_log_time=False)
        await Takeover(claimant, won.append, {}, WorkerNews("count")).run([candidate()])
        await reader.stop()

    await asyncio.gather(*(take(f"instance-{number}") for number in range(RACING)))
    await writer.stop(timeout=5)
    await log.close()
    assert len(won) == RACING, "every one had its turn"
    epochs = [partition.writer.epoch for partition in won]
    assert len(set(epochs)) == RACING
    ledger = candidate().recovery.ledger
    valid = []
    for record in await read_all(settings, topics.job_state):
        claim = orjson.loads(record.value or b"")
        if ledger.claim(record.offset, claim["previous"], claim["instanceId"]):
            valid.append(record.offset)
    # A valid claim may be overtaken before its writer has read it: then the writer claims once more.
    assert set(epochs) <= set(valid), "who believes to hold the partition has a claim that every reader takes for valid"
    assert all(partition.writer.epoch == ledger.epoch or ledger.is_void(partition.writer.epoch) for partition in won)


async def test_a_new_owner_believes_no_last_words_of_a_frozen_one(settings: Settings) -> None:
    settings, topics = one_partition(settings), Topics(settings.namespace)
    gated = Gated()
    gated.gate.set()
    async with Client(settings) as client:
        job = await client.enqueue(gated, {"name": "contested"})
        # A former owner began the job; another claimed the partition; then the former one woke up and said it was done.
        number = state_partition("gated", 0, JOB_STATE_PARTITIONS)
        log = KafkaLog(settings)
        writer = log.writer()
        await writer.start()

        async def write(key: bytes, value: bytes, *headers: tuple[str, bytes]) -> int:
            target = TopicPartition(topics.job_state.name, number)
            return (await writer.append(target, NewRecord(key, value, headers), timeout=10)).offset

        def claim(instance: str, previous: int) -> tuple[bytes, bytes]:
            record = ClaimRecord(worker_name="gated", partition=0, instance_id=instance, previous=previous, term_seconds=2)
            return lease_key("gated", 0, instance), encode(record)

        async def say(status: str, sequence: int, epoch: int) -> None:
            attempt = {
                "attempt": 1,
                "epoch": epoch,
                "instanceId": "frozen",
                "startedAt": "2026-01-01T00:00:00.000Z",
                "status": status,
            }
            snapshot = {
                **job.to_wire(),
                "status": status,
                "epoch": epoch,
                "attempt": 1,
                "sequence": sequence,
                "attempts": [attempt],
            }
            headers = source_header("gated", 0, 0), version_header(Version(epoch, 1, sequence)), status_header(status)
            await write(job.id.encode(), orjson.dumps(snapshot), *headers)

        frozen = await write(*claim("frozen", -1))
        await say("running", 1, frozen)
        await write(*claim("other", frozen))
        await say("completed", 2, frozen)
        await writer.stop(timeout=5)
        await log.close()
        async with engine_with(settings, gated):
            done = await ended(client, job)
    assert gated.attempts == {"contested": [2]}, "it was not done, and its first attempt is known"
    assert [(attempt.instance_id == "frozen", attempt.status) for attempt in done.attempts] == [
        (True, "interrupted"),
        (False, "completed"),
    ]


@pytest.fixture
def own_broker_directory(tmp_path: Path) -> Path:
    return tmp_path / "broker"


async def test_an_engine_waits_while_the_broker_is_away_and_carries_on_by_itself(
    own_broker_directory: Path, tmp_path: Path
) -> None:
    broker = await asyncio.to_thread(start_local_broker, own_broker_directory)
    port = int(broker.bootstrap_servers.rpartition(":")[2])
    settings = load_settings(bootstrap_servers=broker.bootstrap_servers, namespace="outage", data_directory=tmp_path / "data")
    gated = Gated()
    try:
        async with engine_with(settings, gated) as engine, Client(settings) as client:
            held = await engine.enqueue("gated", {"name": "held", "waits": True})

            async def begun() -> bool:
                return "held" in gated.attempts

            await eventually(begun)
            await asyncio.to_thread(broker.stop)
            gated.gate.set()  # the end of the job cannot be written now
            broker = await asyncio.to_thread(start_local_broker, own_broker_directory, LocalBrokerOptions(port=port))
            assert (await ended(client, held)).status == "completed"
            assert (await ended(client, await engine.enqueue("gated", {"name": "after"}))).status == "completed"
            assert gated.attempts["after"] == [1]
    finally:
        await asyncio.to_thread(broker.stop)
