"""An engine whose port for `/healthz` is taken does not start, and those beside it notice nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from headrace import AbstractWorker, ConfigurationError, JobContext, Settings, WorkerEngine
from headrace.engine.group import WorkerGroup
from support.engines import with_engine
from support.log import eventually


class Idle(AbstractWorker[dict[str, str]]):
    name = "idle"

    async def run(self, args: dict[str, str], ctx: JobContext) -> None: ...


async def test_it_joins_no_group_before_it_has_its_port(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[str] = []
    join = WorkerGroup.start

    async def noted(self: WorkerGroup) -> None:
        joined.append(self.worker.name)
        await join(self)

    monkeypatch.setattr(WorkerGroup, "start", noted)
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        engine = WorkerEngine(with_engine(settings, health_port=taken.getsockname()[1]))
        engine.register_worker(Idle)
        with pytest.raises(ConfigurationError, match="HEADRACE_ENGINE_HEALTH_PORT"):
            await engine.__aenter__()
    assert joined == []
    await eventually(lambda: asyncio.all_tasks() <= before, "nothing is left running")
