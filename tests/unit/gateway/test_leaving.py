"""What was asked for is given up when its caller has left, and is not told when the credential does not count any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from headrace_gateway.access import ALL_SCOPES, Limits, Principal
from support.access import RememberedAudit
from support.events import PATIENCE, event_stream
from support.mcp_raw import modern_request
from support.served import Served, served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

ANN = Principal(subject="ann", scopes=ALL_SCOPES)
STREAMS = 5


async def becomes(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not is_so():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


def open_streams(gateway: Served) -> int:
    limits = limits_of(gateway)
    use = limits._uses.get((ANN.tenant, ANN.subject))
    return 0 if use is None else use.streams


def limits_of(gateway: Served) -> Limits:
    found: Limits = gateway.app.state.gateway.access.limits
    return found


@contextlib.asynccontextmanager
async def being_resumed(log: WrittenLog, engines: Engines, gateway: Served, client: httpx.AsyncClient) -> AsyncIterator[str]:
    """An id from which a stream cannot be taken up as long as the block lasts, as what it has missed cannot be read."""
    engines.enqueue("a")
    engines.enqueue("b", 1)
    async with event_stream(client, "/events") as stream:
        engines.enqueue("c", 2)
        # Those before may come, too.
        while await stream.job() != ("c", "queued"):
            pass
        last = stream.last_id
        engines.run("a", engines.claim("one", -1))
        while await stream.job() != ("a", "running"):
            pass
    await becomes(lambda: open_streams(gateway) == 0)
    log.cluster.withhold(engines.state(0))
    try:
        yield last
    finally:
        log.cluster.give_out(engines.state(0))


async def test_a_stream_that_opens_tells_nothing_once_the_credential_is_revoked(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    audit = RememberedAudit()
    async with served(log, tmp_path, {"ann": ANN}, audit=audit) as gateway, gateway.http("ann") as client:
        async with being_resumed(log, engines, gateway, client) as last:
            resuming = asyncio.create_task(client.get("/events", headers={"Last-Event-ID": last}))
            await becomes(lambda: open_streams(gateway) == 1)
            await gateway.tokens.revoke("ann")
            async with asyncio.timeout(PATIENCE):
                refused = await resuming
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert audit.outcomes[-1] == "unauthenticated"


async def test_what_was_found_as_the_credential_was_revoked_is_not_told(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    """The first part is there at the very moment."""
    engines.enqueue("a")
    async with served(log, tmp_path, {"ann": ANN}) as gateway, gateway.http("ann") as client:
        watch_job = gateway.client.watch_job

        async def revoking(*arguments: object, **values: object) -> AsyncIterator[object]:
            async for job in watch_job(*arguments, **values):  # type: ignore[arg-type]
                del gateway.tokens.principals["ann"]
                yield job

        gateway.client.watch_job = revoking  # type: ignore[method-assign, assignment]
        refused = await client.get("/jobs/a/events")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")


async def test_nothing_is_promised_over_mcp_once_the_credential_is_revoked(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    engines.enqueue("a")
    headers, body = modern_request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["job://a"]}})
    async with served(log, tmp_path, {"ann": ANN}) as gateway, gateway.http("ann") as client:
        get_job = gateway.client.get_job

        async def revoking(*arguments: object, **values: object) -> object:
            job = await get_job(*arguments, **values)  # type: ignore[arg-type]
            gateway.tokens.principals.pop("ann", None)
            return job

        gateway.client.get_job = revoking  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(PATIENCE):
            answer = (await client.post("/mcp", headers=headers, json=body)).text
        assert "does not count any more" in answer
        assert "job://a" not in answer


async def test_streams_whose_clients_left_while_they_opened_take_no_places(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    audit = RememberedAudit()
    async with served(log, tmp_path, {"ann": ANN}, audit=audit) as gateway, gateway.http("ann") as client:
        async with being_resumed(log, engines, gateway, client) as last:
            resuming = [asyncio.create_task(client.get("/events", headers={"Last-Event-ID": last})) for _ in range(STREAMS)]
            await becomes(lambda: open_streams(gateway) == STREAMS)
            for each in resuming:
                each.cancel()
            await asyncio.gather(*resuming, return_exceptions=True)
            await becomes(lambda: open_streams(gateway) == 0)
        assert audit.outcomes[-STREAMS:] == ["cancelled"] * STREAMS


@pytest.mark.parametrize("path", ["/tools/scheduler", "/jobs/a/cancel?wait=30"])
async def test_who_has_left_is_not_waited_for(log: WrittenLog, engines: Engines, tmp_path: Path, path: str) -> None:
    engines.define(kind="digest")
    engines.enqueue("a")
    body = {"kind": "digest", "args": {"to": ["x"]}, "wait": 60} if path.startswith("/tools") else None
    audit = RememberedAudit()
    async with served(log, tmp_path, {"ann": ANN}, audit=audit) as gateway, gateway.http("ann") as client:
        waits = asyncio.Event()
        wait_for_job = gateway.client.wait_for_job

        async def noted(*arguments: object, **values: object) -> object:
            waits.set()
            return await wait_for_job(*arguments, **values)  # type: ignore[arg-type]

        gateway.client.wait_for_job = noted  # type: ignore[method-assign, assignment]
        asking = asyncio.create_task(client.post(path, json=body))
        async with asyncio.timeout(PATIENCE):
            await waits.wait()
        assert limits_of(gateway).under_way(ANN) == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await becomes(lambda: limits_of(gateway).under_way(ANN) == 0)
        assert audit.outcomes == ["ok"], "what was asked for was accepted"
