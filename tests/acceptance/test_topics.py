"""How topics come into being: by whoever needs them first, with headrace's settings and never with the broker's."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from headrace.broker import Broker, LocalBrokerOptions, start_local_broker
from headrace.core.topics import Topic, Topics
from headrace.errors import ConfigurationError, TopicMisconfigured
from headrace.kafka import KafkaLog
from headrace.ports import TopicPartition
from headrace.settings import KafkaSettings, Settings, load_settings
from support.engines import eventually
from support.log import Outcomes, numbered, plain_topic, started
from support.processes import read_line

PROCESSES = 4
TOPIC_USER = Path(__file__).parents[1] / "support" / "topic_user.py"


@pytest.fixture
def empty_broker() -> Iterator[Broker]:
    """A broker of its own that nobody has used, and that creates each topic that is named, with one partition."""
    options = LocalBrokerOptions(automatic_topic_creation=True)
    with start_local_broker(None, options, cache_directory=load_settings().cache_directory) as started:
        yield started


@pytest.fixture
async def admin(settings: Settings) -> Any:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await client.start()
    yield client
    await client.close()


async def described(client: Any, names: list[str]) -> dict[str, Mapping[str, str]]:
    """The settings of topics as the broker has them."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    [response] = await client.describe_configs(resources)
    return {name: {entry[0]: entry[1] for entry in entries} for _, _, _, name, entries in response.resources}


def run_together(servers: str, namespace: str) -> None:
    """Lets several processes need the same topics at the same moment; all must succeed."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(TOPIC_USER), servers, namespace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        assert [read_line(process) for process in processes] == ["ready"] * PROCESSES
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [code for _, code in ends] == [0] * PROCESSES, "\n".join(errors for errors, _ in ends)


def headrace_topics(namespace: str) -> list[Topic]:
    topics = Topics(namespace)
    compacted = [topics.job_state, topics.workers, topics.control, topics.memory]
    return [topics.jobs("digest"), *compacted, topics.dead_letters, topics.ended_keys(3_600)]


async def test_four_processes_start_at_once_on_an_empty_broker_that_creates_topics_by_itself(empty_broker: Broker) -> None:
    servers, namespace = empty_broker.bootstrap_servers, "together"
    await asyncio.to_thread(run_together, servers, namespace)

    wanted = {topic.name: topic for topic in headrace_topics(namespace)}
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        topics = {topic["topic"]: topic for topic in await client.describe_topics()}
        settings = await described(client, sorted(wanted))
    finally:
        await client.close()
    assert {name for name in topics if not name.startswith("__")} == set(wanted)
    for name, topic in wanted.items():
        assert len(topics[name]["partitions"]) == topic.partitions
        assert topic.configuration.items() <= settings[name].items()


async def test_every_setting_reaches_the_broker(settings: Settings, admin: Any) -> None:
    topics = headrace_topics(settings.namespace)
    log = KafkaLog(settings)
    await log.create_topics(topics)
    await log.close()
    found = await described(admin, [topic.name for topic in topics])
    for topic in topics:
        assert topic.configuration.items() <= found[topic.name].items()


async def test_a_topic_that_would_lose_data_stops_the_start_and_names_the_remedy(settings: Settings, admin: Any) -> None:
    topic = Topics(settings.namespace).job_state
    await admin.create_topics([NewTopic(topic.name, 1, 1)])
    log = KafkaLog(settings)
    with pytest.raises(TopicMisconfigured) as caught:
        await log.create_topics([topic])
    message = str(caught.value)
    for name in topic.guarded & topic.configuration.keys() - {"retention.bytes"}:
        assert f"{name}={topic.configuration[name]}" in message
    assert f"kafka-configs.sh --bootstrap-server {settings.bootstrap_servers}" in message
    assert f"rpk topic alter-config {topic.name}" in message

    # What the command says is enough.
    command = re.search(r"--add-config '(.*)'", message)
    assert command is not None
    mended = dict(pair.split("=", 1) for pair in command[1].split(","))
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=mended)])

    async def took_it() -> bool:
        return mended.items() <= (await described(admin, [topic.name]))[topic.name].items()

    await eventually(took_it)  # the broker answers before it does
    await log.create_topics([topic])
    assert await log.partition_count(topic.name) == 1
    await log.close()


async def test_a_new_topic_takes_records_at_once(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = KafkaLog(settings)
    # Every message counts here, also one that is like an earlier one.
    monkeypatch.setattr(logging.getLogger("aiokafka.producer.sender"), "filters", [])
    outcomes = Outcomes()
    async with started(log.writer()) as writer:
        for round_of_topics in range(5):
            topic = plain_topic(f"{settings.namespace}.new-{round_of_topics}", 16)
            await log.create_topics([topic])
            for partition in range(16):
                target = TopicPartition(topic.name, partition)
                writer.submit(target, numbered([partition]), outcomes.expect((round_of_topics, partition)))
            await outcomes.offsets()
    await log.close()
    told = [record.getMessage() for record in caplog.records if record.name.startswith("aiokafka")]
    assert [each for each in told if settings.namespace in each] == [], "of its topics, and not of what other tests have left"


async def test_a_topic_that_is_right_already_need_not_be_made_by_headrace(settings: Settings, admin: Any) -> None:
    topic = replace(Topics(settings.namespace).job_state, partitions=3)
    await admin.create_topics([NewTopic(topic.name, 3, 1, topic_configs=dict(topic.configuration))])
    log = KafkaLog(settings)
    await log.create_topics([Topics(settings.namespace).job_state])
    assert await log.partition_count(topic.name) == 3
    await log.close()


async def test_more_replicas_than_brokers_are_refused_with_the_setting_to_change(settings: Settings) -> None:
    log = KafkaLog(settings.model_copy(update={"kafka": KafkaSettings(replication_factor=100)}))
    with pytest.raises(ConfigurationError, match=r"100 replica.*HEADRACE_KAFKA_REPLICATION_FACTOR"):
        await log.create_topics([Topics(settings.namespace).workers])
    assert Topics(settings.namespace).workers.name not in await log.topic_names()
    await log.close()


async def test_a_broker_that_has_just_come_back_and_names_none_is_asked_again(
    settings: Settings, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe, answers = AIOKafkaAdminClient.describe_cluster, list[int]()

    async def describe_none_first(client: AIOKafkaAdminClient) -> Any:
        answer = await describe(client)
        if not answers:
            answer["brokers"] = []
        answers.append(len(answer["brokers"]))
        return answer

    monkeypatch.setattr(AIOKafkaAdminClient, "describe_cluster", describe_none_first)
    log, name = KafkaLog(settings), f"{namespace}.things"
    await log.create_topics([plain_topic(name)])
    assert await log.partition_count(name) == 1
    assert answers == [0, 1]
    await log.close()
