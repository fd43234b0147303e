"""What tests on a real broker have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from headrace.broker import LocalBroker, start_local_broker
from headrace.kafka import KafkaLog
from headrace.settings import Settings, load_settings
from support.log import plain_topic


@pytest.fixture(scope="module")
def fragile_broker() -> Iterator[LocalBroker]:
    """A broker of the module's own, that its tests kill, freeze and start again."""
    with start_local_broker(None, cache_directory=load_settings().cache_directory) as started_broker:
        yield started_broker


@pytest.fixture
def fragile_settings(fragile_broker: LocalBroker, settings: Settings) -> Settings:
    return settings.model_copy(update={"bootstrap_servers": fragile_broker.bootstrap_servers})


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[KafkaLog]:
    made = KafkaLog(settings)
    yield made
    await made.close()


@pytest.fixture
async def topic(log: KafkaLog, namespace: str) -> str:
    """A topic of two partitions."""
    name = f"{namespace}.things"
    await log.create_topics([plain_topic(name, 2)])
    return name
