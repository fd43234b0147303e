"""The implementations of `headrace.ports.Log`: every test of this folder runs over each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from headrace.kafka import KafkaLog
from headrace.ports import Log
from headrace.testing import InMemoryLog
from support.log import plain_topic

# Only what needs a broker asks for one.
IMPLEMENTATIONS: dict[str, Callable[[pytest.FixtureRequest], Log]] = {
    "kafka": lambda request: KafkaLog(request.getfixturevalue("settings")),
    "memory": lambda _: InMemoryLog(),
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    """An empty log, as far as this test's namespace goes."""
    made = IMPLEMENTATIONS[request.param](request)
    yield made
    await made.close()


@pytest.fixture
def make_topic(log: Log, namespace: str) -> Callable[..., Awaitable[str]]:
    """Makes a topic in the test's namespace, and returns its whole name."""

    async def make(name: str = "things", partitions: int = 1, **configuration: str) -> str:
        whole_name = f"{namespace}.{name}"
        await log.create_topics([plain_topic(whole_name, partitions, **configuration)])
        return whole_name

    return make
