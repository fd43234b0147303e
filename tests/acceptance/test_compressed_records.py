"""Records that somebody has compressed: a producer of another library by its own settings, or the brokers by theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace import AbstractWorker, Client, JobContext, Settings
from headrace.core.topics import Topics
from headrace.kafka import KafkaLog
from support.engines import ended, engine_with


class Echo(AbstractWorker[dict[str, Any]]):
    """Returns what it is given."""

    name = "echo"

    async def run(self, args: dict[str, Any], ctx: JobContext) -> dict[str, Any]:
        return args


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_brokers_compress_is_read_by_engines_and_clients(settings: Settings, log: KafkaLog, codec: str) -> None:
    topics = Topics(settings.namespace)
    window = settings.engine.idempotency_window_seconds
    everywhere = topics.workers, topics.control, topics.job_state, topics.ended_keys(window), topics.jobs("echo", 2)
    await log.create_topics(
        [replace(topic, configuration={**topic.configuration, "compression.type": codec}) for topic in everywhere]
    )
    args = {"text": "again and " * 200}
    async with Client(settings) as client, engine_with(settings, Echo()) as engine:
        jobs = [await engine.enqueue("echo", args, idempotency_key=f"request {number}") for number in range(3)]
        assert [(await ended(client, job, within=30)).result for job in jobs] == [args] * 3
    async with engine_with(settings, Echo()) as engine:  # reads all that the first one wrote, to take over
        again = await engine.enqueue("echo", args, idempotency_key="another")
        async with Client(settings) as client:
            assert (await ended(client, again, within=30)).status == "completed"
