"""A client over a cluster in memory: what it answers when it could not read everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import orjson
import pytest

from headrace import (
    ArgumentsInvalid,
    BrokerUnreachable,
    Client,
    ConfigurationError,
    EnqueueTimeout,
    RetryPolicy,
    WorkerDefinition,
    WorkerEngine,
    load_settings,
)
from headrace.codec import encode
from headrace.core.records import definition_key
from headrace.core.topics import JOB_STATE_PARTITIONS, Topic, Topics
from headrace.ports import NewRecord, TopicPartition
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace.views import on_demand
from support.log import eventually
from support.virtual_time import in_virtual_time

DEFINITION = WorkerDefinition(name="digest", description="Sends a digest.", category="test")
PATIENCE = 10.0


async def test_a_list_is_never_half_of_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = InMemoryCluster()
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    topics = Topics(settings.namespace)
    partitions = [TopicPartition(topics.job_state.name, number) for number in range(JOB_STATE_PARTITIONS)]
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        definition = NewRecord(definition_key(DEFINITION.name), encode(DEFINITION))
        cluster.append(TopicPartition(topics.workers.name, 0), definition)
        job = await client.enqueue(DEFINITION.name, {})
        cluster.append(partitions[0], NewRecord(b"gone", None))
        cluster.withhold(*partitions)
        monkeypatch.setattr(on_demand, "_CATCH_UP_SECONDS", 0.3)
        for _ in range(2):
            with pytest.raises(BrokerUnreachable, match=r"could not be read within 0.3 s \(1 records are left\)"):
                await client.list_jobs()
        with pytest.raises(BrokerUnreachable, match="could not be read"):
            await client.get_job(job.id)
        cluster.give_out()
        monkeypatch.setattr(on_demand, "_CATCH_UP_SECONDS", 20.0)
        assert [each.id for each in (await client.list_jobs()).jobs] == [job.id]


async def test_a_job_s_own_policy_and_timeout_stand_in_its_record_and_in_the_list(tmp_path: Path) -> None:
    cluster = InMemoryCluster()
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    topics = Topics(settings.namespace)
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        definition = NewRecord(definition_key(DEFINITION.name), encode(DEFINITION))
        cluster.append(TopicPartition(topics.workers.name, 0), definition)
        policy = RetryPolicy(max_attempts=3, retry_on=(OSError,))
        job = await client.enqueue(DEFINITION.name, {}, retry=policy, attempt_timeout=2.5)
        await client.enqueue(DEFINITION.name, {})
        records = [orjson.loads(record.value or b"") for record in cluster.topic_records(topics.jobs_name(DEFINITION.name))]
        own, other = sorted(records, key=lambda record: record["id"] != job.id)
        assert (own["retry"]["maxAttempts"], own["retry"]["retryOn"], own["attemptTimeout"]) == (3, ["OSError"], 2.5)
        assert other.keys().isdisjoint({"retry", "attemptTimeout"})
        found = await client.get_job(job.id)
        assert found is not None and found.retry is not None and job.retry is not None
        assert found.retry.policy() == job.retry.policy() == RetryPolicy(max_attempts=3, retry_on=("OSError",))
        with pytest.raises(ArgumentsInvalid, match="attemptTimeout"):
            await client.enqueue(DEFINITION.name, {}, attempt_timeout=0)


class _CountingLog(InMemoryLog):
    def __init__(self, cluster: InMemoryCluster) -> None:
        super().__init__(cluster)
        self.created: list[str] = []

    async def create_topics(self, topics: Collection[Topic]) -> None:
        self.created += [topic.name for topic in topics]
        await super().create_topics(topics)


async def test_of_many_first_jobs_at_once_one_makes_the_queue(tmp_path: Path) -> None:
    cluster = InMemoryCluster()
    cluster.latency = lambda: 0.01
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    log = _CountingLog(cluster)
    async with Client(settings, log=log) as client:
        client.define(DEFINITION)
        jobs = await asyncio.gather(*(client.enqueue(DEFINITION.name, {}) for _ in range(50)))
        assert len({job.id for job in jobs}) == 50
    assert log.created.count(Topics(settings.namespace).jobs_name(DEFINITION.name)) == 1


@pytest.mark.parametrize("timeout", [-1, 0, float("nan")])
async def test_a_timeout_that_is_no_time_is_refused(tmp_path: Path, timeout: float) -> None:
    cluster = InMemoryCluster()
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    topics = Topics(settings.namespace)
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        definition = NewRecord(definition_key(DEFINITION.name), encode(DEFINITION))
        cluster.append(TopicPartition(topics.workers.name, 0), definition)
        job = await client.enqueue(DEFINITION.name, {})
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: client.enqueue(DEFINITION.name, {}, timeout=timeout),
            lambda: client.enqueue_many(DEFINITION.name, [{}, {}], timeout=timeout),
            lambda: client.cancel_job(job.id, timeout=timeout),
            lambda: client.pause_worker(DEFINITION.name, timeout=timeout),
            lambda: client.resume_worker(DEFINITION.name, timeout=timeout),
            lambda: client.remove_worker(DEFINITION.name, timeout=timeout),
        ]
        for ask in asked:
            with pytest.raises(ArgumentsInvalid, match=f"The timeout is {timeout}: give a number of seconds above 0"):
                await ask()
        assert len(cluster.topic_records(topics.jobs_name(DEFINITION.name))) == 1
        assert not cluster.topic_records(topics.control.name)


@pytest.mark.parametrize("lands", [True, False], ids=["lands", "does-not-land"])
@in_virtual_time
async def test_a_job_waits_ten_seconds_for_brokers_that_do_not_answer_and_is_told_whether_it_may_be_accepted(
    tmp_path: Path, lands: bool
) -> None:
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    cluster = InMemoryCluster()
    async with Client(settings, log=InMemoryLog(cluster)) as client:
        queue = client.topics.jobs_name(DEFINITION.name)
        definition = NewRecord(definition_key(DEFINITION.name), encode(DEFINITION))
        cluster.append(TopicPartition(client.topics.workers.name, 0), definition)
        known = await client.enqueue(DEFINITION.name, {})
        held = cluster.hold_acknowledgements(queue) if lands else cluster.hold_appends(queue)

        async def lost() -> tuple[EnqueueTimeout, float]:
            started = asyncio.get_running_loop().time()
            with pytest.raises(EnqueueTimeout, match="within 10 s") as late:
                await client.enqueue(DEFINITION.name, {}, ordering_key="one partition")
            return late.value, asyncio.get_running_loop().time() - started

        async def lost_behind_it() -> tuple[EnqueueTimeout, float]:
            await held.caught()
            return await lost()

        (sent, waited), (unsent, waited_behind) = await asyncio.gather(lost(), lost_behind_it())
        assert (waited, waited_behind) == pytest.approx((10.0, 10.0))
        assert (sent.may_be_accepted, unsent.may_be_accepted) == (True, False)
        held.release()
        await eventually(lambda: len(job_ids(cluster, queue)) >= 2, "the first of them is in the log")
        await asyncio.sleep(60)
    assert sorted(job_ids(cluster, queue)) == sorted([known.id, sent.job_id]), "what was not on its way was taken back"


def job_ids(cluster: InMemoryCluster, queue: str) -> list[str]:
    """Of the jobs whose records are in a queue."""
    return [orjson.loads(record.value or b"")["id"] for record in cluster.topic_records(queue)]


async def test_one_that_is_not_open_says_so_whatever_it_is_asked(tmp_path: Path) -> None:
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    cluster = InMemoryCluster()
    client = Client(settings, log=InMemoryLog(cluster))

    async def ask_all(message: str) -> None:
        questions: list[Callable[[], Awaitable[object]]] = [
            lambda: client.enqueue(DEFINITION.name, {}),
            lambda: client.enqueue_many(DEFINITION.name, [{}]),
            client.list_jobs,
            client.list_workers,
            client.worker_definitions,
            lambda: client.worker_definitions(fresh_within=3600.0),
            lambda: client.get_job("any"),
            lambda: client.wait_for_job("any", wait=3600.0),
            lambda: client.cancel_job("any"),
            lambda: client.retry_job("any"),
            lambda: client.count_jobs([DEFINITION.name]),
            lambda: client.pause_worker(DEFINITION.name),
            lambda: client.resume_worker(DEFINITION.name),
            lambda: client.remove_worker(DEFINITION.name),
            lambda: anext(client.watch_job("any")),
            lambda: client.redrive([]),
        ]
        for ask in questions:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(ConfigurationError, match=message):
                    await ask()

    await ask_all("This Client is not open: use it within `async with")
    async with client:
        cluster.append(
            TopicPartition(client.topics.workers.name, 0), NewRecord(definition_key(DEFINITION.name), encode(DEFINITION))
        )
        job = await client.enqueue(DEFINITION.name, {})
        assert [each.id for each in (await client.list_jobs()).jobs] == [job.id]
    await ask_all("This Client is closed: use it within `async with")


def test_an_address_is_no_settings() -> None:
    for make in (Client, WorkerEngine):
        with pytest.raises(TypeError, match=r"headrace.Settings, not str: write load_settings\(bootstrap_servers="):
            make("localhost:9092")  # type: ignore[arg-type]


async def test_how_far_its_view_is_is_not_told_before_it_is_known(tmp_path: Path) -> None:
    settings = load_settings(bootstrap_servers="memory:9092", data_directory=tmp_path)
    async with Client(settings, log=InMemoryLog(InMemoryCluster()), view=True) as client, asyncio.timeout(PATIENCE):
        told = [client.readiness()]
        while not told[-1].ready:
            await asyncio.sleep(0.001)
            told.append(client.readiness())
    assert (told[0].ready, told[0].behind) == (False, 0)
    assert told[0].detail == "the view of jobs is being opened, and how much it has to read is not known yet"
    assert told[-1].detail == "the view of jobs is up to date"
    assert not any("0 records" in each.detail for each in told)
