"""What the routes beside the tools answer, and what they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.errors import BrokerUnreachable
from headrace_gateway.access import ALL_SCOPES, Principal, Scope
from headrace_gateway.http.routes import ROUTES, STREAMS
from headrace_gateway.operations import OPERATIONS
from support.served import Served, served
from support.written_jobs import WORKER, Engines, WrittenLog

pytestmark = pytest.mark.usefixtures("quick")

TOKENS = {
    "all": Principal(subject="service", scopes=ALL_SCOPES),
    "none": Principal(subject="service"),
    "ann": Principal(subject="ann", scopes=ALL_SCOPES - {Scope.JOBS_ACT_AS}),
}


@pytest.fixture
async def gateway(log: WrittenLog, engines: Engines, tmp_path: Path) -> AsyncIterator[Served]:
    for name in ("failed", "queued", "done"):
        engines.enqueue(name, created=f"2026-03-02T09:30:0{len(name)}.000Z")
    epoch = engines.claim("one", -1)
    for name in ("failed", "done"):
        engines.run(name, epoch)
    engines.fail("failed")
    engines.complete("done", {"n": 1})
    async with served(log, tmp_path, TOKENS) as made:
        yield made


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.http("all") as made:
        yield made


def problem(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status
    assert told["title"]
    assert told["code"] == code
    return str(told["detail"])


async def test_jobs_are_listed_by_pages(client: httpx.AsyncClient) -> None:
    first = (await client.get("/jobs", params={"limit": 2})).json()
    assert [job["id"] for job in first["jobs"]] == ["queued", "failed"]
    second = (await client.get("/jobs", params={"limit": 2, "cursor": first["nextCursor"]})).json()
    assert [job["id"] for job in second["jobs"]] == ["done"]
    assert second["nextCursor"] is None
    found = (await client.get("/jobs", params={"status": "failed", "workerName": WORKER, "userId": "ann"})).json()
    assert [job["id"] for job in found["jobs"]] == ["failed"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%201", "limit"),
        ("limit=1&limit=2", "more than once"),
        ("status=lost", "status"),
        ("cursor=nonsense", "cursor"),
        ("userId=", "userId"),
        ("user_id=ann", "user_id"),
        ("tenant=other", "tenant"),
    ],
)
async def test_queries_that_are_wrong(client: httpx.AsyncClient, query: str, told: str) -> None:
    assert told in problem(await client.get(f"/jobs?{query}"), 400, "arguments_invalid")


async def test_one_job(client: httpx.AsyncClient) -> None:
    job = (await client.get("/jobs/done")).json()["job"]
    assert (job["status"], job["result"]) == ("completed", {"n": 1})
    problem(await client.get("/jobs/other"), 404, "job_unknown")
    problem(await client.get(f"/jobs/{'x' * 201}"), 400, "arguments_invalid")


async def test_a_job_is_cancelled_once_it_is_asked_for(client: httpx.AsyncClient) -> None:
    assert (await client.post("/jobs/queued/cancel")).json()["job"]["status"] == "queued", "no engine is up to do it"
    problem(await client.post("/jobs/done/cancel"), 409, "job_not_cancellable")
    problem(await client.post("/jobs/other/cancel"), 404, "job_unknown")
    problem(await client.post("/jobs/queued/cancel?wait=31"), 400, "arguments_invalid")


async def test_a_failed_job_is_done_anew(client: httpx.AsyncClient) -> None:
    again = (await client.post("/jobs/failed/retry")).json()["job"]
    assert (again["retryOf"], again["status"]) == ("failed", "queued")
    problem(await client.post("/jobs/done/retry"), 409, "job_not_retriable")


@pytest.mark.parametrize(("action", "code"), [("cancel_job", "job_not_cancellable"), ("retry_job", "job_not_retriable")])
async def test_a_tool_says_by_the_same_status_that_a_job_is_in_no_state_for_it(
    client: httpx.AsyncClient, action: str, code: str
) -> None:
    refused = await client.post("/tools/worker_manager", json={"action": action, "jobId": "done"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, code)


async def test_workers(client: httpx.AsyncClient) -> None:
    [worker] = (await client.get("/workers")).json()["workers"]
    assert (worker["name"], worker["liveInstances"], worker["backlog"], worker["failed"]) == (WORKER, 0, 1, 1)


async def test_a_conversation_is_brought_and_read(client: httpx.AsyncClient) -> None:
    path, whose = "/memory/trip%2F1/entries", {"userId": "ann"}
    entries = [
        {"id": "1", "role": "user", "content": "We go by train.", "at": "2026-03-02T09:30:00Z"},
        {"id": "2", "role": "assistant", "content": "At nine."},
        {"role": "tool", "content": "{}", "name": "timetable"},
    ]
    first = (await client.post(path, params=whose, json={"entries": entries})).json()
    assert first["ids"][:2] == ["1", "2"]
    assert first["added"] == 3
    again = (await client.post(path, params=whose, json={"entries": entries[:2]})).json()
    assert again == {"ids": ["1", "2"], "added": 0}
    page = (await client.get(path, params=whose | {"limit": "2"})).json()
    assert [entry["content"] for entry in page["entries"]] == ["We go by train.", "At nine."]
    assert page["entries"][0]["at"] == "2026-03-02T09:30:00Z"
    rest = (await client.get(path, params=whose | {"cursor": page["nextCursor"]})).json()
    assert [(entry["role"], entry["name"]) for entry in rest["entries"]] == [("tool", "timetable")]
    assert (rest["version"], "nextCursor" in rest) == (-1, False)
    assert (await client.get(path, params={"userId": "bob"})).json()["entries"] == []
    assert "begin anew" in problem(await client.get(path, params=whose | {"cursor": "9"}), 400, "arguments_invalid")
    assert "userId is missing" in problem(await client.get(path), 400, "arguments_invalid")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"entries": []},
        {"entries": [{"role": "summary", "content": "x"}]},
        {"entries": [{"role": "user", "content": 1}]},
        {"entries": [{"role": "user", "content": "x", "at": "1700000000"}]},
        {"entries": [{"role": "user", "content": "x", "at": "0999-12-31T00:00:00Z"}]},
        {"entries": [{"role": "user", "content": "x", "at": "1000-01-01T00:00:00+01:00"}]},
        {"entries": [{"role": "user", "content": "x", "id": ""}]},
        {"entries": [{"role": "user", "content": "x", "tenant": "other"}]},
        {"entries": [{"role": "user", "content": "x"}], "userId": "bob"},
    ],
)
async def test_entries_that_are_wrong(client: httpx.AsyncClient, body: Any) -> None:
    problem(await client.post("/memory/c/entries?userId=ann", json=body), 400, "arguments_invalid")


async def test_bodies_that_are_wrong(client: httpx.AsyncClient) -> None:
    path = "/memory/c/entries?userId=ann"
    problem(await client.post(path, content=b"{"), 400, "body_invalid")
    problem(await client.post(path, content=b"x" * 1_100_000), 413, "body_too_large")
    long = {"entries": [{"role": "user", "content": "x" * 600_000}]}
    problem(await client.post(path, json=long), 400, "conversation_invalid")


async def test_who_may_act_for_one_user_sees_that_users_conversations(gateway: Served) -> None:
    async with gateway.http("ann") as ann:
        entry = {"entries": [{"role": "user", "content": "mine"}]}
        await ann.post("/memory/c/entries", json=entry)
        assert len((await ann.get("/memory/c/entries?userId=ann")).json()["entries"]) == 1
        problem(await ann.get("/memory/c/entries?userId=bob"), 403, "forbidden")
        problem(await ann.post("/memory/c/entries?userId=bob", json=entry), 403, "forbidden")


@pytest.mark.parametrize("route", [*ROUTES, *STREAMS], ids=lambda route: f"{route.method} {route.path}")
async def test_nobody_comes_in_without_a_credential_or_does_anything_without_a_scope(gateway: Served, route: Any) -> None:
    path = route.path.replace("{jobId}", "done").replace("{conversationId}", "c")
    entry = {"entries": [{"role": "user", "content": "x"}]} if route.method == "POST" and "memory" in path else None
    async with gateway.http() as nobody, gateway.http("none") as none:
        response = await nobody.request(route.method, path, json=entry)
        problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
        told = problem(await none.request(route.method, path, json=entry), 403, "forbidden")
        assert OPERATIONS[route.operation].scope.value in told


async def test_whoever_may_not_do_it_is_refused_before_the_body_is_read(gateway: Served) -> None:
    async with gateway.http("none") as none, gateway.http("all") as everything:
        for client, status in ((none, 403), (everything, 400)):
            assert (await client.post("/memory/c/entries", content=b"{")).status_code == status


async def test_a_misspelt_name_is_told_with_the_nearest_one(client: httpx.AsyncClient) -> None:
    told = problem(await client.get("/jobs?user_id=ann"), 400, "arguments_invalid")
    assert "user_id: there is no such name: did you mean userId? (there are: " in told
    entry = {"role": "user", "content": "x", "speaker": "ann", "contents": "x"}
    told = problem(await client.post("/memory/c/entries?userId=ann", json={"entries": [entry]}), 400, "arguments_invalid")
    assert "entries.0.contents: there is no such name: did you mean content? (there are: " in told


async def test_other_methods_and_paths(client: httpx.AsyncClient) -> None:
    response = await client.delete("/memory/c/entries")
    problem(response, 405, "method_not_allowed")
    assert {each.strip() for each in response.headers["allow"].split(",")} == {"GET", "POST"}
    assert (await client.head("/jobs")).status_code == 405
    problem(await client.get("/nothing"), 404, "route_unknown")
    for path in ("/nothing", "/tools/scheduler"):
        assert "/openapi.json" in (await client.get(path)).json()["detail"], "it says what to do"


async def test_the_description_is_made_once_for_the_tools_that_there_are(gateway: Served) -> None:
    first = gateway.app.openapi()
    assert gateway.app.openapi() is first
    tool = gateway.app.state.gateway.tools["scheduler"]
    gateway.app.state.gateway.tools.register(replace(tool, name="another"))
    second = gateway.app.openapi()
    assert ("/tools/another" in first["paths"], "/tools/another" in second["paths"]) == (False, True)
    assert gateway.app.openapi() is second


async def test_a_broker_that_is_away_is_503(gateway: Served, client: httpx.AsyncClient, log: WrittenLog) -> None:
    log.refuse_requests(BrokerUnreachable("nothing answers at memory:9092"))
    detail = problem(
        await client.post("/memory/c/entries?userId=ann", json={"entries": [{"role": "user", "content": "x"}]}),
        503,
        "broker_unavailable",
    )
    assert "memory:9092" not in detail
    log.accept_requests()


def test_every_route_does_one_operation() -> None:
    names = [route.operation for route in (*ROUTES, *STREAMS)]
    assert len(set(names)) == len(names)
    assert set(names) <= OPERATIONS.keys()


async def test_a_job_that_another_gateway_has_just_accepted_is_known(gateway: Served, log: WrittenLog, engines: Engines) -> None:
    async with gateway.http("all") as everything, gateway.http("ann") as ann:
        for job_id, client in (("one", everything), ("two", ann)):
            log.cluster.withhold(*log.partitions())
            engines.enqueue(job_id, created="2026-03-02T09:31:00.000Z")
            actions = [{"action": action, "jobId": job_id} for action in ("get_job", "cancel_job", "retry_job")]
            asked = [
                asyncio.create_task(client.get(f"/jobs/{job_id}")),
                asyncio.create_task(client.post(f"/jobs/{job_id}/cancel")),
                *(asyncio.create_task(client.post("/tools/worker_manager", json=action)) for action in actions),
            ]
            # Whoever looked without waiting was told by now that there is none.
            await asyncio.wait(asked, timeout=0.3)
            log.cluster.give_out()
            assert [each.status_code for each in await asyncio.gather(*asked)] == [200, 200, 200, 200, 409]
