"""A gateway process that is told to end while calls wait for the ends of their jobs: each is answered, and none is broken off."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest

from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, TopicPartition
from headrace.settings import Settings
from support.engines import eventually
from support.gateway import all_records, data_of, publish_workers
from support.gateway_process import PATIENCE, address_of, gateway_process
from support.mcp_raw import modern_request

WAITING = {"kind": "digest", "args": {"to": ["x"]}, "wait": 60}


async def over_http(client: httpx.AsyncClient, settings: Settings, log: KafkaLog) -> Any:
    return data_of(await client.post("/tools/scheduler", json=WAITING))


async def over_mcp(client: httpx.AsyncClient, settings: Settings, log: KafkaLog) -> Any:
    headers, body = modern_request("tools/call", {"name": "scheduler", "arguments": WAITING})
    response = await client.post("/mcp", headers=headers, content=json.dumps(body).encode())
    assert response.status_code == 200, response.text
    return response.json()["result"]["structuredContent"]


async def by_record(client: httpx.AsyncClient, settings: Settings, log: KafkaLog) -> Any:
    topics, writer = Topics(settings.namespace), log.writer()
    await writer.start()
    value = orjson.dumps({"callId": "waits", "name": "scheduler", "arguments": WAITING})
    await writer.append(TopicPartition(topics.tool_calls().name, 0), NewRecord(b"waits", value), timeout=PATIENCE)
    await writer.stop(timeout=5)

    async def answer() -> Any:
        records = await all_records(settings)
        answers = [record.value for record in records if record.topic == topics.tool_results().name]
        return orjson.loads(answers[0] or b"")["data"] if answers else None

    return await eventually(answer, within=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_calls_that_wait_are_answered_with_the_job_as_it_stands(
    settings: Settings, log: KafkaLog, number: signal.Signals
) -> None:
    ways: list[Callable[[httpx.AsyncClient, Settings, KafkaLog], Awaitable[Any]]] = [over_http, over_mcp, by_record]
    await publish_workers(settings)
    async with gateway_process(settings, "--port", "0", HEADRACE_INGRESS_ENABLED="true") as process:
        url = await address_of(process)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=2 * PATIENCE) as client:
            calls = [asyncio.ensure_future(way(client, settings, log)) for way in ways]

            async def accepted() -> bool:
                return len((await client.get("/jobs")).json()["jobs"]) == len(ways)

            # No engine is up: from then on each of them waits.
            await eventually(accepted, within=PATIENCE)
            assert not any(call.done() for call in calls)
            process.send_signal(number)
            async with asyncio.timeout(PATIENCE):
                answers = await asyncio.gather(*calls)
                _, told = await process.communicate()
        assert process.returncode == 0, told
        assert b"Traceback" not in told
    for answer in answers:
        assert (answer["scheduled"], answer["job"]["id"], answer["job"]["status"]) == (True, answer["jobId"], "queued")
    assert len({answer["jobId"] for answer in answers}) == len(ways)
