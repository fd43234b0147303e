"""Jobs as server-sent events: from now on, from where one was, on another gateway, until somebody has to go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.views import watching
from headrace_gateway.access import ALL_SCOPES, Principal
from headrace_gateway.http import events
from support.access import RememberedAudit
from support.events import event_stream
from support.mcp_raw import modern_request
from support.served import served
from support.written_jobs import Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_job_to_its_end(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    engines.enqueue("a")
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        async with event_stream(client, "/jobs/a/events") as stream:
            assert await stream.job() == ("a", "queued")
            engines.run("a", engines.claim("one", -1))
            assert await stream.job() == ("a", "running")
            running = stream.last_id
            engines.complete("a", {"n": 1})
            assert await stream.job() == ("a", "completed")
            assert stream.events[-1].data["result"] == {"n": 1}
            assert stream.retry == events.RETRY_MILLISECONDS
            with pytest.raises(StopAsyncIteration):
                await stream.next()
        async with event_stream(client, "/jobs/a/events", running) as again:
            assert await again.job() == ("a", "completed")
        nothing = await client.get("/jobs/a/events", headers={"Last-Event-ID": stream.last_id})
        assert (nothing.status_code, nothing.content) == (204, b"")
        assert (await client.get("/jobs/b/events")).status_code == 404
        assert (await client.head("/jobs/a/events")).status_code == 405


async def test_whoever_was_told_of_the_present_state_waits_for_the_next(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    engines.enqueue("a")
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        async with event_stream(client, "/jobs/a/events") as stream:
            await stream.job()
        async with event_stream(client, "/jobs/a/events", stream.last_id) as again:
            engines.run("a", engines.claim("one", -1))
            assert await again.job() == ("a", "running")


async def test_jobs_go_on_at_another_gateway(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    async with served(log, tmp_path / "one") as one, served(log, tmp_path / "two") as two:
        async with one.http() as client, event_stream(client, "/events") as stream:
            engines.enqueue("a")
            assert await stream.job() == ("a", "queued")
        engines.enqueue("b", 1)
        engines.run("a", engines.claim("one", -1))
        async with two.http() as client, event_stream(client, "/events", stream.last_id) as again:
            assert {await again.job(), await again.job()} == {("a", "running"), ("b", "queued")}
            engines.complete("a")
            assert await again.job() == ("a", "completed")


async def test_filters_and_what_is_wrong(
    log: WrittenLog, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        async with event_stream(client, "/events", params={"userId": "bob", "status": "queued"}) as stream:
            engines.enqueue("a")
            engines.enqueue("b", ctx={"userId": "bob"})
            assert await stream.job() == ("b", "queued")
        for query in ("status=lost", "tenant=acme", "limit=1"):
            assert (await client.get(f"/events?{query}")).status_code == 400
        assert (await client.get("/events", headers={"Last-Event-ID": "x"})).status_code == 400
        monkeypatch.setattr(watching, "MOST_MISSED_RECORDS", 0)
        engines.run("a", engines.claim("one", -1))
        gone = await client.get("/events", headers={"Last-Event-ID": stream.last_id})
        assert (gone.status_code, gone.json()["code"]) == (410, "changes_gone")


async def test_a_stream_over_which_nothing_comes_is_kept(
    log: WrittenLog, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.02)
    async with served(log, tmp_path) as gateway, gateway.http() as client, event_stream(client, "/events") as stream:
        looking = asyncio.create_task(stream.job())
        async with asyncio.timeout(20):
            while stream.comments < 3:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        engines.enqueue("a")
        assert await looking == ("a", "queued")


async def test_streams_are_closed_when_the_gateway_stops(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    engines.enqueue("a")
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        async with event_stream(client, "/events") as stream, event_stream(client, "/jobs/a/events") as other:
            await other.job()
            gateway.app.state.streams.close()
            for each in (stream, other):
                closing = await each.next()
                assert (closing.name, closing.data) == ("closing", {"reason": "the gateway stops"})
                assert each.retry == events.RETRY_MILLISECONDS
                with pytest.raises(StopAsyncIteration):
                    await each.next()
            assert stream.last_id, "so that it goes on from there, though nothing came"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)


async def test_a_revoked_credential_ends_its_streams_alone(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    tokens = {name: Principal(subject=name, scopes=ALL_SCOPES) for name in ("ann", "bob")}
    async with served(log, tmp_path, tokens) as gateway, gateway.http("ann") as ann, gateway.http("bob") as bob:
        async with event_stream(ann, "/events") as hers, event_stream(bob, "/events") as his:
            await gateway.tokens.revoke("ann")
            assert (await hers.next()).data == {"reason": "the credential does not count any more"}
            with pytest.raises(StopAsyncIteration):
                await hers.next()
            engines.enqueue("a")
            assert await his.job() == ("a", "queued")
        assert (await ann.get("/events")).status_code == 401


async def test_whoever_leaves_is_forgotten(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        async with event_stream(client, "/events"):
            view = await gateway.client._view.open()
            assert view.changes.watched
        async with asyncio.timeout(20):
            while view.changes.watched:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)


async def test_a_stream_is_audited_as_what_became_of_it(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    audit = RememberedAudit()
    engines.enqueue("a")
    tokens = {
        "ann": Principal(subject="ann", scopes=ALL_SCOPES),
        "blind": Principal(subject="blind", scopes=frozenset()),
    }
    async with served(log, tmp_path, tokens, audit=audit) as gateway, gateway.http("ann") as ann, gateway.http("blind") as blind:
        async with event_stream(ann, "/jobs/a/events") as stream:
            await stream.job()
            assert [(told.action, told.outcome) for told in audit.told] == [("watch_job", "ok")]
        for client, path, status, outcome in (
            (blind, "/events", 403, ("watch_jobs", "forbidden")),
            (ann, "/jobs/b/events", 404, ("watch_job", "job_unknown")),
            (ann, "/events?limit=1", 400, (None, "arguments_invalid")),
        ):
            assert (await client.get(path)).status_code == status
            assert (audit.told[-1].action, audit.told[-1].outcome) == outcome
        assert len(audit.told) == 4
        headers, body = modern_request("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["job://a"]}})
        refused = await blind.post("/mcp", headers=headers, json=body)
        assert "forbidden" in refused.text
        async with asyncio.timeout(20), ann.stream("POST", "/mcp", headers=headers, json=body) as listening:
            await anext(listening.aiter_lines())
        listened = [(told.principal and told.principal.subject, told.action, told.outcome) for told in audit.told[4:]]
        assert listened == [("blind", "get_job", "forbidden"), ("ann", "get_job", "ok")]


async def test_who_waits_for_a_job_is_answered_when_the_gateway_stops(log: WrittenLog, engines: Engines, tmp_path: Path) -> None:
    engines.define(kind="digest")
    call = {"kind": "digest", "args": {"to": ["x"]}, "wait": 60}
    headers, body = modern_request("tools/call", {"name": "scheduler", "arguments": call})
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        engines.enqueue("a")
        asked = [
            asyncio.create_task(client.post("/tools/scheduler", json=call)),
            asyncio.create_task(client.post("/jobs/a/cancel?wait=30")),
            asyncio.create_task(client.post("/mcp", headers=headers, json=body)),
        ]
        async with asyncio.timeout(20):
            while len((await client.get("/jobs")).json()["jobs"]) < 3:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            gateway.app.state.close_streams()
            receipt, cancelled, called = await asyncio.gather(*asked)
    assert receipt.json()["data"]["job"]["status"] == "queued"
    assert (cancelled.status_code, cancelled.json()["job"]["id"]) == (200, "a")
    assert '"status":"queued"' in called.text


async def test_who_waits_is_told_nothing_more_once_the_credential_is_revoked(
    log: WrittenLog, engines: Engines, tmp_path: Path
) -> None:
    engines.define(kind="digest")
    engines.enqueue("a")
    call = {"kind": "digest", "args": {"to": ["x"]}, "wait": 60}
    headers, body = modern_request("tools/call", {"name": "scheduler", "arguments": call})
    body["params"]["_meta"]["progressToken"] = "p"
    tokens = {"ann": Principal(subject="ann", scopes=ALL_SCOPES)}
    async with served(log, tmp_path, tokens) as gateway, gateway.http("ann") as client:
        asked = [
            asyncio.create_task(client.post("/tools/scheduler", json=call)),
            asyncio.create_task(client.post("/jobs/a/cancel?wait=30")),
            asyncio.create_task(client.post("/mcp", headers=headers, json=body)),
        ]
        async with asyncio.timeout(20):
            while len((await client.get("/jobs")).json()["jobs"]) < 3:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            # So that the waiting has begun.
            assert not (await asyncio.wait(asked, timeout=0.3))[0]
        await gateway.tokens.revoke("ann")
        async with asyncio.timeout(20):
            receipt, cancelled, called = await asyncio.gather(*asked)
    assert (receipt.status_code, cancelled.status_code) == (401, 401)
    assert "does not count any more" in called.text and "jobId" not in called.text


async def test_who_was_told_of_the_end_by_another_gateway_is_not_told_of_what_was_before(
    log: WrittenLog, engines: Engines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    epoch = engines.claim("one", -1)
    for job_id in ("a", "b"):
        engines.enqueue(job_id)
        engines.run(job_id, epoch)
    engines.complete("a")
    async with served(log, tmp_path) as gateway, gateway.http() as client:
        async with event_stream(client, "/jobs/a/events") as ended:
            assert await ended.job() == ("a", "completed")
        async with event_stream(client, "/jobs/b/events") as running:
            assert await running.job() == ("b", "running")
        log.cluster.withhold(*log.partitions())
        engines.complete("b")
        # The two jobs went the same way, and so their ends have the same id.
        async with event_stream(client, "/jobs/b/events", ended.last_id) as again:
            log.cluster.give_out()
            with pytest.raises(StopAsyncIteration):
                await again.next()
            assert again.events == []
        assert (await client.get("/jobs/b/events", headers={"Last-Event-ID": ended.last_id})).status_code == 204
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
