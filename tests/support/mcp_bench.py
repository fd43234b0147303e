"""A gateway that speaks the Model Context Protocol, over a cluster in memory with an engine, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import httpx2
from mcp import types
from mcp.client import Client as McpClient
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from pydantic import ConfigDict

from headrace import AbstractWorker, Client, ClosedModel, JobContext, Settings, WorkerEngine, load_settings
from headrace.testing import InMemoryCluster, InMemoryLog
from headrace_gateway import Gateway, GatewayServer, ToolRegistry
from headrace_gateway.mcp.tasks import TASKS
from support.log import PATIENCE_SECONDS

LEGACY, MODERN = "2025-11-25", "2026-07-28"


class StepsArguments(ClosedModel):
    """How a job of `steps` goes."""

    name: str = "it"
    fails: bool = False


class StepsWorker(AbstractWorker[StepsArguments]):
    """Says that it is half done, and goes on when it is let.

    Attributes:
        may_end: until it is set, no job ends.
        half_done: the names of the jobs that are half done, or further.
        ended: the names of those that have ended.
    """

    name = "steps"
    description = "Does two steps."
    kind = "steps"
    max_attempts = 1

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.half_done: list[str] = []
        self.ended: list[str] = []

    async def run(self, args: StepsArguments, ctx: JobContext) -> dict[str, Any]:
        ctx.progress(0.5, "half of it")
        self.half_done.append(args.name)
        await self.may_end.wait()
        if args.fails:
            raise RuntimeError("the second step is missing")
        self.ended.append(args.name)
        return {"steps": 2}


@dataclass
class McpBench:
    """What tests of the protocol need at hand.

    Attributes:
        jobs: looks at the same log as the gateway.
    """

    url: str
    worker: StepsWorker
    jobs: Client
    cluster: InMemoryCluster
    settings: Settings

    @asynccontextmanager
    async def client(
        self, version: str = MODERN, *, tasks: FollowsTasks | None = None, headers: dict[str, str] | None = None, **values: Any
    ) -> AsyncIterator[McpClient]:
        """A client over HTTP, in one of the protocol's two eras."""
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
            McpClient(
                streamable_http_client(self.url, http_client=http),
                mode="auto" if version == MODERN else "legacy",
                extensions=[tasks] if tasks else None,
                **values,
            ) as client,
        ):
            assert client.protocol_version == version
            yield client

    @asynccontextmanager
    async def gateway(self, **values: Any) -> AsyncIterator[str]:
        """One more gateway of the same log; the address of its endpoint."""
        async with running_gateway(self.settings, self.cluster, **values) as (url, _):
            yield url


@asynccontextmanager
async def mcp_bench(
    folder: Path, *others: type[AbstractWorker[Any]], limits: dict[str, Any] | None = None, **values: Any
) -> AsyncIterator[McpBench]:
    """A gateway and an engine with `StepsWorker`.

    Args:
        others: workers that the engine has besides.
        limits: of each caller; those that are usual when left out.
        values: of the gateway's settings; `tools` is its registry.
    """
    cluster = InMemoryCluster()
    settings = load_settings(namespace="unit", data_directory=folder, **({"limits": limits} if limits else {}))
    worker = StepsWorker()
    engine = WorkerEngine(settings, log=InMemoryLog(cluster))
    engine.register_worker(worker)
    for other in others:
        engine.register_worker(other())
    await engine.start()
    try:
        async with running_gateway(settings, cluster, **values) as (url, jobs):
            yield McpBench(url, worker, jobs, cluster, settings)
    finally:
        worker.may_end.set()
        await engine.stop(grace_seconds=1)


@asynccontextmanager
async def running_gateway(
    settings: Settings, cluster: InMemoryCluster, *, tools: ToolRegistry | None = None, **values: Any
) -> AsyncIterator[tuple[str, Client]]:
    """A gateway over a cluster in memory: the address of its endpoint, and what it looks at jobs with."""
    gateway = settings.gateway.model_copy(update={"port": 0, **values})
    settings = settings.model_copy(update={"gateway": gateway})
    async with (
        Client(settings, log=InMemoryLog(cluster), view=True) as jobs,
        GatewayServer(settings, client=jobs, gateway=Gateway(settings, jobs, tools)) as server,
    ):
        yield f"{server.url}/mcp", jobs


class Created(types.Result):
    """The answer to a call that goes on as a task."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class TaskRequest(types.Request[dict[str, Any], str]):
    """A request of the extension about one task."""

    name_param: ClassVar[str | None] = "taskId"


class TaskResult(types.Result):
    """Whatever the extension answers."""

    model_config = ConfigDict(extra="allow")


class FollowsTasks(ClientExtension):
    """A client that follows tasks to their end.

    Attributes:
        created: the ids of the tasks that it was given.
    """

    identifier = TASKS

    def __init__(self) -> None:
        self.created: list[str] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._resolve)]

    async def _resolve(self, created: Created, context: ClaimContext) -> types.CallToolResult:
        self.created.append(created.task_id)
        task = await task_at_its_end(context.session, created.task_id)
        return types.CallToolResult.model_validate(task["result"])


async def task_at_its_end(session: ClientSession, task_id: str) -> dict[str, Any]:
    """The task, once it has ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            task = await about_task(session, "tasks/get", task_id)
            if task["status"] != "working":
                return task
            await asyncio.sleep(0.02)


async def about_task(session: ClientSession, method: str, task_id: str, **parameters: Any) -> dict[str, Any]:
    """What a request of the extension answers."""
    request = TaskRequest(method=method, params={"taskId": task_id, **parameters})
    return (await session.send_request(request, TaskResult)).model_dump(by_alias=True, mode="json")


def texts(content: Sequence[Any]) -> list[str]:
    """What the blocks of text of a result say."""
    return [block.text for block in content if isinstance(block, types.TextContent)]
