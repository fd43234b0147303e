"""Redpanda and Kafka in containers. These tests need a Docker engine; `make test-docker` alone collects them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from headrace.broker import BrokerRequest, provide_broker, resolve_bootstrap_servers
from headrace.broker.container import ContainerBroker
from headrace.broker.discovery import note_path
from headrace.broker.readiness import describe_cluster
from headrace.settings import Settings, load_settings

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(data_directory=tmp_path_factory.mktemp("folder"), bootstrap_servers=None)


@pytest.fixture(scope="module", params=["redpanda", "kafka"])
def container(request: pytest.FixtureRequest, folder: Settings) -> Iterator[ContainerBroker]:
    image: Literal["redpanda", "kafka"] = request.param
    with provide_broker(folder, BrokerRequest(kind="docker", image=image)) as started:
        assert isinstance(started, ContainerBroker)
        yield started


def test_the_container_says_what_it_is_and_others_find_it(container: ContainerBroker, folder: Settings) -> None:
    assert container.kind == "docker"
    assert container.running
    assert container.bootstrap_servers in container.description
    unnamed = folder.model_copy(update={"bootstrap_servers": None})
    assert resolve_bootstrap_servers(unnamed) == container.bootstrap_servers


async def test_a_record_goes_in_and_comes_out_through_a_group(container: ContainerBroker, namespace: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=container.bootstrap_servers, enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(namespace, b"hello")
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        namespace, bootstrap_servers=container.bootstrap_servers, group_id=namespace, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        assert (await consumer.getone()).value == b"hello"
        await consumer.commit()
        assert await consumer.committed(TopicPartition(namespace, 0)) == 1
    finally:
        await consumer.stop()


@pytest.mark.parametrize("image", ["redpanda", "kafka"])
def test_nothing_is_left_when_it_is_stopped(tmp_path: Path, image: Literal["redpanda", "kafka"]) -> None:
    settings = load_settings(data_directory=tmp_path)
    with provide_broker(settings, BrokerRequest(kind="docker", image=image)) as started:
        address = started.bootstrap_servers
        assert describe_cluster(address, timeout_seconds=10) is not None
    assert describe_cluster(address, timeout_seconds=2) is None
    assert not note_path(settings).exists()
