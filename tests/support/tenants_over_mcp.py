"""What tenants do over the Model Context Protocol, by the SDK's own client: over HTTP, and as hosts of a process each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
from mcp.client import Client as McpClient
from mcp.client._memory import InMemoryTransport
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from headrace_gateway.mcp.service import build_server
from support.events import PATIENCE
from support.served import NO_CERTIFICATES
from support.tenants import ACTORS, Actor, Tenants


@asynccontextmanager
async def mcp_client(world: Tenants, actor: Actor) -> AsyncIterator[McpClient]:
    """A client whose requests have the actor's token."""
    async with (
        httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {actor.token}"}, timeout=30, trust_env=False, verify=NO_CERTIFICATES
        ) as http,
        McpClient(streamable_http_client(f"{world.gateway.url}/mcp", http_client=http)) as client,
    ):
        yield client


@asynccontextmanager
async def host(world: Tenants, actor: Actor) -> AsyncIterator[McpClient]:
    """A client of a server that serves the actor alone, as over standard input and output."""
    server = build_server(world.gateway.app.state.gateway, local=actor.principal)
    async with McpClient(InMemoryTransport(server)) as client:
        yield client


Connect = Callable[[Tenants, Actor], AbstractAsyncContextManager[McpClient]]


def by_tool(
    name: str, arguments: Callable[[Actor], dict[str, Any]], connect: Connect = mcp_client
) -> Callable[[Tenants, Actor, Actor], Awaitable[str]]:
    """Calls a tool, with arguments about the owner's things."""

    async def run(world: Tenants, actor: Actor, owner: Actor) -> str:
        async with connect(world, actor) as client:
            return str((await client.call_tool(name, arguments(owner))).model_dump())

    return run


async def read_job(world: Tenants, actor: Actor, owner: Actor, *, connect: Connect = mcp_client) -> str:
    """The resource of the owner's job."""
    async with connect(world, actor) as client:
        listed = str((await client.list_resources()).model_dump())
        assert [each for each in ACTORS if each.token in listed] == [actor], "only what is theirs is listed"
        return await _resource(client, f"job://{owner.failed}")


async def watch_job(world: Tenants, actor: Actor, owner: Actor, *, connect: Connect = mcp_client) -> str:
    """What the owner's job is each time that a stream tells of a change."""
    uri = f"job://{owner.changing}"
    told = ""
    async with (
        asyncio.timeout(PATIENCE),
        connect(world, actor) as client,
        client.listen(resource_subscriptions=[uri]) as stream,
    ):
        if not stream.honored.resource_subscriptions:
            return str(stream.honored.model_dump())
        changes = 0
        async for _ in stream:
            told += await _resource(client, uri)
            changes += 1
            if changes == 2:
                break
            world.change(owner)
    return told


async def watch_worker(world: Tenants, actor: Actor, owner: Actor, *, connect: Connect = mcp_client) -> str:
    """What the worker of all of them is when a stream tells of it first, and all that the stream tells."""
    uri = f"worker://{world.engines.worker}"
    async with (
        asyncio.timeout(PATIENCE),
        connect(world, actor) as client,
        client.listen(resource_subscriptions=[uri]) as stream,
    ):
        told = await anext(aiter(stream))
        return f"{told} {await _resource(client, uri)}"


async def _resource(client: McpClient, uri: str) -> str:
    try:
        return str((await client.read_resource(uri)).model_dump())
    except MCPError as error:
        return str(error.error.model_dump())
