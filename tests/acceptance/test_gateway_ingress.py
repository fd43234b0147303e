"""Tool calls that come as records of a real broker: what is asked for once is done once, and whose it is has to be said."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from headrace import BrokerUnreachable, Client
from headrace.broker import LocalBroker
from headrace.core.topics import Topics
from headrace.kafka.log import KafkaLog
from headrace.ports import NewRecord, Record, TopicPartition
from headrace.settings import IngressSettings, KafkaSettings, LimitSettings, Settings, load_settings
from headrace_gateway import GatewayServer
from support.access import running_issuer
from support.gateway import publish_workers, with_gateway
from support.outages import Away, frozen, killed

DIGEST = {"kind": "digest", "args": {"to": ["x"]}}
PATIENCE = 60.0


class Caller:
    """Writes calls, as any producer would, and reads what came of them."""

    def __init__(self, log: KafkaLog, settings: Settings) -> None:
        self._log = log
        self._topics = Topics(settings.namespace)
        self._writer = log.writer()

    async def start(self) -> None:
        await self._writer.start()

    async def stop(self) -> None:
        await self._writer.stop(timeout=5)

    async def call(self, call_id: str, credential: str | None = None, *, tenant: str | None = None, **fields: Any) -> None:
        value = orjson.dumps({"callId": call_id, "name": "scheduler", "arguments": DIGEST, **fields})
        await self.write(call_id, value, credential, tenant=tenant)

    async def write(self, key: str, value: bytes, credential: str | None = None, *, tenant: str | None = None) -> None:
        headers = [] if credential is None else [("authorization", f"Bearer {credential}".encode())]
        target = TopicPartition(self._topics.tool_calls(tenant).name, 0)
        await self._writer.append(target, NewRecord(key.encode(), value, headers), timeout=10)

    async def answers(self, count: int, *, tenant: str | None = None) -> dict[str, Any]:
        """By the calls' ids, once there are so many; each call has one."""
        records = await self.answer_records(count, tenant=tenant)
        found = [orjson.loads(record.value or b"") for record in records]
        assert len({each["callId"] for each in found}) == len(found), found
        return {each["callId"]: each for each in found}

    async def answer_records(self, count: int, *, tenant: str | None = None) -> list[Record]:
        return await self._records(self._topics.tool_results(tenant).name, count)

    async def dead_letters(self, count: int) -> list[Record]:
        return await self._records(self._topics.dead_letters.name, count)

    async def audited(self, count: int) -> list[dict[str, Any]]:
        return [orjson.loads(record.value or b"") for record in await self._records(f"{self._topics.namespace}.audit", count)]

    async def _records(self, topic: str, count: int) -> list[Record]:
        reader = self._log.reader()
        await reader.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(await self._log.partition_count(topic))]
            await reader.assign(dict.fromkeys(partitions, 0))
            found: list[Record] = []
            deadline = time.monotonic() + PATIENCE
            while len(found) < count:
                assert time.monotonic() < deadline, found
                for records in (await reader.fetch(timeout=0.5)).values():
                    found += records
            return found
        finally:
            await reader.stop()


@asynccontextmanager
async def caller_of(settings: Settings, log: KafkaLog) -> AsyncIterator[Caller]:
    caller = Caller(log, settings)
    await caller.start()
    try:
        yield caller
    finally:
        await caller.stop()


@asynccontextmanager
async def answered(settings: Settings, log: KafkaLog, **ingress: Any) -> AsyncIterator[Caller]:
    """A gateway that answers calls by record, and a caller."""
    await publish_workers(settings)
    given = with_gateway(settings).model_copy(update={"ingress": IngressSettings(enabled=True, **ingress)})
    async with GatewayServer(given), caller_of(settings, log) as caller:
        yield caller


async def jobs_of(settings: Settings, tenant: str = "default") -> list[str]:
    async with Client(settings, view=True) as client:
        async with asyncio.timeout(PATIENCE):
            while not client.readiness().ready:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        return [job.id for job in (await client.list_jobs(tenant=tenant)).jobs]


async def test_a_call_by_record_is_done_once_and_what_is_none_is_a_dead_letter(settings: Settings, log: KafkaLog) -> None:
    async with answered(settings, log) as caller:
        await caller.call("call-1")
        first = (await caller.answers(1))["call-1"]
        await caller.call("call-1")
        await caller.write("call-2", b"no json", "a-secret")
        await caller.call("call-3", name="nothing")
        answers = await caller.answers(3)
        [letter] = await caller.dead_letters(1)
        told = await caller.audited(3)
    # Another gateway knows what the first one has answered.
    async with answered(settings, log) as caller:
        await caller.call("call-1")
        await caller.call("call-4")
        assert (await caller.answers(4)).keys() == {"call-1", "call-2", "call-3", "call-4"}
    assert first["ok"], first
    assert answers["call-1"] == first
    assert (answers["call-2"]["error"]["code"], answers["call-3"]["error"]["code"]) == ("call_invalid", "tool_unknown")
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["headrace-reason"]) == (b"call-2", b"no json", b"tool_call_invalid")
    assert "authorization" not in headers, "who reads dead letters is to learn no credentials"
    calls = {(each["transport"], each.get("tool"), each["outcome"], each.get("jobId")) for each in told}
    assert calls == {
        ("kafka", "scheduler", "ok", first["data"]["jobId"]),
        ("kafka", None, "call_invalid", None),
        ("kafka", None, "tool_unknown", None),
    }
    jobs = await jobs_of(settings)
    assert len(jobs) == 2
    assert first["data"]["jobId"] in jobs


async def test_a_record_has_to_say_whose_it_is_by_what_is_of_no_use_to_who_reads_it(
    settings: Settings, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_issuer() as issuer:
        asking = settings.model_copy(update={"auth": issuer.settings(tenant_claim="org")})
        async with answered(asking, log, tenants="rival") as caller:
            token = issuer.token(org="acme", callId="good")
            await caller.call("good", token)
            value = orjson.dumps({"callId": "whole", "name": "scheduler", "arguments": DIGEST})
            digest = hashlib.sha256(value).hexdigest()
            await caller.write("whole", value, issuer.token(org="acme", callId="whole", callDigest=digest))
            await caller.call("changed", issuer.token(org="acme", callId="changed", callDigest=digest))
            await caller.call("another", token)
            await caller.call("nobody")
            await caller.call("key", "hr_0123456789abcdef_secret")
            await caller.call("bearer", issuer.token(org="acme"))
            await caller.call("by-topic", tenant="rival")
            answers = await caller.answers(7)
            own = await caller.answers(1, tenant="rival")
            told = await caller.audited(8)
        codes = {call_id: "ok" if each["ok"] else each["error"]["code"] for call_id, each in answers.items()}
        refused = dict.fromkeys(("changed", "another", "nobody", "key", "bearer"), "unauthenticated")
        assert codes == {"good": "ok", "whole": "ok", **refused}
        assert "API keys do not count in records" in answers["key"]["error"]["message"]
        assert "was not made for this call" in answers["another"]["error"]["message"]
        assert sorted(each["outcome"] for each in told) == ["ok"] * 3 + ["unauthenticated"] * 5
        assert {each["transport"] for each in told} == {"kafka"}
        assert "secret" not in str((answers, own, told))
        assert set(await jobs_of(settings, "acme")) == {answers[name]["data"]["jobId"] for name in ("good", "whole")}
        assert await jobs_of(settings, "rival") == [own["by-topic"]["data"]["jobId"]]
        assert await jobs_of(settings) == []


async def test_two_tenants_may_call_by_the_same_id(settings: Settings, log: KafkaLog) -> None:
    with running_issuer() as issuer:
        asking = settings.model_copy(update={"auth": issuer.settings(tenant_claim="org")})
        tokens = {tenant: issuer.token(org=tenant, callId="same") for tenant in ("acme", "rival")}
        async with answered(asking, log) as caller:
            for tenant in ("acme", "acme", "rival"):
                await caller.call("same", tokens[tenant])
            await caller.call("last", issuer.token(org="acme", callId="last"))
            records = await caller.answer_records(3)
        # Another gateway knows whose calls the first one has answered.
        async with answered(asking, log) as caller:
            await caller.call("same", tokens["rival"])
            await caller.call("end", issuer.token(org="acme", callId="end"))
            records = await caller.answer_records(4)
    told = [(dict(record.headers)["headrace-tenant"].decode(), orjson.loads(record.value or b"")) for record in records]
    jobs = {(tenant, answer["callId"]): answer["data"]["jobId"] for tenant, answer in told}
    assert jobs.keys() == {("acme", "same"), ("rival", "same"), ("acme", "last"), ("acme", "end")}
    assert await jobs_of(settings, "rival") == [jobs["rival", "same"]]
    assert len(await jobs_of(settings, "acme")) == 3


@asynccontextmanager
async def started_gateway(settings: Settings) -> AsyncIterator[GatewayServer]:
    """A gateway, which is started again where a broker that was away a moment ago answers too late for its short patience."""
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE) as patience:
        while True:
            try:
                server = await stack.enter_async_context(GatewayServer(settings))
            except BrokerUnreachable:
                continue
            patience.reschedule(None)
            yield server
            return


async def test_a_backlog_waits_until_it_may_be_done(settings: Settings, log: KafkaLog) -> None:
    limited = settings.model_copy(update={"limits": LimitSettings(calls_per_second=100.0, burst=10)})
    async with answered(settings, log, tenants="acme") as caller:
        await caller.call("first", tenant="acme")
        await caller.answers(1, tenant="acme")
        # Those who are to answer them come later.
    async with caller_of(settings, log) as writer:
        for number in range(100):
            await writer.call(f"call-{number}", tenant="acme")
    async with answered(limited, log, tenants="acme") as caller:
        await caller.call("call-0", tenant="acme")
        answers = await caller.answers(101, tenant="acme")
    assert {call_id for call_id, each in answers.items() if each["ok"]} == {"first", *(f"call-{number}" for number in range(100))}


@pytest.mark.parametrize("away", [killed, frozen])
async def test_a_gateway_says_that_it_takes_in_no_calls_while_the_broker_is_away(
    fragile_broker: LocalBroker, namespace: str, tmp_path: Path, away: Away
) -> None:
    settings = load_settings(
        bootstrap_servers=fragile_broker.bootstrap_servers,
        namespace=namespace,
        data_directory=tmp_path,
        kafka=KafkaSettings(connect_timeout_seconds=20.0),
    )
    await publish_workers(settings)
    brief = settings.model_copy(update={"kafka": KafkaSettings(connect_timeout_seconds=2.0)})
    given = with_gateway(brief).model_copy(update={"ingress": IngressSettings(enabled=True)})
    log = KafkaLog(settings)
    caller = Caller(log, settings)
    try:
        async with started_gateway(given) as server, httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
            await until_ready(http, 200, "up to date")
            async with away(fragile_broker):
                await until_ready(http, 503, "tool calls are not taken in")
            await until_ready(http, 200, "up to date")
            await caller.start()
            await caller.call("call-1")
            assert (await caller.answers(1))["call-1"]["ok"]
            await caller.stop()
    finally:
        await log.close()


async def until_ready(http: httpx.AsyncClient, status: int, detail: str) -> None:
    """Returns when `/readyz` answers so."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await http.get("/readyz")).status_code != status or detail not in answer.json()["detail"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
