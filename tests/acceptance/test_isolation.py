"""Nobody sees, changes or is told of what belongs to another tenant, or to another user without the right to act for them.

Every operation of the gateway is tried over every transport. A transport says of each operation how it is done, or why it has no
way to do it: a new operation fails here until every transport has said so. Each is tried by its owner too, who sees the secret
that a stranger must not see: so it is known that the test would see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from headrace import CallContext, HeadraceError, NewEntry
from headrace.views import follower, job_intake, worker_watching
from headrace_gateway.access.admission import Transport
from headrace_gateway.operations import OPERATIONS
from headrace_gateway.tools import worker_manager
from support import tenants_over_mcp, tenants_over_tasks
from support.events import PATIENCE, EventReader, event_stream
from support.tenants import ACTORS, CONVERSATION, STRANGERS, Actor, Tenants, tenants
from support.tenants_by_record import by_record, by_record_of_own_topic
from support.written_jobs import WORKER

Perform = Callable[[Tenants, Actor, Actor], Awaitable[str]]
"""Does an operation as the first actor, on what belongs to the second one, and gives all text that came back."""


class NotOffered(NamedTuple):
    """Why a transport has no way to do an operation."""

    reason: str


# What shows something of whose it is; the others change it, or tell of workers.
SHOWS_SECRETS = {"list_jobs", "get_job", "wait_for_job", "watch_job", "watch_jobs", "list_entries", "retry_job", "cancel_job"}
APPENDED = "something new"


# --- without a transport ------------------------------------------------------------------------------------------------


def directly(perform: Callable[[Any, Actor], Awaitable[Any]]) -> Perform:
    async def run(world: Tenants, actor: Actor, owner: Actor) -> str:
        try:
            return repr(await perform(world.operations(actor), owner))
        except HeadraceError as error:
            return str(error)

    return run


async def watch_job_directly(world: Tenants, actor: Actor, owner: Actor) -> str:
    try:
        jobs = await world.operations(actor).watch_job(owner.changing)
        async with contextlib.aclosing(jobs), asyncio.timeout(PATIENCE):
            told = [await anext(jobs)]
            world.change(owner)
            return repr([*told, await anext(jobs)])
    except HeadraceError as error:
        return str(error)


async def watch_jobs_directly(world: Tenants, actor: Actor, owner: Actor) -> str:
    changes = await world.operations(actor).watch_jobs()
    async with contextlib.aclosing(changes), asyncio.timeout(PATIENCE):
        told = repr(await anext(changes))
        for each in {owner.token: owner, actor.token: actor}.values():
            world.change(each)
        while actor.changing not in told:
            told += repr(await anext(changes))
        return told


async def watch_worker_directly(world: Tenants, actor: Actor, owner: Actor) -> str:
    summaries = await world.operations(actor).watch_worker(WORKER)
    async with contextlib.aclosing(summaries), asyncio.timeout(PATIENCE):
        return str((await anext(summaries)).to_wire())


DIRECTLY: dict[str, Perform | NotOffered] = {
    "enqueue": directly(lambda operations, owner: operations.enqueue(WORKER, {"to": ["x"]}, CallContext(user_id=owner.user))),
    "list_workers": directly(lambda operations, _: operations.list_workers()),
    "list_jobs": directly(lambda operations, _: operations.list_jobs(limit=100)),
    "get_job": directly(lambda operations, owner: operations.get_job(owner.failed)),
    "wait_for_job": directly(lambda operations, owner: operations.wait_for_job(owner.failed, wait=0.1)),
    "retry_job": directly(lambda operations, owner: operations.retry_job(owner.failed)),
    "cancel_job": directly(lambda operations, owner: operations.cancel_job(owner.waiting)),
    "watch_job": watch_job_directly,
    "watch_jobs": watch_jobs_directly,
    "watch_worker": watch_worker_directly,
    "append_entries": directly(
        lambda operations, owner: operations.append_entries(
            CONVERSATION, [NewEntry(role="user", content=APPENDED)], user_id=owner.user
        )
    ),
    "list_entries": directly(lambda operations, owner: operations.list_entries(CONVERSATION, user_id=owner.user)),
}


# --- HTTP ---------------------------------------------------------------------------------------------------------------


def over_http(method: str, path: str, **options: Any) -> Perform:
    async def run(world: Tenants, actor: Actor, owner: Actor) -> str:
        given = {name: _filled(value, owner) for name, value in options.items()}
        response = await world.http[actor.token].request(method, path.format(owner=owner), **given)
        assert response.status_code in {200, 400, 403, 404, 409}, response.text
        return str(response.json())

    return run


def _filled(value: Any, owner: Actor) -> Any:
    """A value in which `{owner...}` is told."""
    return json.loads(
        json.dumps(value)
        .replace("{owner.user}", owner.user)
        .replace("{owner.failed}", owner.failed)
        .replace("{owner.waiting}", owner.waiting)
    )


async def watch_job_over_http(world: Tenants, actor: Actor, owner: Actor) -> str:
    async with world.http[actor.token].stream("GET", f"/jobs/{owner.changing}/events") as response:
        if response.status_code != 200:
            return (await response.aread()).decode()
        stream = EventReader(response)
        await stream.next()
        world.change(owner)
        await stream.next()
        return str(stream.events)


async def watch_jobs_over_http(world: Tenants, actor: Actor, owner: Actor) -> str:
    async with event_stream(world.http[actor.token], "/events") as stream:
        for each in {owner.token: owner, actor.token: actor}.values():
            world.change(each)
        while actor.changing not in str(stream.events):
            await stream.next()
        return str(stream.events)


OVER_HTTP: dict[str, Perform | NotOffered] = {
    "enqueue": NotOffered("jobs are made by the tool `scheduler`"),
    "wait_for_job": NotOffered("it is `wait` of the tool `scheduler`"),
    "list_workers": over_http("GET", "/workers"),
    "list_jobs": over_http("GET", "/jobs?limit=100"),
    "get_job": over_http("GET", "/jobs/{owner.failed}"),
    "retry_job": over_http("POST", "/jobs/{owner.failed}/retry"),
    "cancel_job": over_http("POST", "/jobs/{owner.waiting}/cancel"),
    "watch_job": watch_job_over_http,
    "watch_jobs": watch_jobs_over_http,
    "watch_worker": NotOffered("over HTTP workers are looked at, and not watched"),
    "append_entries": over_http(
        "POST",
        f"/memory/{CONVERSATION}/entries",
        params={"userId": "{owner.user}"},
        json={"entries": [{"role": "user", "content": APPENDED}]},
    ),
    "list_entries": over_http("GET", f"/memory/{CONVERSATION}/entries", params={"userId": "{owner.user}"}),
}


# --- tools over HTTP ----------------------------------------------------------------------------------------------------


def by_manager(**arguments: Any) -> Perform:
    return over_http("POST", "/tools/worker_manager", json=arguments)


NO_TOOL_WATCHES = NotOffered("a tool answers once")
NO_TOOL_REMEMBERS = NotOffered("no tool shows conversations, or adds to them")
BY_TOOLS: dict[str, Perform | NotOffered] = {
    "enqueue": over_http("POST", "/tools/scheduler", json={"kind": "digest", "userId": "{owner.user}", "args": {"to": ["x"]}}),
    "wait_for_job": NotOffered("`scheduler` waits for the job alone that it has made"),
    "list_workers": by_manager(action="list_workers"),
    "list_jobs": by_manager(action="list_jobs", limit=100),
    "get_job": by_manager(action="get_job", jobId="{owner.failed}"),
    "retry_job": by_manager(action="retry_job", jobId="{owner.failed}"),
    "cancel_job": by_manager(action="cancel_job", jobId="{owner.waiting}"),
    "watch_job": NO_TOOL_WATCHES,
    "watch_jobs": NO_TOOL_WATCHES,
    "watch_worker": NO_TOOL_WATCHES,
    "append_entries": NO_TOOL_REMEMBERS,
    "list_entries": NO_TOOL_REMEMBERS,
}


# --- the Model Context Protocol, and records ----------------------------------------------------------------------------


def by_both_tools(call: Callable[[str, Callable[[Actor], dict[str, Any]]], Perform]) -> dict[str, Perform | NotOffered]:
    """What the tools do, over a transport that has a way to call them."""

    def manager(**arguments: Any) -> Perform:
        return call("worker_manager", lambda owner: _filled(arguments, owner))

    return {
        **BY_TOOLS,
        "enqueue": call("scheduler", lambda owner: {"kind": "digest", "userId": owner.user, "args": {"to": ["x"]}}),
        "list_workers": manager(action="list_workers"),
        "list_jobs": manager(action="list_jobs", limit=100),
        "get_job": manager(action="get_job", jobId="{owner.failed}"),
        "retry_job": manager(action="retry_job", jobId="{owner.failed}"),
        "cancel_job": manager(action="cancel_job", jobId="{owner.waiting}"),
    }


OVER_MCP: dict[str, Perform | NotOffered] = {
    **by_both_tools(tenants_over_mcp.by_tool),
    "get_job": tenants_over_mcp.read_job,
    "watch_job": tenants_over_mcp.watch_job,
    "watch_jobs": NotOffered("a stream tells of the jobs alone that it names"),
    "watch_worker": tenants_over_mcp.watch_worker,
}
OVER_STDIO: dict[str, Perform | NotOffered] = {
    **by_both_tools(partial(tenants_over_mcp.by_tool, connect=tenants_over_mcp.host)),
    "get_job": partial(tenants_over_mcp.read_job, connect=tenants_over_mcp.host),
    "watch_job": partial(tenants_over_mcp.watch_job, connect=tenants_over_mcp.host),
    "watch_jobs": OVER_MCP["watch_jobs"],
    "watch_worker": partial(tenants_over_mcp.watch_worker, connect=tenants_over_mcp.host),
}
BY_TASKS: dict[str, Perform | NotOffered] = {
    **dict.fromkeys(OPERATIONS, NotOffered("a task is one job, which is looked at, listened to and cancelled")),
    "get_job": tenants_over_tasks.look,
    "cancel_job": tenants_over_tasks.cancel,
    "watch_job": tenants_over_tasks.watch,
}
BY_RECORD = by_both_tools(by_record)
BY_RECORD_OF_OWN_TOPIC = by_both_tools(by_record_of_own_topic)

WAYS: dict[Transport | None, dict[str, dict[str, Perform | NotOffered]]] = {
    None: {"operations": DIRECTLY},
    "http": {"http": OVER_HTTP, "tools over http": BY_TOOLS},
    "mcp": {"mcp": OVER_MCP, "tasks": BY_TASKS},
    "stdio": {"stdio": OVER_STDIO},
    "kafka": {"records": BY_RECORD, "records of own topics": BY_RECORD_OF_OWN_TOPIC},
}
"""By the gateway's own list of transports: one that has no way to do things here fails."""
TRANSPORTS = {name: offered for ways in WAYS.values() for name, offered in ways.items()}
OF_WHOLE_TENANTS = {"records of own topics"}
"""Where a single user has no way to call: whoever calls acts for all of the tenant."""


def callers(transport: str) -> list[Actor]:
    """Those who can call so."""
    return [each for each in ACTORS if transport not in OF_WHOLE_TENANTS or each.principal.only_user is None]


def strangers(transport: str) -> list[tuple[Actor, Actor]]:
    """Those who can call so, each with somebody whose things are none of theirs."""
    return [(actor, owner) for actor, owner in STRANGERS if actor in callers(transport)]


CASES = [
    (transport, name)
    for transport, offered in TRANSPORTS.items()
    for name in sorted(OPERATIONS)
    if not isinstance(offered.get(name), NotOffered)
]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tenants]:
    monkeypatch.setattr(follower, "FETCH_SECONDS", 0.01)
    monkeypatch.setattr(job_intake, "LOOK_SECONDS", 0.01)
    # No engine is there to hear of a cancellation.
    monkeypatch.setattr(worker_manager, "CANCEL_WAIT_SECONDS", 0.05)
    async with tenants(tmp_path) as made:
        yield made


def test_every_transport_of_the_gateway_is_tried() -> None:
    assert {transport for transport, ways in WAYS.items() if ways} == {None, *get_args(Transport)}
    assert all(strangers(transport) for transport in TRANSPORTS)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_transport_has_said_of_every_operation_how_it_is_done(transport: str) -> None:
    assert TRANSPORTS[transport].keys() == OPERATIONS.keys()
    assert all(each.reason for each in TRANSPORTS[transport].values() if isinstance(each, NotOffered))


@pytest.mark.parametrize(("transport", "name"), CASES, ids=lambda value: str(value).replace(" ", "-"))
async def test_a_stranger_gets_and_changes_nothing(world: Tenants, transport: str, name: str) -> None:
    perform = TRANSPORTS[transport][name]
    assert not isinstance(perform, NotOffered)
    for actor, owner in strangers(transport):
        others = [each for each in ACTORS if each is not actor]
        before = [await world.belongings(each) for each in others]
        told = await perform(world, actor, owner)
        for each in others:
            assert each.secret not in told, (actor.token, owner.token)
        after = [await world.belongings(each) for each in others]
        if name not in {"watch_job", "watch_jobs"}:  # there the test itself changes what is watched
            assert after == before, (actor.token, owner.token)
    for actor in callers(transport):
        told = await perform(world, actor, actor)
        if name in SHOWS_SECRETS:
            assert actor.secret in told, actor.token


OF_ONE_JOB = [(transport, name) for transport, name in CASES if name in {"get_job", "wait_for_job", "retry_job", "cancel_job"}]


@pytest.mark.parametrize(("transport", "name"), OF_ONE_JOB, ids=lambda value: str(value).replace(" ", "-"))
async def test_what_is_foreign_is_answered_as_what_there_is_not(world: Tenants, transport: str, name: str) -> None:
    perform = TRANSPORTS[transport][name]
    assert not isinstance(perform, NotOffered)
    nobody = Actor(ACTORS[0].principal, "ann", "nobody", "no secret")
    for actor, owner in strangers(transport):
        foreign, missing = await perform(world, actor, owner), await perform(world, actor, nobody)
        assert foreign.replace(owner.token, "") == missing.replace(nobody.token, "")


COUNTS = [(transport, name) for transport, name in CASES if name in {"list_workers", "watch_worker"}]


@pytest.mark.parametrize(("transport", "name"), COUNTS, ids=lambda value: str(value).replace(" ", "-"))
async def test_of_a_worker_nobody_is_told_how_much_others_have_to_do(world: Tenants, transport: str, name: str) -> None:
    perform = TRANSPORTS[transport][name]
    assert not isinstance(perform, NotOffered)
    for number, owner in enumerate(ACTORS, 1):
        for more in range(number):
            world.enqueue(owner, f"{owner.token}-{more}")
    for number, actor in enumerate(ACTORS, 1):
        if actor not in callers(transport):
            continue
        await world.until_has(actor, f"{actor.token}-{number - 1}")
        told = await perform(world, actor, actor)
        # Besides those that everybody has: one that waits, one that runs, and one that has failed.
        for name_of_count, wanted in (("backlog", 1 + number), ("running", 1), ("failed", 1)):
            assert set(re.findall(rf"{name_of_count}\W+(\d+)", told)) == {str(wanted)}, actor.token


async def test_a_watcher_of_a_worker_is_not_even_told_that_others_have_more_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "FETCH_SECONDS", 0.01)
    monkeypatch.setattr(job_intake, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker_watching, "COUNT_SECONDS", 0.05)
    async with tenants(tmp_path) as world, asyncio.timeout(PATIENCE):
        for actor, owner in STRANGERS:
            summaries = await world.operations(actor).watch_worker(WORKER)
            others = await world.operations(owner).watch_worker(WORKER)
            async with contextlib.aclosing(summaries), contextlib.aclosing(others):
                first = await anext(summaries)
                before = (await anext(others)).backlog or 0
                told = asyncio.create_task(anext(summaries))
                for number in (1, 2, 3):
                    world.enqueue(owner, f"foreign-{number}-of-{actor.token}-{owner.token}")
                    assert (await anext(others)).backlog == before + number
                assert not told.done(), (actor.token, owner.token)
                world.enqueue(actor, f"mine-{actor.token}-{owner.token}")
                second = await told
            assert first.backlog is not None
            assert second == first.model_copy(update={"backlog": first.backlog + 1})
