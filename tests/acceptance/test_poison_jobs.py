"""A job that takes its engine with it, on a real broker: it falls alone in the end, and its neighbours do not suffer for long."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace import Client, Job, Settings
from headrace.codec import encode
from headrace.core.ownership import PartitionLedger
from headrace.core.records import lease_key, parse_lease_key
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.leases import take_lease
from headrace.models import ReleaseRecord
from headrace.ports import NewRecord, TopicPartition
from support.engines import EngineProcess, ended, engine_process, eventually, read_all

WORKERS = """
import os
import time
from pathlib import Path

from headrace import worker

HERE = Path(__file__).parent


@worker(category="test", order_by=("key",))
async def step(args, ctx):
    with (HERE / "ran.txt").open("a") as file:
        file.write(f"{args['name']} {ctx.attempt} {os.getpid()}\\n")
    if args.get("kills"):
        os.kill(os.getpid(), 9)
    return os.getpid()


@worker(category="test", timeout=0.2)
def block(args, ctx):
    (HERE / "blocks").touch()
    time.sleep(600)
"""
QUICK = {"HEADRACE_ENGINE_SESSION_TIMEOUT_SECONDS": "6", "HEADRACE_ENGINE_PARTITIONS": "1"}


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    file = tmp_path / "my_workers.py"
    file.write_text(WORKERS)
    return file


def ran(workers: Path, name: str) -> list[tuple[int, int]]:
    """The attempts of a job that began, as (number, process)."""
    lines = [line.split() for line in (workers.parent / "ran.txt").read_text().splitlines()]
    return [(int(attempt), int(pid)) for each, attempt, pid in lines if each == name]


async def enqueue(client: Client, worker: str, **args: object) -> Job:
    async def defined() -> bool:
        return worker in await client.worker_definitions()

    await eventually(defined)
    return await client.enqueue(worker, args)


async def ends(engine: EngineProcess) -> int:
    """The exit code of an engine that ends by itself."""

    async def look() -> list[int] | None:
        code = engine.process.poll()
        return None if code is None else [code]

    [code] = await eventually(look)
    return code


async def say_that_it_died(settings: Settings) -> None:
    """What a supervisor does when it has seen its engine die: it releases each lease that was held."""
    topics = Topics(settings.namespace)
    ledgers: dict[tuple[str, int], tuple[PartitionLedger, int]] = {}
    for record in await read_all(settings, topics.job_state):
        if (key := parse_lease_key(record.key or b"")) is not None:
            ledger, _ = ledgers.setdefault((key.worker, key.partition), (PartitionLedger(), record.partition))
            take_lease(ledger, record)
    log = KafkaLog(settings)
    writer = log.writer()
    await writer.start()
    for (worker, number), (ledger, state) in ledgers.items():
        if not ledger.released and ledger.holder is not None:
            release = ReleaseRecord(
                worker_name=worker, partition=number, instance_id=ledger.holder, epoch=ledger.epoch, reason="died"
            )
            target = TopicPartition(topics.job_state.name, state)
            await writer.append(target, NewRecord(lease_key(worker, number, ledger.holder), encode(release)), timeout=10)
    await writer.stop(timeout=5)
    await log.close()


async def test_the_third_process_that_dies_with_a_job_is_one_of_its_own(settings: Settings, workers: Path) -> None:
    async with Client(settings) as client:
        with ExitStack() as engines:
            first = engines.enter_context(engine_process(settings, workers, **QUICK))
            await ended(client, await enqueue(client, "step", name="before", key="other"))
            poison = await enqueue(client, "step", name="poison", key="k", kills=True)
            behind = await enqueue(client, "step", name="behind", key="k")
            assert await ends(first) == -9
            beside = await enqueue(client, "step", name="beside", key="other")
            await say_that_it_died(settings)
            second = engines.enter_context(engine_process(settings, workers, **QUICK))
            assert await ends(second) == -9
            await say_that_it_died(settings)
            third = engines.enter_context(engine_process(settings, workers, **QUICK))
            job = await ended(client, poison)
            [after, neighbour] = [await ended(client, each) for each in (behind, beside)]
            [letter] = [each async for each in client.dead_letters(reason="poison")]
            assert third.terminate() == 0
    assert (job.status, job.crashes, job.attempt, job.failures) == ("failed", 3, 3, 0)
    assert job.error is not None and job.error.type == "poison"
    attempts = ran(workers, "poison")
    assert [number for number, _ in attempts] == [1, 2, 3]
    assert [pid == engine.process.pid for (_, pid), engine in zip(attempts, (first, second, third), strict=True)] == [
        True,
        True,
        False,
    ]
    assert (after.status, after.attempt, after.result) == ("completed", 1, third.process.pid)
    assert neighbour.status == "completed"
    assert (letter.job_id, letter.attempt) == (poison.id, 3)
    assert (letter.record() or {})["args"]["name"] == "poison"


async def test_an_engine_with_a_thread_that_never_ends_drains_and_exits(settings: Settings, workers: Path) -> None:
    stuck = {"HEADRACE_ENGINE_STUCK_SECONDS": "1"}
    async with Client(settings) as client:
        with engine_process(settings, workers, "--grace", "1", **QUICK, **stuck) as engine:
            beside = await ended(client, await enqueue(client, "step", name="beside", key="k"))
            await enqueue(client, "block")
            assert await ends(engine) == 3
            assert "goes on 1 s later: the engine ends" in await asyncio.to_thread(engine.log.read_text)
    assert beside.status == "completed"
