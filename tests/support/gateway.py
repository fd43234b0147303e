"""A gateway on a free port, for tests, and what they do with it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from headrace import Client
from headrace.broker import Broker
from headrace.codec import encode
from headrace.core.records import definition_key
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.models import WorkerDefinition
from headrace.ports import NewRecord, Record, TopicPartition
from headrace.settings import Settings, load_settings
from headrace_gateway import GatewayServer, ToolRegistry
from support.jobs import DIGEST_WORKER, MEMORY_WORKER

ENVELOPE = Draft202012Validator(
    {
        "oneOf": [
            {
                "properties": {"ok": {"const": True}, "data": {"type": "object"}},
                "required": ["ok", "data"],
                "additionalProperties": False,
            },
            {
                "properties": {
                    "ok": {"const": False},
                    "error": {
                        "properties": {"code": {"pattern": "^[a-z_]+$"}, "message": {"type": "string", "minLength": 10}},
                        "required": ["code", "message"],
                        "additionalProperties": False,
                    },
                },
                "required": ["ok", "error"],
                "additionalProperties": False,
            },
        ]
    }
)


def settings_for(broker: Broker, folder: Path) -> Settings:
    """Settings for the session's broker with a namespace of their own, for a gateway that several tests share."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    return load_settings(bootstrap_servers=broker.bootstrap_servers, namespace=namespace, data_directory=folder)


def with_gateway(settings: Settings, **values: Any) -> Settings:
    """The settings with a free port for the gateway, and these values for it.

    Its view is kept in this process, which starts sooner; what keeps it beside has tests of its own.
    """
    given = {"port": 0, "view_process": False, **values}
    return settings.model_copy(update={"gateway": settings.gateway.model_copy(update=given)})


@asynccontextmanager
async def running_gateway(
    settings: Settings, *, tools: ToolRegistry | None = None, jobs: Client | None = None, **values: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that answers on a free port, and a client of it."""
    async with (
        GatewayServer(with_gateway(settings, **values), client=jobs, tools=tools) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        yield client


async def publish_workers(settings: Settings, *definitions: WorkerDefinition) -> None:
    """Writes definitions of workers to the log, as an engine does that has them. Without any, two are written."""
    topic = Topics(settings.namespace).workers
    log = KafkaLog(settings)
    writer = log.writer()
    try:
        await log.create_topics([topic])
        await writer.start()
        for definition in definitions or (MEMORY_WORKER, DIGEST_WORKER):
            record = NewRecord(definition_key(definition.name), encode(definition))
            await writer.append(TopicPartition(topic.name, 0), record, timeout=10)
    finally:
        await writer.stop(timeout=5)
        await log.close()


def refusal_code(response: httpx.Response) -> str:
    """The code of a refusal, whose envelope is checked."""
    body = response.json()
    ENVELOPE.validate(body)
    assert body["ok"] is False, body
    return str(body["error"]["code"])


def data_of(response: httpx.Response) -> Any:
    """The data of an answer that is ok, whose envelope is checked."""
    body = response.json()
    ENVELOPE.validate(body)
    assert (response.status_code, body["ok"]) == (200, True), body
    return body["data"]


async def all_records(settings: Settings) -> list[Record]:
    """Everything that stands in the namespace's topics."""
    log = KafkaLog(settings)
    reader = log.reader()
    try:
        names = [name for name in await log.topic_names() if name.startswith(f"{settings.namespace}.")]
        partitions = [TopicPartition(name, number) for name in names for number in range(await log.partition_count(name))]
        await reader.start()
        await reader.assign(dict.fromkeys(partitions, 0))
        ends = await reader.end_offsets(partitions)
        found: list[Record] = []
        deadline = time.monotonic() + 30
        positions = await reader.positions()
        while any(positions[partition] < end for partition, end in ends.items()):
            assert time.monotonic() < deadline
            for records in (await reader.fetch(timeout=0.5)).values():
                found.extend(records)
            positions = await reader.positions()
        return found
    finally:
        await reader.stop()
        await log.close()
