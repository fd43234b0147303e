"""Who may come in to a gateway on a real broker: with keys that the command makes, and what is kept of all that."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from typer.testing import CliRunner

from headrace import GatewaySettings, LimitSettings, parse_key
from headrace.api_keys import new_key
from headrace.cli.main import application
from headrace.replay import open_history, timeline_of
from headrace.settings import Settings
from headrace_gateway import GatewayServer
from headrace_gateway.access import Arrival, Principal
from support.access import Issuer, running_issuer
from support.engines import eventually
from support.events import PATIENCE, event_stream
from support.gateway import all_records, data_of, publish_workers, refusal_code, with_gateway
from support.mcp_raw import modern_request

ROOT = Path(__file__).parents[2]
LOOK = {"action": "list_workers"}
DIGEST = {"kind": "digest", "args": {"to": ["x"]}}


async def command(settings: Settings, *arguments: str, code: int = 0, **environment: str) -> str:
    """What `headrace keys` printed on standard output."""
    assert settings.bootstrap_servers is not None
    where = ("--bootstrap-servers", settings.bootstrap_servers, "--namespace", settings.namespace)
    line = ["keys", *arguments, *where]
    result = await asyncio.to_thread(CliRunner().invoke, application, line, env={"COLUMNS": "200", **environment})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.stderr


async def new_key_of(settings: Settings, *arguments: str) -> str:
    return (await command(settings, "create", "test", *arguments)).strip()


def asking(settings: Settings, **limits: Any) -> Settings:
    """Settings of a gateway that asks who calls."""
    given = with_gateway(settings, authentication="required")
    return given.model_copy(update={"limits": LimitSettings(**limits)})


@asynccontextmanager
async def gateways(settings: Settings, count: int = 1) -> AsyncIterator[list[tuple[GatewayServer, httpx.AsyncClient]]]:
    """Gateways side by side, and a client of each."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(GatewayServer(settings)) for _ in range(count)]
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False))
            for server in servers
        ]
        yield list(zip(servers, clients, strict=True))


async def look(client: httpx.AsyncClient, credential: str | None, *, header: str = "authorization") -> httpx.Response:
    given = {} if credential is None else {header: f"Bearer {credential}" if header == "authorization" else credential}
    return await client.post("/tools/worker_manager", json=LOOK, headers=given)


async def becomes(client: httpx.AsyncClient, credential: str, status: int) -> None:
    """Returns when the gateway answers so. How soon that is to be is tested where time can be told exactly."""

    async def look_again() -> bool:
        return (await look(client, credential)).status_code == status

    await eventually(look_again)


async def audited(settings: Settings, count: int) -> list[dict[str, Any]]:
    """The records of the audit, oldest first, once there are so many."""
    deadline = time.monotonic() + 20
    while True:
        records = [record for record in await all_records(settings) if record.topic.endswith(".audit")]
        if len(records) >= count:
            return sorted((orjson.loads(record.value or b"") for record in records), key=lambda record: str(record["at"]))
        assert time.monotonic() < deadline, f"{len(records)} of {count}"


async def test_a_key_counts_in_every_gateway_until_it_is_revoked_and_then_streams_close(settings: Settings) -> None:
    await publish_workers(settings)
    async with gateways(asking(settings), 2) as running:
        for _, client in running:
            for credential in (None, "x", "hr_", new_key(lambda count: b"\1" * count).text):
                refused = await look(client, credential)
                assert (refused.status_code, refusal_code(refused)) == (401, "unauthenticated")
                assert refused.headers["www-authenticate"] == 'Bearer realm="headrace"'
        key = await new_key_of(settings, "--user", "ann")
        for _, client in running:
            await becomes(client, key, 200)
            assert (await look(client, key, header="x-api-key")).status_code == 200
        streams = []
        for server, _ in running:
            assert server.gateway is not None
            principal = await server.gateway.authenticate(key, Arrival("http", "127.0.0.1"))
            streams.append(asyncio.create_task(server.gateway.until_invalid(principal)))
        assert "revoked" in await command(settings, "revoke", parse_key(key).id)
        await asyncio.gather(*(becomes(client, key, 401) for _, client in running))
        async with asyncio.timeout(60):
            await asyncio.gather(*streams)
        other = await new_key_of(settings, "--all-users")
        for _, client in running:
            await becomes(client, other, 200)
    async with gateways(asking(settings)) as [(_, client)]:
        for path in ("/tools", "/openapi.json"):
            stranger = await client.get(path)
            assert (stranger.status_code, stranger.headers["content-type"]) == (401, "application/problem+json")
            assert stranger.json()["code"] == "unauthenticated"
            assert (await client.get(path, headers={"x-api-key": other})).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert (await look(client, key)).status_code == 401, "a gateway has read all revocations before it answers"
        assert (await look(client, other)).status_code == 200


async def test_the_command_makes_lists_and_revokes_keys(settings: Settings) -> None:
    made = json.loads(await command(settings, "create", "laptop", "--user", "ann", "--tenant", "acme", "--json"))
    assert parse_key(made["key"]).id == made["id"]
    assert (made["subject"], made["tenant"], "jobs:act-as" in made["scopes"]) == ("ann", "acme", False)
    assert made["expiresAt"] > made["createdAt"]
    service = json.loads(await command(settings, "create", "svc", "--all-users", "--scope", "jobs:read", "--json"))
    assert (service["subject"], service["scopes"]) == ("svc", ["jobs:act-as", "jobs:read"])
    listed = json.loads(await command(settings, "list", "--json"))
    assert [key["name"] for key in listed] == ["svc", "laptop"]
    shown = await command(settings, "list")
    assert made["id"] in shown and "svc" in shown
    for secret in (made["key"], made["key"].rpartition("_")[2]):
        assert secret not in shown + json.dumps(listed)
    assert not any("digest" in key for key in listed)
    revoked = json.loads(await command(settings, "revoke", made["key"], "--json"))
    assert revoked["revokedAt"] and "revoked" in await command(settings, "list")
    for arguments, told in [
        (["create", "x"], "--all-users"),
        (["create", "x", "--user", "ann", "--all-users"], "--all-users"),
        (["create", "x", "--user", "ann", "--scope", "jobs:act-as"], "jobs:act-as"),
        (["create", "x", "--user", "ann", "--scope", "everything"], "jobs:read"),
        (["create", "x" * 201, "--user", "ann"], "200"),
        (["create", "x", "--user", "ann", "--from-environment"], "HEADRACE_API_KEY"),
        (["revoke", "0123456789abcdef"], "keys list"),
        (["revoke", f"{made['key']}0"], "no API key"),
    ]:
        output = await command(settings, *arguments, code=2)
        assert told in output and made["key"] not in output


async def test_the_key_of_the_environment_is_entered_as_compose_does_it(settings: Settings) -> None:
    await publish_workers(settings)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    arguments = compose["services"]["keys"]["entrypoint"][2:]
    key = new_key(lambda count: b"\2" * count).text
    for _ in range(2):
        assert key not in await command(settings, *arguments, HEADRACE_API_KEY=key)
    assert len(json.loads(await command(settings, "list", "--json"))) == 1
    async with gateways(asking(settings)) as [(_, client)]:
        assert (await look(client, key)).status_code == 200


async def test_limits_are_429_with_the_time_to_wait(settings: Settings) -> None:
    await publish_workers(settings)
    ann, bob = [await new_key_of(settings, "--user", user) for user in ("ann", "bob")]
    async with gateways(asking(settings, calls_per_second=0.05, burst=3)) as [(_, client)]:
        answers = [await look(client, ann) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert refusal_code(answers[-1]) == "rate_limited"
        assert 10 <= int(answers[-1].headers["retry-after"]) <= 20
        assert (await look(client, bob)).status_code == 200
    async with gateways(asking(settings, calls_at_once=2)) as [(server, client)]:
        ended = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield b"{"
            await ended.wait()
            yield b'"action": "list_workers"}'

        headers = {"authorization": f"Bearer {ann}"}
        held = [asyncio.create_task(client.post("/tools/worker_manager", content=slow_body(), headers=headers)) for _ in range(2)]
        assert server.gateway is not None
        limits = server.gateway.access.limits

        async def are_under_way() -> bool:
            return limits.under_way(Principal(subject="ann")) == 2

        # A look before that would be one of the two, and one of them refused.
        await eventually(are_under_way)
        refused = await look(client, ann)
        assert (refused.status_code, refusal_code(refused), refused.headers["retry-after"]) == (429, "too_many_in_flight", "1")
        ended.set()
        assert [(await each).status_code for each in held] == [200, 200]
        assert (await look(client, ann)).status_code == 200
        large = b'{"a": "' + b"x" * settings.gateway.maximum_body_bytes + b'"}'
        assert (await client.post("/tools/scheduler", content=large, headers=headers)).status_code == 413


async def test_every_call_is_in_the_audit_and_none_of_what_it_said(settings: Settings) -> None:
    await publish_workers(settings)
    key = await new_key_of(settings, "--user", "ann", "--scope", "jobs:write", "--scope", "workers:read")
    headers = {"authorization": f"Bearer {key}"}
    async with gateways(asking(settings)) as [(_, client)]:
        job = data_of(await client.post("/tools/scheduler", json=DIGEST, headers=headers))["jobId"]
        for path, arguments, given in [
            ("worker_manager", LOOK, headers),
            ("worker_manager", {"action": "get_job", "jobId": job}, headers),
            ("scheduler", {**DIGEST, "userId": "bob"}, headers),
            ("worker_manager", LOOK, {}),
            ("scheduler", {"kind": "the-arguments"}, headers),
            ("not-a-tool-the-arguments", {}, headers),
            ("worker_manager", LOOK, {**headers, "host": "evil.example"}),
        ]:
            await client.post(f"/tools/{path}", json=arguments, headers=given)
    found = await audited(settings, 8)
    nobody = {"transport": "http", "address": "127.0.0.1"}
    mine = {**nobody, "tenant": "default", "subject": "ann", "credential": f"key:{parse_key(key).id}"}
    told = [{name: value for name, value in record.items() if name not in ("at", "gateway", "schemaVersion")} for record in found]
    assert told == [
        {**mine, "tool": "scheduler", "action": "enqueue", "outcome": "ok", "jobId": job},
        {**mine, "tool": "worker_manager", "action": "list_workers", "outcome": "ok"},
        {**mine, "tool": "worker_manager", "action": "get_job", "outcome": "forbidden"},
        {**mine, "tool": "scheduler", "outcome": "forbidden"},
        {**nobody, "outcome": "unauthenticated"},
        {**mine, "tool": "scheduler", "outcome": "kind_unknown"},
        {**mine, "outcome": "tool_unknown"},
        {**nobody, "outcome": "host_refused"},
    ]
    assert "the-arguments" not in json.dumps(found)
    async with open_history(settings) as history:
        lines = (await timeline_of(history, job)).lines
    assert [(line.event, line.note) for line in lines] == [("accepted", ""), ("called", "enqueue by ann (scheduler): ok")]


@pytest.fixture
def issuer() -> Any:
    with running_issuer() as running:
        yield running


async def test_no_secret_is_anywhere(settings: Settings, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await publish_workers(settings)
    both = settings.model_copy(update={"gateway": GatewaySettings(port=0), "auth": issuer.settings()})
    good = await new_key_of(settings, "--user", "ann")
    revoked = await new_key_of(settings, "--user", "bob")
    await command(settings, "revoke", revoked)
    bad = f"{good[:-6]}abcdef"
    tokens = [issuer.token(scope="jobs:write jobs:read workers:read"), issuer.token(exp=1), issuer.token(aud="other")]
    counting = {good, tokens[0]}
    credentials = [good, revoked, bad, good.upper(), f"{good}x", *tokens, f"{tokens[0]}x", "plain-secret-of-somebody"]
    answers: list[str] = []
    async with gateways(both) as [(_, client)]:
        for credential in credentials:
            for headers in (
                {"authorization": f"Bearer {credential}"},
                {"authorization": f"Basic {credential}"},
                {"x-api-key": credential},
                {"authorization": f"Bearer {credential}", "x-api-key": f"{credential}y"},
            ):
                answer = await client.post("/tools/scheduler", json=DIGEST, headers=headers)
                expected = credential in counting and len(headers) == 1 and "Basic" not in str(headers)
                assert answer.status_code == (200 if expected else 401)
                answers.append(f"{answer.headers} {answer.text}")
        with caplog.at_level(logging.DEBUG):
            await client.get("/tools", headers={"authorization": f"Bearer {good}", "host": "evil.example"})
    await audited(settings, 4 * len(credentials) + 1)
    records = await all_records(settings)
    written = "\n".join(f"{record.topic} {record.key!r} {record.value!r} {record.headers!r}" for record in records)
    logged = "\n".join(f"{record.name} {record.getMessage()} {record.exc_text}" for record in caplog.records)
    everything = {"log": logged, "topics": written, "answers": "\n".join(answers)}
    # What is looked for is found where it may be: the search itself works.
    assert parse_key(good).id in written and '"subject":"ann"' in written and "unauthenticated" in "\n".join(answers)
    assert "headrace_gateway" in logged or "headrace" in logged
    for credential in credentials:
        parts = credential.split(".") if credential.count(".") == 2 else [credential.rpartition("_")[2]]
        for secret in {credential, parts[-1]}:
            for place, text in everything.items():
                assert secret not in text, f"{credential[:12]}... is in the {place}"


async def test_a_revocation_closes_streams_of_http_and_of_mcp(settings: Settings) -> None:
    await publish_workers(settings)
    key = await new_key_of(settings, "--user", "ann")
    headers = {"authorization": f"Bearer {key}"}
    wanted, body = modern_request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["worker://send_digest"]}})
    async with (
        gateways(asking(settings)) as [(_, client)],
        event_stream(client, "/events", headers=headers) as events,
        client.stream("POST", "/mcp", headers=headers | wanted, json=body) as listening,
    ):
        lines = listening.aiter_lines()

        async def until(text: str) -> None:
            async with asyncio.timeout(PATIENCE):
                while text not in await anext(lines):
                    pass

        await until("notifications/subscriptions/acknowledged")
        data_of(await client.post("/tools/scheduler", json=DIGEST, headers=headers))
        assert (await events.next()).name == "job", "it is open"
        await command(settings, "revoke", parse_key(key).id)
        while (event := await events.next()).name == "job":
            pass
        assert (event.name, event.data) == ("closing", {"reason": "the credential does not count any more"})
        with pytest.raises(StopAsyncIteration):
            await events.next()
        with pytest.raises(StopAsyncIteration):
            await until("there is nothing of the kind")
        assert (await look(client, key)).status_code == 401
