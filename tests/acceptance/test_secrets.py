"""Secrets stand nowhere, whatever they came by: neither in a gateway's log, nor in its topics, nor in what it answers."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from mcp.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters, stdio_client

from headrace import ApiKeys, ApiKeyText, parse_key
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, Record, TopicPartition
from headrace.settings import Settings
from headrace_gateway.access import ALL_SCOPES
from support.access import AUDIENCE, running_issuer
from support.engines import eventually
from support.gateway import all_records, publish_workers
from support.gateway_process import PATIENCE, address_of, environment_of, gateway_process
from support.mcp_raw import modern_request

DIGEST = {"kind": "digest", "args": {"to": ["x"]}}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("scheduler", DIGEST),
    ("scheduler", {"kind": "gardening"}),
    ("scheduler", {"kind": "digest", "args": 7}),
    ("worker_manager", {"action": "get_job", "jobId": "nothing"}),
    ("nothing", {}),
]


@dataclass
class Told:
    """What came out.

    Attributes:
        texts: by where it stood.
    """

    texts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, text: str | bytes) -> None:
        self.texts.append((where, text.decode(errors="replace") if isinstance(text, bytes) else text))

    def check(self, secrets: dict[str, str]) -> None:
        found = [(where, name) for where, text in self.texts for name, secret in secrets.items() if secret in text]
        assert found == []


def altered(credential: str) -> str:
    """The same with another end, which counts for nothing."""
    return credential[:-8] + credential[-8:][::-1].swapcase()


async def over_http(client: httpx.AsyncClient, credential: str, told: Told) -> None:
    for header in ({"authorization": f"Bearer {credential}"}, {"x-api-key": credential}):
        for name, arguments in CALLS:
            sent = await client.post(f"/tools/{name}", json=arguments, headers=header)
            told.add("an answer over HTTP", sent.text + str(sent.headers))
        for method, path, content in (
            ("POST", "/tools/scheduler", b"no json"),
            ("GET", "/tools", None),
            ("GET", "/jobs?limit=0", None),
            ("GET", "/readyz", None),
            ("GET", "/nothing", None),
            ("GET", "/jobs/nothing", None),
            ("POST", "/memory/trip/entries?userId=ann", b"{}"),
        ):
            sent = await client.request(method, path, content=content, headers=header)
            told.add("an answer over HTTP", sent.text + str(sent.headers))
        refused = await client.get("/jobs", headers={**header, "host": "evil.example"})
        told.add("an answer over HTTP", refused.text + str(refused.headers))


async def over_mcp(client: httpx.AsyncClient, credential: str, told: Told) -> None:
    for name, arguments in CALLS:
        headers, body = modern_request("tools/call", {"name": name, "arguments": arguments})
        headers["authorization"] = f"Bearer {credential}"
        for content in (json.dumps(body), "no json", '{"jsonrpc": "2.0"}'):
            sent = await client.post("/mcp", headers=headers, content=content)
            told.add("an answer over MCP", sent.text + str(sent.headers))


async def by_record(log: KafkaLog, settings: Settings, credentials: dict[str, str], told: Told) -> None:
    topics, writer = Topics(settings.namespace), log.writer()
    await writer.start()
    target = TopicPartition(topics.tool_calls().name, 0)
    for call_id, credential in credentials.items():
        value = orjson.dumps({"callId": call_id, "name": "scheduler", "arguments": DIGEST})
        headers = [("authorization", f"Bearer {credential}".encode())]
        await writer.append(target, NewRecord(call_id.encode(), value, headers), timeout=PATIENCE)
        await writer.append(target, NewRecord(f"{call_id}-none".encode(), b"no json", headers), timeout=PATIENCE)
    await writer.stop(timeout=5)

    async def answered() -> bool:
        records = await all_records(settings)
        return sum(record.topic == topics.tool_results().name for record in records) == 2 * len(credentials)

    await eventually(answered, within=PATIENCE)


async def over_stdio(settings: Settings, key: str, told: Told, **environment: str) -> None:
    given = environment_of(settings, HEADRACE_API_KEY=key, HEADRACE_LOG_LEVEL="DEBUG", **environment)
    given["HEADRACE_DATA_DIRECTORY"] += "-stdio"
    command = [sys.executable, "-m", "headrace", "mcp"]
    log_file = settings.data_directory.with_name(f"stdio-{len(told.texts)}.log")
    with log_file.open("w+", encoding="utf-8") as log:
        server = stdio_client(StdioServerParameters(command=command[0], args=command[1:], env=given), errlog=log)
        async with McpClient(server, read_timeout_seconds=PATIENCE) as client:
            for name, arguments in CALLS[:4]:
                result = await client.call_tool(name, arguments)
                told.add("an answer over stdio", result.model_dump_json())
        log.seek(0)
        told.add("the log of a process on stdio", log.read())
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**given, "HEADRACE_API_KEY": altered(key)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode != 0
    assert b"API key" in out
    told.add("what a process on stdio said that was not let in", out)


async def test_no_secret_is_written_or_told(settings: Settings, log: KafkaLog) -> None:
    told = Told()
    with running_issuer() as issuer:
        asking = {
            "HEADRACE_GATEWAY_AUTHENTICATION": "required",
            "HEADRACE_AUTH_ISSUER": issuer.url,
            "HEADRACE_AUTH_AUDIENCE": AUDIENCE,
            "HEADRACE_OPENAI_API_KEY": "configured-secret-of-the-endpoint",
        }
        await publish_workers(settings)
        key = await new_key(settings)
        plain, bound = issuer.token(), issuer.token(callId="bound")
        given = {"key": key.text, "token": plain, "wrong key": altered(key.text), "wrong token": altered(plain)}
        async with gateway_process(
            settings, "--port", "0", HEADRACE_INGRESS_ENABLED="true", HEADRACE_LOG_LEVEL="DEBUG", **asking
        ) as process:
            # Read on, so that the process never waits for who reads its log.
            assert process.stderr is not None
            url, log_lines = await address_of(process), asyncio.create_task(process.stderr.read())
            try:
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as client:
                    for credential in given.values():
                        await over_http(client, credential, told)
                        await over_mcp(client, credential, told)
                await by_record(log, settings, {"bound": bound, **given}, told)
                process.terminate()
                async with asyncio.timeout(PATIENCE):
                    told.add("the log of a gateway", await log_lines)
                    assert await process.wait() == 0
            finally:
                log_lines.cancel()
        await over_stdio(settings, key.text, told, **asking)
    records = await all_records(settings)
    calls = Topics(settings.namespace).tool_calls().name
    for record in records:
        if record.topic != calls:
            told.add(f"a record of {record.topic}", whole(record))
    secrets = given | {"bound token": bound, "endpoint": asking["HEADRACE_OPENAI_API_KEY"]}
    # Of a credential neither its end may stand anywhere.
    secrets |= {f"end of {name}": secret[-24:] for name, secret in secrets.items()}
    told.check(secrets)
    # What was searched is all there is, and the search finds what is there.
    assert any(bound in whole(record) for record in records if record.topic == calls)
    topics = {where.rpartition(".")[2] for where, _ in told.texts if where.startswith("a record of")}
    assert {"audit", "dead-letters", "tool-results", "api-keys", "send_digest"} <= topics
    audited = [orjson.loads(record.value or b"") for record in records if record.topic.endswith(".audit")]
    outcomes = {(each["transport"], each["outcome"]) for each in audited}
    assert {(transport, "ok") for transport in ("http", "mcp", "kafka", "stdio")} <= outcomes
    assert {(transport, "unauthenticated") for transport in ("http", "mcp", "kafka", "stdio")} <= outcomes
    assert "DEBUG" in next(text for where, text in told.texts if where == "the log of a gateway")


async def new_key(settings: Settings) -> ApiKeyText:
    async with ApiKeys(settings) as keys:
        made, key = await keys.create(name="test", subject="ann", scopes=sorted(ALL_SCOPES))
        assert parse_key(key.text).id == made.id
        return key


def whole(record: Record) -> str:
    """All of a record as text."""
    parts = [record.key or b"", record.value or b"", *(name.encode() + (value or b"") for name, value in record.headers)]
    return b"\n".join(parts).decode(errors="replace")
