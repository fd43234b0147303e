"""Views on a real broker: kept equal to it, resumed, rebuilt, through an outage; and measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.bench.view import measure_view
from headrace.broker import LocalBroker
from headrace.core.topics import JOB_STATE_PARTITIONS, Topics
from headrace.kafka import KafkaLog
from headrace.models import Job
from headrace.ports import Committed, Log, NewRecord, TopicPartition
from headrace.settings import Settings, load_settings
from headrace.view_process import process_for
from headrace.views.job_queries import JobFilter
from headrace.views.jobs import JobView
from headrace.views.process.child import StartChild
from headrace.views.workers import WorkerDirectory
from support.log import Member, Outcomes, eventually, members, started
from support.outages import killed
from support.written_jobs import WORKER, Engines, WrittenLog

PATIENCE = 60.0


@dataclass
class Copied:
    """A log in memory, and its copy on a broker: what engines write is made in the one and sent to the other."""

    log: Log
    topics: Topics
    made: WrittenLog
    process: StartChild | None = None
    sent: dict[TopicPartition, int] = field(default_factory=dict)

    async def prepare(self, *workers: str) -> None:
        topics = self.topics
        await self.log.create_topics([topics.workers, topics.job_state, *(topics.jobs(name, 2) for name in workers)])

    async def send(self) -> None:
        """Sends what is new, each record to the offset that it has in memory."""
        outcomes = Outcomes()
        async with started(self.log.writer()) as writer:
            for target in self.made.partitions():
                records = self.made.cluster.records(target)
                fresh = records[self.sent.get(target, 0) :]
                if fresh:
                    news = [NewRecord(record.key or b"", record.value, record.headers) for record in fresh]
                    writer.submit(target, news, outcomes.expect((target, fresh[0].offset)))
                    self.sent[target] = len(records)
            await outcomes.offsets()
        assert all(getattr(outcome, "offset", None) == offset for (_, offset), outcome in outcomes.told)


@pytest.fixture(params=["here", "by a process"])
def process(settings: Settings, request: pytest.FixtureRequest) -> StartChild | None:
    """Who keeps the view."""
    return process_for(settings) if request.param == "by a process" else None


@pytest.fixture
async def copied(settings: Settings, process: StartChild | None) -> AsyncIterator[Copied]:
    log = KafkaLog(settings)
    topics = Topics(settings.namespace)
    yield Copied(log, topics, WrittenLog(topics, state_partitions=JOB_STATE_PARTITIONS), process)
    await log.close()


@asynccontextmanager
async def opened(copied: Copied, path: Path) -> AsyncIterator[JobView]:
    directory = WorkerDirectory(copied.log, copied.topics)
    view = JobView(copied.log, copied.topics, directory, path, process=copied.process)
    await directory.start()
    try:
        await view.start()
        try:
            await view.wait_caught_up(PATIENCE)
            yield view
        finally:
            await view.stop()
    finally:
        await directory.stop()


async def statuses(view: JobView) -> dict[str, str]:
    return {job.id: job.status.value for job in (await view.list_jobs(JobFilter(), limit=1000)).jobs}


async def shows(view: JobView, expected: Mapping[str, str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await statuses(view) != expected:  # noqa: ASYNC110 - a view tells nobody of a new row
            await asyncio.sleep(0.01)


async def test_the_life_of_jobs(copied: Copied, tmp_path: Path) -> None:
    engines = Engines(copied.made)
    engines.define()
    for job_id, partition in (("a", 0), ("b", 1), ("c", 0)):
        engines.enqueue(job_id, partition)
    epoch = engines.claim("one", -1)
    await copied.prepare(WORKER)
    await copied.send()
    async with opened(copied, tmp_path / "jobs.sqlite") as view:
        assert await statuses(view) == {"a": "queued", "b": "queued", "c": "queued"}
        engines.run("a", epoch)
        engines.complete("a", {"sent": 1})
        engines.run("c", epoch)
        engines.fail("c")
        await copied.send()
        await view.catch_up(PATIENCE)
        assert await statuses(view) == {"a": "completed", "b": "queued", "c": "failed"}
        done = await view.get_job("a")
        assert done is not None
        assert done.result == {"sent": 1}
        assert view.trouble is None
        assert view.behind == 0


async def test_a_view_is_resumed_and_can_be_deleted(copied: Copied, tmp_path: Path) -> None:
    engines = Engines(copied.made)
    engines.define()
    await copied.prepare(WORKER)
    for number in range(20):
        engines.enqueue(f"j{number:02}", number % 2)
    epochs = {partition: engines.claim("one", -1, partition) for partition in (0, 1)}
    for number in range(10):
        engines.run(f"j{number:02}", epochs[number % 2])
        engines.complete(f"j{number:02}")
    await copied.send()
    path = tmp_path / "jobs.sqlite"
    async with opened(copied, path) as view:
        first = await statuses(view)
        assert list(first.values()).count("completed") == 10
    engines.run("j10", epochs[0])
    engines.enqueue("j20")
    await copied.send()
    expected = {**first, "j10": "running", "j20": "queued"}
    async with opened(copied, path) as view:
        assert await statuses(view) == expected
    await asyncio.to_thread(path.unlink)
    async with opened(copied, path) as view:
        assert await statuses(view) == expected


async def test_a_rebuilt_view_begins_at_the_watermark(copied: Copied, tmp_path: Path) -> None:
    """What the group has committed has ended, and is shown as `job-state` has it, or not at all."""
    engines = Engines(copied.made)
    engines.define()
    await copied.prepare(WORKER)
    for number in range(6):
        engines.enqueue(f"j{number}", 0)
    epoch = engines.claim("one", -1)
    for number in (1, 2, 4):
        engines.run(f"j{number}", epoch)
        engines.complete(f"j{number}")
    await copied.send()
    member = Member(copied.log, copied.topics.jobs_name(WORKER), copied.topics.group(WORKER))
    async with members(member):
        await member.joined(2)
        assert await member.consumer.commit({TopicPartition(copied.topics.jobs_name(WORKER), 0): Committed(3)})
    async with opened(copied, tmp_path / "jobs.sqlite") as view:
        assert await statuses(view) == {
            "j1": "completed",
            "j2": "completed",
            "j3": "queued",
            "j4": "completed",
            "j5": "queued",
        }


async def test_a_new_worker_is_picked_up(copied: Copied, tmp_path: Path) -> None:
    await copied.prepare()
    async with opened(copied, tmp_path / "jobs.sqlite") as view:
        late = Engines(copied.made, "late")
        await copied.prepare("late")
        late.enqueue("a")
        late.define()
        await copied.send()
        await shows(view, {"a": "queued"})


async def test_an_accepted_job_is_shown_before_its_record_is_read(copied: Copied, tmp_path: Path) -> None:
    engines = Engines(copied.made)
    await copied.prepare(WORKER)
    async with opened(copied, tmp_path / "jobs.sqlite") as view:
        engines.enqueue("a")
        await view.add_accepted(Job.model_validate(engines.snapshots["a"]))
        assert await statuses(view) == {"a": "queued"}
        engines.run("a", engines.claim("one", -1))
        await copied.send()
        await shows(view, {"a": "running"})


async def test_engines_that_come_and_go(copied: Copied) -> None:
    engines = Engines(copied.made)
    engines.define()
    engines.live("one", timestamp=0)
    await copied.prepare()
    await copied.send()
    directory = WorkerDirectory(copied.log, copied.topics)
    await directory.start()
    try:
        await directory.wait_ready(PATIENCE)
        assert [(each.name, each.live_instances) for each in directory.summaries()] == [(WORKER, 1)]
        copied.made.put(TopicPartition(copied.topics.workers.name, 0), b"instance/one", None)
        await copied.send()
        await directory.catch_up(PATIENCE)
        assert [(each.name, each.live_instances) for each in directory.summaries()] == [(WORKER, 0)]
    finally:
        await directory.stop()


@pytest.mark.parametrize("by_process", [False, True])
async def test_a_view_survives_an_outage(fragile_broker: LocalBroker, namespace: str, tmp_path: Path, by_process: bool) -> None:
    settings = load_settings(bootstrap_servers=fragile_broker.bootstrap_servers, namespace=namespace)
    log = KafkaLog(settings)
    topics = Topics(namespace)
    process = process_for(settings) if by_process else None
    copied = Copied(log, topics, WrittenLog(topics, state_partitions=JOB_STATE_PARTITIONS), process)
    engines = Engines(copied.made)
    engines.define()
    await copied.prepare(WORKER)
    engines.enqueue("a")
    await copied.send()
    async with opened(copied, tmp_path / "jobs.sqlite") as view:
        async with killed(fragile_broker):
            assert await statuses(view) == {"a": "queued"}
        engines.run("a", engines.claim("one", -1))
        engines.enqueue("b", 1)
        await copied.send()
        await shows(view, {"a": "running", "b": "queued"})
        await eventually(lambda: view.trouble is None and view.caught_up, "the view to be well again")
    await log.close()


async def test_the_measurement(settings: Settings, tmp_path: Path) -> None:
    log = KafkaLog(settings)
    said: list[str] = []
    result = await measure_view(log, jobs=5_000, say=said.append, directory=tmp_path)
    assert result["jobs"] == 5_000
    assert 5_000 < result["records"] < 7_000
    assert result["ratio"] == pytest.approx(result["records_per_second"] / result["bare_per_second"], abs=0.01)
    assert 0 < result["page_ms_p50"] <= result["page_ms_p99"]
    assert set(result["pages"]) == {"all", "status", "user", "status and user", "worker", "status and worker", "conversation"}
    assert len(said) == 3
    assert not [name for name in await log.topic_names() if name.startswith("bench-")], "it leaves no topics behind"
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
    await log.close()
