"""An engine, a gateway, a client and a memory command start at once on an empty broker that creates topics by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from headrace.broker import LocalBroker, LocalBrokerOptions, start_local_broker
from headrace.core.topics import Topics
from headrace.settings import load_settings
from support.terminal import Terminal, opened_terminal

WORKERS = """
from headrace import worker


@worker()
async def greet(args, ctx):
    return "hello"
"""
CLIENT = """
import asyncio

from headrace import Client
from my_workers import greet


async def main():
    async with Client(view=True) as client:
        job = await client.enqueue(greet, {})
        while (await client.get_job(job.id)).status != "completed":
            await asyncio.sleep(0.02)
        print("completed")


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def empty_broker() -> Iterator[LocalBroker]:
    """A broker that nobody has used, and that creates whatever topic it is asked about."""
    options = LocalBrokerOptions(automatic_topic_creation=True)
    with start_local_broker(None, options, cache_directory=load_settings().cache_directory) as broker:
        yield broker


@pytest.fixture
def terminal(empty_broker: LocalBroker, namespace: str, tmp_path: Path) -> Iterator[Terminal]:
    with opened_terminal(tmp_path) as opened:
        opened.environment |= {"KAFKA_BOOTSTRAP_SERVERS": empty_broker.bootstrap_servers, "HEADRACE_NAMESPACE": namespace}
        (tmp_path / "my_workers.py").write_text(WORKERS)
        (tmp_path / "my_client.py").write_text(CLIENT)
        yield opened


async def test_four_processes_start_at_once_on_an_empty_broker(
    terminal: Terminal, empty_broker: LocalBroker, namespace: str
) -> None:
    engine = terminal.start("headrace", "engine", "my_workers", "--no-shipped")
    gateway = terminal.start("headrace", "gateway", "--port", "0")
    client = terminal.start(sys.executable, "my_client.py")
    memory = terminal.start(
        "headrace", "memory", "append", "--user", "u", "--conversation", "c", "--role", "user", "--content", "hi"
    )
    assert memory.process.wait(60) == 0, memory.output
    assert client.process.wait(60) == 0, client.output
    assert "completed" in client.output
    gateway.wait_for("answers at")
    assert engine.interrupt() == 0, engine.output
    assert gateway.interrupt() == 0, gateway.output
    await _assert_topics_are_ours(empty_broker, namespace)


async def _assert_topics_are_ours(broker: LocalBroker, namespace: str) -> None:
    topics = Topics(namespace)
    ours = {
        topic.name: topic
        for topic in (
            topics.jobs("greet"),
            topics.job_state,
            topics.workers,
            topics.control,
            topics.memory,
            topics.audit(load_settings().gateway.audit_retention_days * 86_400),
            topics.dead_letters,
            topics.ended_keys(3_600),
        )
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        assert {name for name in await admin.list_topics() if name.startswith(namespace)} == set(ours)
        for described in await admin.describe_topics(list(ours)):
            assert len(described["partitions"]) == ours[described["topic"]].partitions
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in ours]):
            for _, _, _, name, entries in answer.resources:
                actual = {entry[0]: entry[1] for entry in entries}
                assert {key: actual[key] for key in ours[name].configuration} == dict(ours[name].configuration)
    finally:
        await admin.close()
