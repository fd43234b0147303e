"""Engines for tests: in this process, and as real processes with the workers of a file; and what they wrote to the log."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psutil

from headrace import AbstractWorker, Client, Job, Settings, WorkerEngine
from headrace.core.records import LEASE_PREFIX
from headrace.core.topics import Topic, Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import Record, TopicPartition

ResultT = TypeVar("ResultT")

PATIENCE_SECONDS = 60.0


async def eventually(check: Callable[[], Awaitable[ResultT | None]], *, within: float = PATIENCE_SECONDS) -> ResultT:
    """What `check` gives, as soon as it is neither None nor False; asked again and again for a bounded time."""
    deadline = time.monotonic() + within
    while True:
        found = await check()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"{check} did not come true within {within} s"
        await asyncio.sleep(0.02)


async def ended(client: Client, job: Job, *, within: float = PATIENCE_SECONDS) -> Job:
    """The job, when it has ended."""

    async def look() -> Job | None:
        found = await client.get_job(job.id)
        return found if found is not None and found.status in ("completed", "failed", "cancelled") else None

    return await eventually(look, within=within)


@asynccontextmanager
async def engine_with(settings: Settings, *workers: Any, grace: float = 10.0) -> AsyncIterator[WorkerEngine]:
    """A running engine in this process."""
    engine = WorkerEngine(settings)
    for each in workers:
        engine.register_worker(each)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(grace_seconds=grace)


def with_engine(settings: Settings, **changes: Any) -> Settings:
    """The settings with other values for the engine."""
    return settings.model_copy(update={"engine": settings.engine.model_copy(update=changes)})


class EngineProcess:
    """`headrace engine` as processes of its own, a supervisor and its engines, running the workers of a file.

    Attributes:
        log: what they print.
        process: the supervisor.
    """

    def __init__(self, settings: Settings, workers: Path, *options: str, **environment: str) -> None:
        self.log = workers.with_suffix(f".{time.monotonic_ns()}.log")
        variables = {
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
            "HEADRACE_NAMESPACE": settings.namespace,
            "HEADRACE_DATA_DIRECTORY": str(settings.data_directory),
            **environment,
        }
        command = [sys.executable, "-m", "headrace", "engine", workers.stem, "--no-shipped", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=workers.parent, env={**os.environ, **variables}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def engines(self) -> list[psutil.Process]:
        """The engines that the supervisor runs now; what they start in turn is not among them."""
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "engine" in child.cmdline()]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Ends all of it at once, as a power cut would."""
        try:
            everyone = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            everyone = []
        self.process.kill()  # first: nobody is to say that an engine has died
        for each in everyone:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait(30)
        psutil.wait_procs(everyone, timeout=30)

    def terminate(self, *, within: float = 40.0) -> int:
        """Asks it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(within)


@contextmanager
def engine_process(settings: Settings, workers: Path, *options: str, **environment: str) -> Iterator[EngineProcess]:
    """An engine process that is gone at the end, however the test ends; on a failure, what it printed is shown."""
    engine = EngineProcess(settings, workers, *options, **environment)
    try:
        yield engine
    except BaseException:
        print(engine.log.read_text())  # noqa: T201 - shown by pytest with the failure
        raise
    finally:
        if engine.process.poll() is None:
            engine.kill()


async def read_all(settings: Settings, topic: Topic | str) -> list[Record]:
    """All records of a topic, by partition and offset."""
    log = KafkaLog(settings)
    name = topic if isinstance(topic, str) else topic.name
    reader = log.reader()
    await reader.start()
    try:
        partitions = [TopicPartition(name, number) for number in range(await log.partition_count(name))]
        await reader.assign(dict.fromkeys(partitions, 0))
        ends = await reader.end_offsets(partitions)
        records: list[Record] = []
        positions = await reader.positions()
        while any(positions[partition] < end for partition, end in ends.items()):
            for batch in (await reader.fetch(timeout=0.5)).values():
                records.extend(batch)
            positions = await reader.positions()
        return sorted(records, key=lambda record: (record.partition, record.offset))
    finally:
        await reader.stop()
        await log.close()


async def snapshots_of(settings: Settings, job_id: str) -> list[dict[str, Any]]:
    """All snapshots of a job in `job-state`, in the order of the log."""
    records = await read_all(settings, Topics(settings.namespace).job_state)
    return [orjson.loads(record.value or b"null") for record in records if record.key == job_id.encode()]


async def committed(settings: Settings, worker: type[AbstractWorker[Any]] | str) -> dict[int, int]:
    """The committed offset of each partition of a worker's queue."""
    topics = Topics(settings.namespace)
    name = worker if isinstance(worker, str) else worker.name
    log = KafkaLog(settings)
    try:
        offsets = await log.committed_offsets(topics.group(name))
    finally:
        await log.close()
    return {source.partition: offset for source, offset in offsets.items() if source.topic == topics.jobs_name(name)}


async def releases(settings: Settings) -> list[dict[str, Any]]:
    """All releases in the log, in order by partition."""
    records = await read_all(settings, Topics(settings.namespace).job_state)
    values = [orjson.loads(each.value) for each in records if each.value and (each.key or b"").startswith(LEASE_PREFIX)]
    return [value for value in values if value["kind"] == "release"]
